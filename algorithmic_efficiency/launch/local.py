"""Runs a trial on this machine: one process a rank, watched by a parent that keeps its own clock.

The parent imports no framework. A trial ends with the process, and with the thread, that started
it, so both must live as long as it does.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.backends import ports
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.launch.trial_folder import TrialFolder
from algorithmic_efficiency.optimizers import by_name
from algorithmic_efficiency.results import files, measurements, trial_record
from algorithmic_efficiency.results.environment import num_usable_cpus
from algorithmic_efficiency.trial import processes
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.messages import GarbledError, LineBuffer

CLOCK_TOLERANCE = 0.01
CLOCK_TOLERANCE_SEC = 0.5
WORKER = (sys.executable, '-P', '-m', 'algorithmic_efficiency.trial.worker')
"""What runs a trial's process: it is given the descriptor of its pipe and its parent's number."""

_STACK = 'most recent call first):\n'  # what faulthandler heads each thread's with
_FRAME = re.compile(r'  File "(.+)", line (\d+) in (.+)')
_GRACE_SEC = 10.0  # what the other ranks get to end by themselves when one has ended
_POLL_SEC = 0.2

OnMessage = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
  """How a trial ended, as its parent saw it."""

  folder: Path
  status: str
  stop_reason: str
  reason: str
  parent_wall_sec: float | None = None


@dataclass
class _Rank:
  """One process of a trial and what it has said."""

  process: subprocess.Popen
  pipe: int
  buffer: LineBuffer = field(default_factory=LineBuffer)
  started: float | None = None
  ended: float | None = None
  doubtful_sec: float = 0.0  # by how much both may be too late, as we were not there to hear it
  last: Mapping[str, Any] = field(default_factory=dict)
  user_error: str | None = None
  hung_up: bool = False  # its end of the pipe is closed
  garbled: str | None = None  # why what it said cannot be believed
  exit_code: int | None = None  # before we ended it; None if it was running then
  silent_sec: float | None = None  # how long it was silent when we ended it for that
  rows: Any = field(default_factory=hashlib.sha256)


def run_trial(
  config: TrialConfig,
  on_message: OnMessage = lambda message: None,
  *,
  environment: Mapping[str, str] = MappingProxyType({}),
  cancelled: threading.Event | None = None,
  mistakes_are_outcomes: bool = False,
) -> Outcome:
  """Runs one trial to its end and checks what it says of itself.

  Args:
    on_message: is given what the first of its processes says, and the findings of all of them.
    environment: variables that its processes get besides our own.
    cancelled: once it is set the trial is interrupted, and KeyboardInterrupt is raised.
    mistakes_are_outcomes: whether a mistake of the user's that ends the trial is written down as
      its outcome instead of being raised.

  Raises:
    UserError: the trial could not run because of a mistake that the user can mend, or another
      process is at work in its folder.
  """
  if config.devices.rank != 0:  # one of several parents: the first one keeps the folder
    return _outcome(config, _run_ranks([config], on_message, cancelled, environment, None))
  with TrialFolder(config.path, replace=config.overwrite) as folder:
    before = trial_record.read_trial(config.path)
    by_name.keep(Path(config.submission_path), config.path)

    def take(message: Mapping[str, Any]) -> None:
      if message['kind'] == 'row':
        folder.has_row()
      on_message(message)

    try:
      ranks = _run_ranks(rank_configs(config), take, cancelled, environment, config.path)
    except KeyboardInterrupt:
      if not (folder.is_replacing() and folder.discard_if_empty()):
        _write_outcome(config, _interrupted(config), before)
      raise
    mistake = next((rank.user_error for rank in ranks if rank.user_error), None)
    if mistake is not None and not mistakes_are_outcomes:
      folder.discard_if_empty()
      raise errors.UserError(mistake)
    folder.forget_replaced()
    outcome = _outcome(config, ranks) if mistake is None else mistaken(config, mistake)
    _write_outcome(config, outcome, before)
    return outcome


def recorded(folder: Path, record: trial_record.TrialRecord) -> Outcome:
  """The outcome of a trial that ended before, as its record has it."""
  return Outcome(
    folder=folder,
    status=record.status,
    stop_reason=record.stop_reason or '',
    reason=record.reason,
    parent_wall_sec=record.parent_wall_sec,
  )


def mistaken(config: TrialConfig, mistake: str) -> Outcome:
  """The outcome of a trial that a mistake of the user's has ended, or kept from beginning."""
  return Outcome(folder=config.path, status='failed', stop_reason='failed', reason=mistake)


