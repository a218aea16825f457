"""What a job of SLURM does on its node: it runs jobs of a race, as the local launcher does.

A task that SLURM stops, at its time limit or for a job of higher priority, interrupts its trial and
ends with `EXIT_CONTINUE`. Its batch script then puts it back into the queue, and there it goes on.
A trial on several nodes has a task of `srun` for each of its processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.launch import outcome as outcomes
from algorithmic_efficiency.launch import pool
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.launch.pool import Event, PooledTrial
from algorithmic_efficiency.launch.slots import Slot
from algorithmic_efficiency.launchers import slurm_files
from algorithmic_efficiency.launchers.launcher import RaceJob
from algorithmic_efficiency.launchers.slurm_files import Ending, Entry, JournalWriter
from algorithmic_efficiency.results import trial_record
from algorithmic_efficiency.trial import messages

EXIT_CONTINUE = 85
"""The exit code of a task that was stopped before it was done."""

MAX_IDLE_STOPS = 3
"""A task that comes no further is put back into the queue so many times in a row, less one."""

_EXIT_FAILED = 1
_STOP_SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
_PORTS = (20_000, 12_000)  # as in `backends.ports`: the first, and how many
_WORD_SEC = 15.0  # for another process of the trial to say why it has failed


@dataclass(frozen=True, kw_only=True)
class Task:
  """The jobs that a job of SLURM runs one after the other, and the file of its journal."""

  jobs: tuple[RaceJob, ...]
  journal: str


@dataclass(frozen=True, kw_only=True)
class _Place:
  """The place of this process among those of its task.

  Attributes:
    address: the address of the first node.
    restart: the number of times that the task has run before, in digits.
  """

  rank: int
  world_size: int
  local_rank: int
  address: str
  job_id: str
  restart: str

  @classmethod
  def found(cls) -> _Place:
    from submitit import JobEnvironment

    environment = JobEnvironment()
    return cls(
      rank=environment.global_rank,
      world_size=environment.num_tasks,
      local_rank=environment.local_rank,
      # srun was started on the first node, whose name need not mean anything to others.
      address=os.environ.get('SLURM_LAUNCH_NODE_IPADDR') or environment.hostnames[0],
      job_id=environment.job_id,
      restart=os.environ.get('SLURM_RESTART_COUNT', ''),
    )

  def meeting_point(self, job: int) -> str:
    """Gives the address at which the processes of a trial meet, which each works out by itself."""
    first, number = _PORTS
    seed = f'{self.job_id} {self.restart} {job}'.encode()
    return f'{self.address}:{first + zlib.crc32(seed) % number}'


def run(task: Task) -> None:
  """Runs the jobs of a task that have not ended yet."""
  registry.pin_own_packages()
  _Running(task, _Place.found()).run()


class _Running:
  """A task that runs, in one of its processes. The first one keeps the journal."""

  def __init__(self, task: Task, place: _Place):
    self._jobs = task.jobs
    self._place = place
    self._path = Path(task.journal)
    self._before = slurm_files.read_journal(self._path)
    self._writer = JournalWriter(self._path) if place.rank == 0 else None
    self._left = [index for index in range(len(task.jobs)) if self._before.ending(index) is None]
    self._index = 0
    self._has_rows = False
    self._has_advanced = False

  def run(self) -> None:
    try:
      with _stopped_by_slurm():
        for index in self._left:
          self._index = index
          outcome = _finished_before(self._jobs[index].job)
          if outcome is None:
            [outcome] = pool.run([self._placed(index)], slots=[Slot()], on_event=self._take)
          if self._place.world_size > 1 and outcome.status != 'finished':
            self._fail(outcome)
          self._ended(outcome)
    except KeyboardInterrupt:
      self._stop()

  def _placed(self, index: int) -> pool.Job:
    """Makes the job as this process runs it, from where it stands."""
    job = self._jobs[index].job
    if not isinstance(job, PooledTrial):
      return job
    config = job.config
    if self._before.has('replaced', index):
      config = dataclasses.replace(config, resume=True, overwrite=False)
    if self._place.world_size > 1:
      if self._place.world_size != config.devices.world_size:
        raise errors.UserError(
          f'A trial of {config.devices.world_size} processes needs as many tasks of srun; SLURM '
          f'has started {self._place.world_size}.'
        )
      devices = dataclasses.replace(
        config.devices,
        rank=self._place.rank,
        local_rank=self._place.local_rank,
        address=self._place.meeting_point(index),
      )
      config = dataclasses.replace(config, devices=devices)
    return PooledTrial(config=config)

  def _note(self, entry: Entry) -> None:
    if self._writer is not None:
      self._writer.add(entry)

  def _take(self, event: Event) -> None:
    if event.kind == 'started':
      self._has_rows = False
      self._note(Entry(event='started', job=self._index))
    elif isinstance(event.message, messages.Row) and event.message.global_step > 0:
      had_rows, self._has_rows, self._has_advanced = self._has_rows, True, True
      if not had_rows:
        self._note(Entry(event='replaced', job=self._index))

  def _ended(self, outcome: Outcome) -> None:
    self._note(Entry(event='ended', job=self._index, ending=Ending.of(outcome)))
    self._has_advanced = True

  def _stop(self) -> NoReturn:
    """Ends the process, as SLURM wants; another process of the trial may be the reason."""
    failure = self._failure_of_others(wait_sec=0.0)
    if failure is not None:
      self._fail(failure)
    self._note(Entry(event='stopped', job=self._index, has_advanced=self._has_advanced))
    idle = slurm_files.read_journal(self._path).num_idle_stops
    is_first = self._place.rank == 0  # which decides for all, as srun returns the highest code
    sys.exit(EXIT_CONTINUE if is_first and idle < MAX_IDLE_STOPS else _EXIT_FAILED)

  # Several processes.

  def _fail(self, outcome: Outcome) -> NoReturn:
    """Ends all processes of the task, as one of the trial has failed; the other jobs go on later.

    The exit code makes srun end the processes on all nodes.
    """
    if self._place.rank != 0:
      slurm_files.write_failure(self._path, self._place.restart, self._place.rank, outcome)
      sys.exit(_EXIT_FAILED)
    self._ended(self._failure_of_others(wait_sec=_WORD_SEC) or outcome)
    is_last = self._index == self._left[-1]
    sys.exit(_EXIT_FAILED if is_last else EXIT_CONTINUE)

  def _failure_of_others(self, wait_sec: float) -> Outcome | None:
    """Finds why another process has failed, and makes it the reason in the trial's record."""
    if self._place.rank != 0 or self._place.world_size == 1:
      return None
    ranks = range(1, self._place.world_size)
    end = time.monotonic() + wait_sec
    found = slurm_files.read_failure(self._path, self._place.restart, ranks)
    while found is None and time.monotonic() < end:
      time.sleep(0.1)
      found = slurm_files.read_failure(self._path, self._place.restart, ranks)
    if found is not None:
      _rewrite(found)
    return found


def _finished_before(job: pool.Job) -> Outcome | None:
  """The outcome of a trial that another job has finished since this one was submitted."""
  if not (isinstance(job, PooledTrial) and job.config.resume):
    return None
  record = trial_record.read_trial(job.config.path)
  if record is None or record.status != 'finished':
    return None
  return outcomes.recorded(job.config.path, record)


def _rewrite(outcome: Outcome) -> None:
  record = trial_record.read_trial(outcome.folder)
  if record is not None:
    dataclasses.replace(
      record,
      status=outcome.status,
      stop_reason=outcome.stop_reason or None,
      reason=outcome.reason,
    ).write(outcome.folder)


@contextlib.contextmanager
def _stopped_by_slurm() -> Iterator[None]:
  """In the block, the first signal to stop is an interrupt; those after it change nothing."""

  def interrupt(number: int, frame: FrameType | None) -> None:
    for one in _STOP_SIGNALS:
      signal.signal(one, signal.SIG_IGN)
    raise KeyboardInterrupt

  for number in _STOP_SIGNALS:
    signal.signal(number, interrupt)
  yield
