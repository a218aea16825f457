"""A trial that waits: its processes are there, and make steps when they are told to.

What a step, an evaluation or a checkpoint costs is found out this way, with the trial's own code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from algorithmic_efficiency import backends, errors
from algorithmic_efficiency.launch import local
from algorithmic_efficiency.launch.slots import Slot
from algorithmic_efficiency.launch.trial_folder import scratch
from algorithmic_efficiency.results import trial_record
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.messages import GarbledError, LineBuffer

_GRACE_SEC = 20.0  # what the processes get to end by themselves
_POLL_SEC = 0.2
_WORKER = (sys.executable, '-P', '-m', 'algorithmic_efficiency.trial.step_worker')


class StepperError(Exception):
  """The trial failed; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Start:
  """A trial before its first step.

  Attributes:
    clock_sec: what its own clock says, which begins when its process imports the core.
  """

  eval_batch_size: int
  clock_sec: float


@dataclass(frozen=True, kw_only=True)
class Interval:
  """Some steps, and the evaluation after them if there was one.

  Attributes:
    charged_steps: batches drawn from the input queue; at least as many as steps.
    buckets: what was spent, in seconds, by bucket of the trial's clock.
  """

  num_steps: int
  charged_steps: int
  buckets: Mapping[str, float]
  peak_memory_bytes: Mapping[str, int]

  @property
  def sec(self) -> float:
    """Seconds that the steps took."""
    return self.buckets['data'] + self.buckets['update']

  @property
  def step_sec(self) -> float:
    """Seconds of a charged step."""
    return self.sec / self.charged_steps


class Stepper:
  """The processes of one trial, for as long as the block lasts; it leaves no trace of them.

  Whatever the trial writes goes to a folder of its own, which is gone with the block.

  Args:
    place: where it runs.
    num_sharing: how many such trials have the devices of this one in common.
    cancelled: once it is set, waiting ends with KeyboardInterrupt.

  Attributes:
    folder: where the trial writes.
    start: what the trial said when it stood before its first step.

  Raises:
    StepperError: the trial failed; so it is for the methods.
    UserError: it failed because of a mistake that the user can mend.
  """

  def __init__(
    self,
    config: TrialConfig,
    slot: Slot,
    *,
    num_sharing: int = 1,
    cancelled: threading.Event | None = None,
  ):
    self._config = config
    self._cancelled = cancelled or threading.Event()
    self._environment = {**slot.environment(), **backends.sharing(num_sharing)}
    self._ranks: list[_Rank] = []
    self._left = contextlib.ExitStack()

  def __enter__(self) -> Self:
    self.folder = self._left.enter_context(scratch())
    try:
      for config in local.rank_configs(aside(self._config, self.folder)):
        self._ranks.append(_Rank(config, self._environment))
    except BaseException:
      self._end(grace_sec=0.0)
      raise
    return self

  def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
    self._end(grace_sec=_GRACE_SEC if kind is None else 0.0)

  def wait(self) -> None:
    """Waits until the trial stands before its first step."""
    said = self._answers('ready')
    self.start = Start(eval_batch_size=said[0]['eval_batch_size'], clock_sec=said[0]['clock_sec'])

  def go(self, num_steps: int, *, max_batches: int | None = None) -> Interval:
    """Makes steps, and then, if asked to, evaluates the first few batches of each split."""
    order = {'num_steps': num_steps, 'max_batches': max_batches}
    for rank in self._ranks:
      rank.tell(order)
    answers = self._answers('interval')
    fields = {field.name: answers[0][field.name] for field in dataclasses.fields(Interval)}
    return Interval(**fields)

  def _answers(self, kind: str) -> list[Mapping[str, Any]]:
    """The next message of each process, which is of this kind unless one has failed, or says
    nothing for longer than a trial may. One that has failed ends the waiting for the others, as
    they may wait for it themselves."""
    begin = time.perf_counter()
    while True:
      for rank in sorted(self._ranks, key=lambda rank: len(rank.messages)):
        rank.check()  # first those that died without a word, of which others may complain
      silent = [rank for rank in self._ranks if not rank.messages]
      if not silent:
        break
      if self._cancelled.is_set():
        raise KeyboardInterrupt
      ready, *_ = select.select(silent, [], [], _POLL_SEC)
      for rank in ready:
        rank.read()
      if not ready and time.perf_counter() - begin > self._config.heartbeat_timeout_sec:
        raise StepperError(
          f'its process was silent for {self._config.heartbeat_timeout_sec:g} s, '
          'the heartbeat timeout'
        )
    messages = [rank.messages.pop(0) for rank in self._ranks]
    assert all(message['kind'] == kind for message in messages)
    return messages

  def environment(self) -> Mapping[str, Any]:
    """What the trial runs on, as its record has it."""
    record = trial_record.read_trial(self.folder)
    assert record is not None, 'wait() comes first'
    return record.environment

  def let_go(self) -> None:
    """Tells the processes that there is no further order, so that they begin to end."""
    for rank in self._ranks:
      rank.let_go()

  def close(self) -> float:
    """Ends the processes, in peace; the seconds that this took."""
    begin = time.perf_counter()
    self._end(grace_sec=_GRACE_SEC, keep_folder=True)
    return time.perf_counter() - begin

  def _end(self, *, grace_sec: float, keep_folder: bool = False) -> None:
    self.let_go()
    end = time.perf_counter() + grace_sec
    for rank in self._ranks:
      rank.end(max(0.0, end - time.perf_counter()))
    self._ranks.clear()
    if not keep_folder:
      self._left.close()