def _interrupted(config: TrialConfig) -> Outcome:
  return Outcome(
    folder=config.path,
    status='failed',
    stop_reason='interrupted',
    reason='The trial was interrupted; continue it with --resume.',
  )


def _run_ranks(
  configs: list[TrialConfig],
  on_message: OnMessage,
  cancelled: threading.Event | None,
  environment: Mapping[str, str],
  output_folder: Path | None,
) -> list[_Rank]:
  ranks = [_start(config, environment, output_folder) for config in configs]
  try:
    _watch(ranks, on_message, cancelled, configs[0].heartbeat_timeout_sec)
  finally:
    _end(ranks)
  return ranks


def rank_configs(config: TrialConfig) -> list[TrialConfig]:
  """The plan of each process that this host must start."""
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


def _start(
  config: TrialConfig, environment: Mapping[str, str], output_folder: Path | None
) -> _Rank:
  with _output(output_folder, config.devices.rank) as output:
    process, pipe = spawn(WORKER, environment, output)
  assert process.stdin is not None
  try:
    with process.stdin as stdin:
      stdin.write(config.to_json().encode())
  except BrokenPipeError:
    pass  # it ended at once; the watch will say how
  return _Rank(process, pipe)


def spawn(
  command: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | None
) -> tuple[subprocess.Popen, int]:
  """Starts a process that runs a trial, in a session of its own; gives it and the pipe on which its
  messages come.

  Args:
    command: what is given the descriptor of its end of the pipe, and its parent's number.
    environment: variables that it gets besides our own.
    output: where it prints; None is where we do.
  """
  receive, send = os.pipe()
  variables = {**os.environ, **environment}
  variables['PYTHONPATH'] = os.pathsep.join(
    part for part in (str(registry.HOME), variables.get('PYTHONPATH', '')) if part
  )
  variables.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  process = subprocess.Popen(
    [*command, str(send), str(os.getpid())],
    stdin=subprocess.PIPE,
    stdout=output,
    stderr=output,
    pass_fds=(send,),
    env=variables,
    start_new_session=True,
  )
  os.close(send)
  return process, receive


def _output(folder: Path | None, rank: int) -> contextlib.AbstractContextManager[Any]:
  """Where a process prints: a file in the trial folder, or, without one, where its parent does."""
  return contextlib.nullcontext() if folder is None else open(folder / _output_name(rank), 'ab')


def _output_name(rank: int) -> str:
  """The file in the trial folder to which a process prints."""
  return 'output.txt' if rank == 0 else f'output_rank{rank}.txt'


def last_stack(folder: Path, rank: int) -> list[traceback.FrameSummary]:
  """Where the main thread of a process stood when a signal ended it, the innermost call last; empty
  if it left no such trace."""
  with contextlib.suppress(FileNotFoundError):
    text = (folder / _output_name(rank)).read_text(errors='replace')
    _, _, stack = text.rpartition(_STACK)  # the main thread comes last
    found = reversed(_FRAME.findall(stack.partition('\n\n')[0]))
    return [
      traceback.FrameSummary(file, int(line), name, lookup_line=False) for file, line, name in found
    ]
  return []


def _watch(
  ranks: list[_Rank],
  on_message: OnMessage,
  cancelled: threading.Event | None,
  heartbeat_timeout_sec: float,
) -> None:
  """Reads messages until every process has closed its pipe, or a while after the trial is over:
  what a submission has started may keep a process, or a pipe, open for ever. A submission may also
  never return; so it ends when none of the processes has said anything for as long as they may.

  Raises:
    KeyboardInterrupt: `cancelled` was set.
  """
  over_at: float | None = None
  heard_at = asked_at = time.perf_counter()
  with selectors.DefaultSelector() as selector:
    for rank in ranks:
      selector.register(rank.pipe, selectors.EVENT_READ, rank)
    while selector.get_map():
      if cancelled is not None and cancelled.is_set():
        raise KeyboardInterrupt
      before, asked_at = asked_at, time.perf_counter()  # what had come before then, we have heard
      for key, _ in selector.select(_POLL_SEC):
        data = os.read(key.fd, 65536)
        heard_at = now = time.perf_counter()
        if not data:
          selector.unregister(key.fd)
          key.data.hung_up = True
        try:
          messages = key.data.buffer.feed(data)
        except GarbledError as error:
          key.data.garbled = str(error)
          return
        for message in messages:
          _receive(key.data, message, now, now - before)
          if key.data is ranks[0] or message['kind'] == 'finding':  # which any of them may make
            on_message(message)
      if over_at is None and _is_over(ranks):
        over_at = time.perf_counter()
      if over_at is not None and time.perf_counter() - over_at > _GRACE_SEC:
        return
      if over_at is None and time.perf_counter() - heard_at > heartbeat_timeout_sec:
        for rank in ranks:
          rank.silent_sec = heartbeat_timeout_sec
        return


