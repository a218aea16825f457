"""Supervises the processes of a trial, one a rank: starts them, hears them, and leaves none behind.

A process ends with the thread that started it, so the thread must live as long as the trial does.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Self

from algorithmic_efficiency.backends import ports
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.launch import output
from algorithmic_efficiency.results.environment import num_usable_cpus
from algorithmic_efficiency.trial import processes
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.messages import GarbledError, LineBuffer, Message

POLL_SEC = 0.2
GRACE_SEC = 10.0  # time to end for a process that has hung up, or that shows where it stands


def rank_configs(config: TrialConfig) -> list[TrialConfig]:
  """Makes the config of each process that this host must start."""
  devices = config.devices
  if devices.world_size == 1 or devices.address:
    return [config]
  common = replace(
    devices,
    address=f'127.0.0.1:{ports.free_port()}',
    num_threads=devices.num_threads or max(1, int(num_usable_cpus() / devices.world_size)),
  )
  return [
    replace(config, devices=replace(common, rank=rank, local_rank=rank))
    for rank in range(devices.world_size)
  ]


class Rank:
  """One process of a trial.

  Attributes:
    index: its position among the processes that this host started.
    name: its name in messages.
    hung_up: true once its end of the pipe is closed.
    garbled: the reason why its messages cannot be trusted; None if they can.
    exit_code: its exit code before it was killed; None if it was running then.
  """

  def __init__(self, index: int, name: str, process: subprocess.Popen[bytes], pipe: int):
    self.index = index
    self.name = name
    self.pipe = pipe
    self.hung_up = False
    self.garbled: str | None = None
    self.exit_code: int | None = None
    self._process = process
    self._buffer = LineBuffer()

  def poll(self) -> int | None:
    """Gives its exit code; None while it runs."""
    return self._process.poll()

  def wait(self, seconds: float) -> int | None:
    """Waits for its end, and gives its exit code; None if it still runs after these seconds."""
    with contextlib.suppress(subprocess.TimeoutExpired):
      return self._process.wait(seconds)
    return None

  def read(self) -> list[Message]:
    """Reads the messages that have come."""
    data = os.read(self.pipe, 65536)
    self.hung_up = not data
    heard: list[Message] = []
    try:
      heard.extend(self._buffer.feed(data))
    except GarbledError as error:
      self.garbled = str(error)
    return heard

  def tell(self, line: str) -> None:
    """Writes a line to its standard input; does nothing if it has ended."""
    assert self._process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.write(line.encode() + b'\n')
      self._process.stdin.flush()

  def let_go(self) -> None:
    """Closes its standard input: no line follows."""
    assert self._process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()

  def abort(self) -> None:
    """Sends SIGABRT, upon which it prints its stack and ends."""
    self._process.send_signal(signal.SIGABRT)

  def started(self) -> list[processes.Process]:
    """Lists the processes that it has started; empty if it has ended."""
    running = self._process.poll() is None
    return list(processes.processes_below(self._process.pid)) if running else []

  def kill(self) -> None:
    """Kills it, with the processes that are still in its group."""
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self._process.pid, signal.SIGKILL)
    self._process.wait()


@dataclass(frozen=True, kw_only=True)
class Heard:
  """A message of a process.

  Attributes:
    at: when it was read, in monotonic seconds.
    age_sec: seconds before that in which it may have come.
  """

  rank: Rank
  message: Message
  at: float
  age_sec: float


class Ranks:
  """Runs the processes of a trial on this host during the block, and kills them after it.

  Args:
    configs: one config for each process, which gets it as a line on standard input.
    command: the command of a process; the descriptor of its pipe and our number follow.
    environment: environment variables that they get besides our own.
    output_folder: the folder of the files that they print to. None lets them print where we do.
    canceled: once this is set, `hear` raises KeyboardInterrupt.

  Attributes:
    are_silent: true once none of them has sent anything for the heartbeat timeout.
  """

  def __init__(
    self,
    configs: Sequence[TrialConfig],
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    output_folder: Path | None,
    canceled: threading.Event | None = None,
  ):
    self._configs = configs
    self._command = command
    self._environment = environment
    self._output_folder = output_folder
    self._canceled = canceled or threading.Event()
    self._heartbeat_timeout_sec = configs[0].heartbeat_timeout_sec
    self._selector = selectors.DefaultSelector()
    self._ranks: list[Rank] = []
    self.are_silent = False

  def __enter__(self) -> Self:
    try:
      for config in self._configs:
        rank = self._start(config)
        self._ranks.append(rank)
        self._selector.register(rank.pipe, selectors.EVENT_READ, rank)
        rank.tell(config.to_json())
    except BaseException:
      self.end()
      raise
    self._asked_at = self._heard_at = time.perf_counter()
    return self

  def __exit__(self, *exception: object) -> None:
    self.end()

  def __iter__(self) -> Iterator[Rank]:
    return iter(self._ranks)

  def _start(self, config: TrialConfig) -> Rank:
    devices = config.devices
    name = f'rank {devices.rank}' if devices.world_size > 1 else 'the process of the trial'
    with output.opened(self._output_folder, devices.rank) as file:
      process, pipe = _spawn(self._command, self._environment, file)
    return Rank(len(self._ranks), name, process, pipe)

  def expect(self) -> None:
    """Restarts the heartbeat timeout, as they were given something to do."""
    self._heard_at = time.perf_counter()
    self.are_silent = False

  def hear(self) -> list[Heard]:
    """Waits a moment for messages. A process that has hung up or is garbled is heard no more.

    Raises:
      KeyboardInterrupt: `canceled` was set.
    """
    if self._canceled.is_set():
      raise KeyboardInterrupt
    before, self._asked_at = self._asked_at, time.perf_counter()  # all that came before was heard
    ready = self._selector.select(POLL_SEC)
    if not ready and self._is_late():
      ready = self._selector.select(0)  # we may have been held up ourselves
      self.are_silent = not ready
    heard: list[Heard] = []
    for key, _ in ready:
      rank = key.data
      said = rank.read()
      self._heard_at = now = time.perf_counter()
      heard += [Heard(rank=rank, message=one, at=now, age_sec=now - before) for one in said]
      if rank.hung_up or rank.garbled is not None:
        self._selector.unregister(rank.pipe)
    return heard

  def _is_late(self) -> bool:
    return time.perf_counter() - self._heard_at > self._heartbeat_timeout_sec

  def end(self, *, grace_sec: float = 0.0, show_stacks: bool = False) -> None:
    """Kills the processes, and all that they have started.

    Args:
      grace_sec: seconds in which they may end by themselves. One that has hung up always gets some.
      show_stacks: if true, each prints its stack first.
    """
    started = [process for rank in self._ranks for process in rank.started()]
    deadline = time.perf_counter() + grace_sec
    for rank in self._ranks:
      rank.let_go()
    for rank in self._ranks:
      left = max(0.0, deadline - time.perf_counter())
      rank.exit_code = rank.wait(GRACE_SEC if rank.hung_up else left)
    if show_stacks:
      self._show_stacks()
    for rank in self._ranks:
      rank.kill()
      os.close(rank.pipe)
    for process in started:  # some may have left the group
      with contextlib.suppress(processes.GONE):
        process.kill()  # psutil makes sure that the number is still its own
    self._ranks = []
    self._selector.close()

  def _show_stacks(self) -> None:
    for rank in self._ranks:
      rank.abort()
    for rank in self._ranks:
      rank.wait(GRACE_SEC)


def _spawn(
  command: Sequence[str], environment: Mapping[str, str], file: IO[bytes] | None
) -> tuple[subprocess.Popen[bytes], int]:
  """Starts a process in a session of its own; returns it and the pipe of its messages."""
  receive, send = os.pipe()
  variables: dict[str, Any] = {**os.environ, **environment}
  variables['PYTHONPATH'] = os.pathsep.join(
    part for part in (str(registry.HOME), variables.get('PYTHONPATH', '')) if part
  )
  variables.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  try:
    process = subprocess.Popen(
      [*command, str(send), str(os.getpid())],
      stdin=subprocess.PIPE,
      stdout=file,
      stderr=file,
      pass_fds=(send,),
      env=variables,
      start_new_session=True,
    )
  except BaseException:
    os.close(receive)
    raise
  finally:
    os.close(send)
  return process, receive