def aside(config: TrialConfig, folder: Path) -> TrialConfig:
  """The same trial, begun anew in another folder, with everything that it would write."""
  devices, cache = config.devices, config.devices.compilation_cache
  if cache is not None and Path(cache).is_relative_to(config.path):
    moved = folder / Path(cache).relative_to(config.path)
    devices = dataclasses.replace(devices, compilation_cache=str(moved))
  return dataclasses.replace(
    config,
    folder=str(folder),
    devices=devices,
    resume=False,
    overwrite=False,
    options=dataclasses.replace(config.options, trackers=()),
  )


class _Rank:
  """One process; `messages` are those that nobody has taken yet."""

  def __init__(self, config: TrialConfig, environment: Mapping[str, str]):
    self.messages: list[Mapping[str, Any]] = []
    self._buffer = LineBuffer()
    self._has_hung_up = False
    self._name = f'rank {config.devices.rank}' if config.devices.world_size > 1 else 'its process'
    self._output = config.path / f'output_rank{config.devices.rank}.txt'
    with open(self._output, 'wb') as output:
      self._process, self._pipe = local.spawn(_WORKER, environment, output)
    self._write(config.to_json())

  def tell(self, order: Mapping[str, Any]) -> None:
    self._write(json.dumps(order))

  def _write(self, line: str) -> None:
    assert self._process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # `check` says why
      self._process.stdin.write(line.encode() + b'\n')
      self._process.stdin.flush()

  def fileno(self) -> int:
    """Where its messages come, for `select`."""
    return self._pipe

  def read(self) -> None:
    """Takes in what it has said.

    Raises:
      StepperError: it is no message.
    """
    data = os.read(self._pipe, 65536)
    self._has_hung_up = not data
    try:
      self.messages += self._buffer.feed(data)
    except GarbledError as error:
      raise StepperError(str(error)) from None

  def check(self) -> None:
    """
    Raises:
      StepperError, UserError: it has failed, or has ended without a word.
    """
    if self.messages and self.messages[0]['kind'] == 'failed':
      kind = errors.UserError if self.messages[0]['mendable'] else StepperError
      raise kind(self.messages[0]['reason'])
    if self._has_hung_up and not self.messages:
      raise StepperError(self._last_words())

  def _last_words(self) -> str:
    try:
      code = self._process.wait(_GRACE_SEC)
    except subprocess.TimeoutExpired:
      return f'{self._name} has closed what it was to answer through, and does not end'
    if code < 0:
      return f'{self._name} was ended by {signal.Signals(-code).name}'
    lines = self._output.read_text(errors='replace').split('\n')
    last = next(filter(None, reversed(lines)), 'no word')
    return f'{self._name} ended with exit code {code}: {last}'

  def let_go(self) -> None:
    """Tells the process that there will be no further order."""
    assert self._process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()

  def end(self, grace_sec: float) -> None:
    """Leaves no process behind, nor any that a submission has started."""
    started = local.started_by(self._process)
    with contextlib.suppress(subprocess.TimeoutExpired):
      self._process.wait(grace_sec)
    local.kill(self._process, started)
    os.close(self._pipe)