def _is_over(ranks: list[_Rank]) -> bool:
  """Whether a process has failed, or all of them have come to their end."""
  return any(_has_failed(rank) for rank in ranks) or all(
    rank.ended is not None or rank.process.poll() is not None for rank in ranks
  )


def _has_failed(rank: _Rank) -> bool:
  if rank.process.poll() not in (None, 0):
    return True
  return rank.ended is not None and rank.last['status'] != 'finished'


def _receive(rank: _Rank, message: Mapping[str, Any], now: float, age_sec: float) -> None:
  """Takes in what a process says; that may have come as long ago as `age_sec`."""
  kind = message['kind']
  if kind in ('start', 'ended'):
    rank.doubtful_sec = max(rank.doubtful_sec, age_sec - 2 * _POLL_SEC)
  if kind == 'start':
    rank.started = now - message['age_sec']  # the core was imported a moment before
  elif kind == 'ended':
    rank.ended, rank.last = now, message
  elif kind == 'user_error':
    rank.user_error = message['message']
  elif kind == 'row':
    rank.rows.update(message['line'].encode() + b'\n')


def _end(ranks: list[_Rank]) -> None:
  """Leaves no process behind, nor any that a submission has started."""
  started = {one: born for rank in ranks for one, born in started_by(rank.process).items()}
  for rank in ranks:
    if rank.hung_up:  # which a process does a moment before it has ended
      with contextlib.suppress(subprocess.TimeoutExpired):
        rank.process.wait(timeout=_GRACE_SEC)
    rank.exit_code = rank.process.poll()
    if rank.silent_sec is not None:
      rank.process.send_signal(signal.SIGABRT)  # upon which it prints where it stands
  for rank in ranks:
    if rank.silent_sec is not None:
      with contextlib.suppress(subprocess.TimeoutExpired):
        rank.process.wait(timeout=_GRACE_SEC)
  for rank in ranks:
    kill(rank.process, started)
    os.close(rank.pipe)


def started_by(process: subprocess.Popen) -> dict[int, str | None]:
  """What the process of a trial has started, while it is there: numbers and births."""
  if process.poll() is not None:
    return {}
  below = processes.processes_below(process.pid)
  return {number: processes.birth(number) for number, _ in below}


def kill(process: subprocess.Popen, started: Mapping[int, str | None]) -> None:
  """Ends the process of a trial, and what it has started."""
  with contextlib.suppress(ProcessLookupError):  # its group lives on with what it has started
    os.killpg(process.pid, signal.SIGKILL)
  for number, born in started.items():  # some may have left the group
    if born is not None and processes.birth(number) == born:  # the number is not another's by now
      with contextlib.suppress(OSError):
        os.kill(number, signal.SIGKILL)
  process.wait()


def _outcome(config: TrialConfig, ranks: list[_Rank]) -> Outcome:
  first = ranks[0]
  garbled = next((rank.garbled for rank in ranks if rank.garbled), None)
  if garbled is not None:
    return Outcome(folder=config.path, status='invalid', stop_reason='failed', reason=garbled)
  dead = _dead(ranks)
  if dead is not None:
    status, stop_reason, reason = _death(dead, ranks)
    return Outcome(folder=config.path, status=status, stop_reason=stop_reason, reason=reason)
  teller = _teller(ranks)
  status, stop_reason, reason = (teller.last[key] for key in ('status', 'stop_reason', 'reason'))
  wall = None if first.ended is None or first.started is None else first.ended - first.started
  if status == 'finished':
    assert wall is not None
    doubt = _clock_doubt(first, wall) or _rows_doubt(config, first)
    if doubt is not None:
      status, stop_reason, reason = 'invalid', 'failed', doubt
  return Outcome(
    folder=config.path,
    status=status,
    stop_reason=stop_reason,
    reason=reason,
    parent_wall_sec=wall,
  )


