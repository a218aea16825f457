"""Runs the jobs of a race on a cluster, as arrays of SLURM that submitit submits.

The order of the tasks is that of the jobs, so that submissions are interleaved as on one machine.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import secrets
import shlex
import signal
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from algorithmic_efficiency import backends, errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.launch import outcome as outcomes
from algorithmic_efficiency.launch import output
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.launch.pool import Event, OnEvent, PooledTrial
from algorithmic_efficiency.launchers import container, slurm_files, slurm_queue, slurm_task
from algorithmic_efficiency.launchers.launcher import RaceJob, Tell
from algorithmic_efficiency.launchers.slurm_files import Array, Journal
from algorithmic_efficiency.launchers.slurm_options import SlurmOptions
from algorithmic_efficiency.launchers.slurm_queue import QueuedTask, RefusedError
from algorithmic_efficiency.results import trial_record

_SIGNAL_SEC = 90  # before the time limit
_SIGNAL_SHARE = 4  # at most this part of a short limit
_MIN_POLL_SEC = 1.0
_MAX_POLL_SEC = 15.0
_POLL_GROWTH = 1.3
_CANCEL_SEC = 60.0  # for canceled tasks to end
_FILES_SEC = 20.0  # for the journal of a task that has ended to be seen on another host

_Key = tuple[str, int]  # the name of an array, the index of a task

# Puts a task back into the queue that SLURM has stopped, but not one that somebody has canceled.
# The signal may have come before the task listened to it, but then not again and again.
_TEARDOWN = f"""
code=$?
if [ $code -eq {slurm_task.EXIT_CONTINUE} ] || {{
  [ $code -eq {128 + signal.SIGUSR2} ] &&
    [ "${{SLURM_RESTART_COUNT:-0}}" -lt {slurm_task.MAX_IDLE_STOPS} ]
}}; then
  scontrol show job "$SLURM_JOB_ID" --oneliner | grep -q 'JobState=RUNNING' &&
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
""".strip().splitlines()


@dataclass(frozen=True, kw_only=True)
class SlurmLauncher:
  """Submits the jobs, and watches them or leaves them running.

  Attributes:
    asked: the devices of one trial.
    num_workers: how many tasks run at a time; None lets SLURM decide.
  """

  options: SlurmOptions
  asked: Devices
  num_workers: int | None = None

  def devices(self, asked: Devices, framework: str) -> Devices:
    nodes, gpus = self.options.num_nodes, self.options.num_gpus or 0
    number = asked.num_devices or gpus * nodes or None
    world_size = backends.num_processes(
      framework, platform=asked.platform, num_devices=number or nodes, num_processes=None
    )
    if nodes > 1:
      world_size = max(world_size, nodes)
    if world_size % nodes or (number or nodes) % nodes:
      raise errors.UserError(
        f'The {number or world_size} devices of a trial must divide evenly among its {nodes} '
        'nodes; change --num_devices or --slurm_nodes.'
      )
    threads = asked.num_threads
    if threads is None and (self.options.num_cpus or not gpus):
      threads = max(1, (self.options.num_cpus or 1) * nodes // world_size)
    return replace(asked, world_size=world_size, num_threads=threads)

  def num_parallel(self, num_jobs: int) -> int:
    return max(1, min(num_jobs, self.num_workers or num_jobs))

  def left_running(self, folder: Path) -> frozenset[str]:
    slurm_queue.require()
    return frozenset(
      name for names in _alive(slurm_files.folder_of(folder)).values() for name in names
    )

  def run(
    self, jobs: Sequence[RaceJob], folder: Path, *, on_event: OnEvent, tell: Tell
  ) -> list[Outcome | None]:
    home = slurm_files.folder_of(folder)
    watch = _Watch(jobs, home, on_event=on_event, tell=tell)
    alive = _alive(home)
    for key, names in alive.items():
      watch.add(key, names)
    try:
      self._submit([one for one in jobs if not watch.has(one.name)], home, watch, tell)
      if self.options.detach and jobs:
        tell('The jobs are left running; the same command without --detach waits for them.')
        return [None] * len(jobs)
      return watch.run()
    except BaseException as error:
      goes_on = self.options.detach or isinstance(error, errors.UserError)
      watch.cancel(but_for=alive if goes_on else ())
      raise

  def _submit(self, jobs: Sequence[RaceJob], home: Path, watch: _Watch, tell: Tell) -> None:
    """Submits jobs, as one array if they need the same resources and it may be so long."""
    size = slurm_queue.max_array_size() if jobs else 1
    by_processes: dict[int, list[tuple[RaceJob, ...]]] = {}
    for task in _tasks(jobs, self.options.trials_per_job):
      by_processes.setdefault(self._num_processes(task), []).append(task)
    for num_processes, alike in by_processes.items():
      for begin in range(0, len(alike), size):
        tasks = alike[begin : begin + size]
        array = Array(
          name=f'algoeff-{secrets.token_hex(4)}',
          tasks=tuple(tuple(one.name for one in task) for task in tasks),
        )
        slurm_files.append_array(home, array)
        for index, names in enumerate(array.tasks):
          watch.add((array.name, index), names)
        self._submit_array(array.name, tasks, num_processes, home)
        tell(f'Submitted to SLURM as {array.name}: {len(tasks)} job(s). Their logs are in {home}')

  def _num_processes(self, task: Sequence[RaceJob]) -> int:
    """Gives the number of processes on a node that srun starts for a task."""
    nodes = self.options.num_nodes
    return 1 if nodes == 1 else self.devices(self.asked, task[0].framework).world_size // nodes

  def _submit_array(
    self, name: str, tasks: Sequence[tuple[RaceJob, ...]], num_processes: int, home: Path
  ) -> None:
    """
    Raises:
      RefusedError: SLURM does not take it.
    """
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    logging.getLogger('submitit').setLevel(logging.ERROR)
    executor = submitit.SlurmExecutor(folder=home, python=self._python(tasks, home))
    executor.update_parameters(**self._parameters(name, tasks, num_processes))
    described = [
      slurm_task.Task(jobs=task, journal=str(slurm_files.journal_file(home, name, index)))
      for index, task in enumerate(tasks)
    ]
    try:
      executor.map_array(slurm_task.run, described)
    except (FailedJobError, FailedSubmissionError) as error:
      raise RefusedError(
        f'SLURM refuses the jobs: {slurm_queue.in_words(str(error))}. Change the --slurm options, '
        'or wait until the queue has room; the same command goes on from here.'
      ) from None
    except OSError as error:
      raise errors.UserError(f'The jobs cannot be written to {home}: {error.strerror}.') from error

  def _parameters(
    self, name: str, tasks: Sequence[Sequence[RaceJob]], num_processes: int
  ) -> dict[str, Any]:
    """The resources of an array, as submitit takes them."""
    options = self.options
    minutes = options.time_min and options.time_min * max(map(len, tasks))
    minutes = minutes or _minutes(tasks)
    cpus = options.num_cpus
    if cpus is None and not options.num_gpus:
      world_size = self.devices(self.asked, tasks[0][0].framework).world_size
      cpus = (self.asked.num_threads or 1) * world_size // options.num_nodes
    per_task = cpus and max(1, cpus // num_processes)
    srun = ['--kill-on-bad-exit=1']
    if per_task:
      srun.append(f'--cpus-per-task={per_task}')  # srun does not take it from sbatch any more
    found: dict[str, Any] = {
      'job_name': name,
      'partition': options.partition,
      'account': options.account,
      'time': minutes,
      'nodes': options.num_nodes,
      'ntasks_per_node': num_processes,
      'cpus_per_task': per_task,
      'gpus_per_node': options.num_gpus,
      'array_parallelism': self.num_parallel(len(tasks)),
      'signal_delay_s': min(_SIGNAL_SEC, 60 * minutes // _SIGNAL_SHARE if minutes else _SIGNAL_SEC),
      'stderr_to_stdout': True,
      'setup': [] if options.container else [_search_path()],
      'teardown': _TEARDOWN,
      'srun_args': srun,
      'additional_parameters': {'requeue': True, **options.further},
    }
    return found

  def _python(self, tasks: Sequence[Sequence[RaceJob]], home: Path) -> str | None:
    """The command that starts Python on a node; None for that of this process."""
    image = self.options.container
    if image is None:
      return None
    configs = [one.job.config for task in tasks for one in task if isinstance(one.job, PooledTrial)]
    return container.python(
      image,
      has_gpus=bool(self.options.num_gpus),
      writable=(home.parent, *container.caches(configs)),
      read_only=container.inputs(configs),
    )


def _tasks(jobs: Sequence[RaceJob], trials_per_job: int) -> list[tuple[RaceJob, ...]]:
  """Puts trials together that follow each other; a timing of steps has a task for itself."""
  found: list[tuple[RaceJob, ...]] = []
  for is_trial, alike in itertools.groupby(jobs, lambda one: one.is_trial):
    size = trials_per_job if is_trial else 1
    several = list(alike)
    found += [tuple(several[at : at + size]) for at in range(0, len(several), size)]
  return found


def _minutes(tasks: Sequence[Sequence[RaceJob]]) -> int | None:
  """The time limit of an array, from those of its jobs; None if one is not known."""
  limits = [[one.at_most_sec for one in task] for task in tasks]
  known = [sum(sec for sec in one if sec is not None) for one in limits if None not in one]
  return math.ceil(max(known) / 60) if len(known) == len(limits) else None


def _search_path() -> str:
  parts = (str(registry.HOME), os.environ.get('PYTHONPATH', ''))
  return f'export PYTHONPATH={shlex.quote(os.pathsep.join(filter(None, parts)))}'


def _alive(home: Path) -> dict[_Key, tuple[str, ...]]:
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


class _Watch:
  """Watches the tasks of some jobs until all jobs have ended."""

  def __init__(self, jobs: Sequence[RaceJob], home: Path, *, on_event: OnEvent, tell: Tell):
    self._jobs = jobs
    self._home = home
    self._on_event = on_event
    self._tell = tell
    self._indexes = {one.name: index for index, one in enumerate(jobs)}
    self._tasks: dict[_Key, dict[int, int]] = {}  # the index of each job, by its place in the task
    self._names: set[str] = set()
    self._started: set[int] = set()
    self._outcomes: dict[int, Outcome] = {}
    self._over_since: dict[_Key, float] = {}
    self._held: Counter[str] = Counter()
    self._is_silent = False

  def add(self, key: _Key, names: Sequence[str]) -> None:
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

  def cancel(self, *, but_for: Collection[_Key]) -> None:
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

  def _left(self) -> list[_Key]:
    return [
      key
      for key, jobs in self._tasks.items()
      if any(index not in self._outcomes for index in jobs.values())
    ]

  def _states(self) -> Mapping[_Key, QueuedTask] | None:
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

  def _look(self, states: Mapping[_Key, QueuedTask]) -> bool:
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

  def _take(self, key: _Key, journal: Journal) -> None:
    for job, index in self._tasks[key].items():
      ending = journal.ending(job)
      if journal.has('started', job):
        self._start(index)
      if ending is not None and index not in self._outcomes:
        self._finish(index, ending)

  def _end(self, key: _Key, state: QueuedTask | None) -> None:
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

  def _cut_off(self, index: int, key: _Key, state: QueuedTask | None) -> Outcome:
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
