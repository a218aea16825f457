"""Watches the jobs of SLURM that run for a folder of runs, until they have ended."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from algorithmic_efficiency.launch import outcome as outcomes
from algorithmic_efficiency.launch import output
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.launch.pool import Event, OnEvent, PooledTrial
from algorithmic_efficiency.launchers import slurm_files, slurm_queue
from algorithmic_efficiency.launchers.launcher import RaceJob, Tell
from algorithmic_efficiency.launchers.slurm_files import Journal
from algorithmic_efficiency.launchers.slurm_queue import QueuedTask, RefusedError
from algorithmic_efficiency.results import trial_record

_MIN_POLL_SEC = 1.0
_MAX_POLL_SEC = 15.0
_POLL_GROWTH = 1.3
_CANCEL_SEC = 60.0  # for canceled tasks to end
_FILES_SEC = 20.0  # for the journal of a task that has ended to be seen on another host
Key = tuple[str, int]  # the name of an array, the index of a task


def alive_tasks(home: Path) -> dict[Key, tuple[str, ...]]:
  """Finds the tasks that wait or run, with the names of their jobs that have not ended.

  Names of jobs that have ended are empty.
  """
  arrays = {one.name: one for one in slurm_files.read_arrays(home)}
  found = {}
  for (name, index), task in slurm_queue.tasks(arrays).items():
    if not task.is_over:
      journal = slurm_files.read_journal(slurm_files.journal_file(home, name, index))
      found[name, index] = tuple(
        '' if journal.ending(job) else one for job, one in enumerate(arrays[name].tasks[index])
      )
  return found


class Watch:
  """Watches the tasks of some jobs until all jobs have ended."""

  def __init__(self, jobs: Sequence[RaceJob], home: Path, *, on_event: OnEvent, tell: Tell):
    self._jobs = jobs
    self._home = home
    self._on_event = on_event
    self._tell = tell
    self._indexes = {one.name: index for index, one in enumerate(jobs)}
    self._tasks: dict[Key, dict[int, int]] = {}  # the index of each job, by its place in the task
    self._names: set[str] = set()
    self._started: set[int] = set()
    self._outcomes: dict[int, Outcome] = {}
    self._over_since: dict[Key, float] = {}
    self._held: Counter[str] = Counter()
    self._is_silent = False

  def add(self, key: Key, names: Sequence[str]) -> None:
    """Adds a task, by the names of its jobs. Others than ours are left alone."""
    ours = {job: self._indexes[name] for job, name in enumerate(names) if name in self._indexes}
    if ours:
      self._tasks[key] = ours
      self._names.update(names[job] for job in ours)

  def has(self, name: str) -> bool:
    return name in self._names

  def run(self) -> list[Outcome | None]:
    pause = _MIN_POLL_SEC
    while self._left():
      states = self._states()
      if states is not None and self._look(states):
        pause = _MIN_POLL_SEC
      if self._left():
        time.sleep(pause)
        pause = min(_MAX_POLL_SEC, pause * _POLL_GROWTH)
    return [self._outcomes[index] for index in range(len(self._jobs))]

  def cancel(self, *, but_for: Collection[Key]) -> None:
    """Cancels the tasks of jobs that have not ended, and waits some time for their end."""
    for key in but_for:
      self._tasks.pop(key, None)
    try:
      end = time.monotonic() + _CANCEL_SEC
      while left := self._in_queue():
        slurm_queue.cancel(left)
        time.sleep(_MIN_POLL_SEC)
        if time.monotonic() > end:
          self._tell(f'{len(left)} job(s) do not end; SLURM has been told to cancel them.')
          return
    except RefusedError as error:
      names = ','.join(sorted({name for name, _ in self._left()}))
      self._tell(f'The jobs could not be canceled: {error} Then run: scancel --name={names}')

  def _in_queue(self) -> list[str]:
    left = self._left()
    found = slurm_queue.tasks({name for name, _ in left})
    return [found[key].job_id for key in left if key in found and not found[key].is_over]

  def _left(self) -> list[Key]:
    return [
      key
      for key, jobs in self._tasks.items()
      if any(index not in self._outcomes for index in jobs.values())
    ]

  def _states(self) -> Mapping[Key, QueuedTask] | None:
    """Asks SLURM; None if it does not answer, which passes by itself."""
    try:
      found = slurm_queue.tasks({name for name, _ in self._left()})
    except RefusedError as error:
      if not self._is_silent:
        self._tell(f'{error} The jobs go on meanwhile, and SLURM is asked again.')
      self._is_silent = True
      return None
    self._is_silent = False
    self._tell_of_held(found.values())
    return found

  def _tell_of_held(self, tasks: Iterable[QueuedTask]) -> None:
    held = Counter(one.reason for one in tasks if one.is_held)
    if held != self._held and held:
      words = ', '.join(f'{number} for {reason}' for reason, number in sorted(held.items()))
      self._tell(f'Jobs that wait: {words}. `squeue` and the administrators know more.')
    self._held = held

  def _look(self, states: Mapping[Key, QueuedTask]) -> bool:
    """Takes what has changed; tells whether anything has."""
    before = len(self._started), len(self._outcomes)
    for key in self._left():
      state = states.get(key)
      if state is not None and state.state == 'PENDING':
        continue
      journal = slurm_files.read_journal(slurm_files.journal_file(self._home, *key))
      self._take(key, journal)
      if state is None or state.is_over:
        self._end(key, state)
      else:
        self._over_since.pop(key, None)
    return before != (len(self._started), len(self._outcomes))

  def _take(self, key: Key, journal: Journal) -> None:
    for job, index in self._tasks[key].items():
      ending = journal.ending(job)
      if journal.has('started', job):
        self._start(index)
      if ending is not None and index not in self._outcomes:
        self._finish(index, ending)

  def _end(self, key: Key, state: QueuedTask | None) -> None:
    """Ends the jobs of a task that runs no more.

    A task that has completed may have a journal that is not seen here yet.
    """
    since = self._over_since.setdefault(key, time.monotonic())
    is_complete = state is None or state.state == 'COMPLETED'
    if is_complete and time.monotonic() - since < _FILES_SEC:
      return
    for index in self._tasks[key].values():
      if index not in self._outcomes:
        self._finish(index, self._cut_off(index, key, state))

  def _cut_off(self, index: int, key: Key, state: QueuedTask | None) -> Outcome:
    """The outcome of a job that its task has left without one."""
    job = self._jobs[index].job
    folder = job.config.path if isinstance(job, PooledTrial) else self._home.parent
    record = trial_record.read_trial(folder) if isinstance(job, PooledTrial) else None
    if record is not None and record.status != 'running' and index in self._started:
      return outcomes.recorded(folder, record)
    called = f'Job {state.job_id} of SLURM' if state else f'The job {key[0]} of SLURM'
    how = f' ({state.state})' if state else ''
    log = self._log(state)
    last = output.last_line_of(log) if log else ''
    where = f' Its log {log} ends with: {last}' if last else ''
    return Outcome(
      folder=folder,
      status='failed',
      stop_reason='interrupted' if isinstance(job, PooledTrial) else '',
      reason=f'{called} has ended{how} before this was done; the same command continues it.{where}',
    )

  def _log(self, state: QueuedTask | None) -> Path | None:
    return self._home / f'{state.job_id}_0_log.out' if state else None

  def _start(self, index: int) -> None:
    if index not in self._started:
      self._started.add(index)
      self._on_event(Event(index=index, kind='started'))

  def _finish(self, index: int, outcome: Outcome) -> None:
    self._start(index)
    self._outcomes[index] = outcome
    self._on_event(Event(index=index, kind='ended', outcome=outcome))