def _dead(ranks: list[_Rank]) -> _Rank | None:
  """The process that ended without saying how, and so ended the trial; None if there is none."""
  silent = [rank for rank in ranks if rank.ended is None]
  killed = [rank for rank in silent if (rank.exit_code or 0) < 0]
  if killed:
    return killed[0]
  if any(rank.ended is not None and rank.last['status'] != 'finished' for rank in ranks):
    return None  # it said how; those that are silent waited for it
  gone = [rank for rank in silent if rank.exit_code is not None]
  return next(iter([*gone, *silent]), None)


def _teller(ranks: list[_Rank]) -> _Rank:
  """The process that says how the trial ended: the first that failed, else the first of all."""
  ended = [(rank.ended, rank) for rank in ranks if rank.ended is not None]
  failed = [entry for entry in ended if entry[1].last['status'] != 'finished']
  return min(failed, key=lambda entry: entry[0])[1] if failed else ranks[0]


def _death(dead: _Rank, ranks: list[_Rank]) -> tuple[str, str, str]:
  code = dead.exit_code
  if dead.silent_sec is not None:
    who = 'the processes' if len(ranks) > 1 else 'the process'
    return (
      'failed',
      'heartbeat_timeout',
      f'{who} of the trial gave no sign of life for {dead.silent_sec:g} s, which is the hard '
      'limit; output.txt shows where it stood',
    )
  who = f'rank {ranks.index(dead)}' if len(ranks) > 1 else 'the process of the trial'
  if code is not None and code < 0:
    name = signal.Signals(-code).name
    if code == -signal.SIGKILL:
      return 'failed', 'out_of_memory', f'{who} was killed ({name}), most likely for its memory'
    if -code in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # by somebody
      return 'failed', 'interrupted', f'{who} was ended by {name}'
    return 'failed', 'failed', f'{who} was ended by {name}; output.txt shows where it stood'
  how = 'did not come to an end' if code is None else f'ended with exit code {code}'
  return 'failed', 'failed', f'{who} {how}; see output.txt'


def _clock_doubt(rank: _Rank, parent_sec: float) -> str | None:
  """Says how the trial's clock differs from its parent's, if it does by more than it may."""
  child_sec = rank.last['wall_sec']
  allowed = max(CLOCK_TOLERANCE * parent_sec, CLOCK_TOLERANCE_SEC) + rank.doubtful_sec
  if abs(child_sec - parent_sec) <= allowed:
    return None
  return (
    f'The clock of the trial is off: its buckets sum to {child_sec:.2f} s, its parent measured '
    f'{parent_sec:.2f} s.'
  )


def _rows_doubt(config: TrialConfig, rank: _Rank) -> str | None:
  """Says that the rows on disk are not those that were reported while the trial ran, if so; and
  that what is made of them, and scored, is."""
  if config.devices.rank != 0:
    return None
  digest = hashlib.sha256()
  kept = rank.last['log_offset']
  try:
    with open(config.path / measurements.LOG_FILE, 'rb') as file:
      file.seek(kept)
      for line in file:
        digest.update(line)
  except OSError as error:
    return f'The rows that the trial reported cannot be read any more: {error.strerror}.'
  if digest.digest() != rank.rows.digest():
    return 'The rows on disk are not those that the trial reported while it ran.'
  altered = measurements.altered_views(config.path)
  return f'{altered[0]} does not hold the rows of the log.' if altered else None


def _write_outcome(
  config: TrialConfig, outcome: Outcome, before: trial_record.TrialRecord | None
) -> None:
  """Writes how the trial ended, as the parent sees it, into its record; `before` is that of its
  last attempt."""
  path = outcome.folder / trial_record.TRIAL_FILE
  try:
    record = files.decode(path.read_text())
  except (OSError, ValueError):
    record = config.record().to_json()  # it ended before it could write one
  record.update(
    status=outcome.status,
    stop_reason=outcome.stop_reason,
    reason=outcome.reason,
    parent_wall_sec=outcome.parent_wall_sec,
  )
  record['num_out_of_memory'] = _num_out_of_memory(record, before)
  files.write_json_atomic(path, record)


def _num_out_of_memory(record: Mapping[str, Any], before: trial_record.TrialRecord | None) -> int:
  if record['stop_reason'] != 'out_of_memory':
    return 0
  host = record['environment'].get('host_hash')
  if before is None or before.environment.get('host_hash') != host:
    return 1
  return before.num_out_of_memory + 1
