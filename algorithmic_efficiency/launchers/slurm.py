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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from algorithmic_efficiency import backends, errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.launch.pool import OnEvent, PooledTrial
from algorithmic_efficiency.launchers import container, slurm_files, slurm_queue, slurm_task
from algorithmic_efficiency.launchers.launcher import RaceJob, Tell
from algorithmic_efficiency.launchers.slurm_files import Array
from algorithmic_efficiency.launchers.slurm_options import SlurmOptions
from algorithmic_efficiency.launchers.slurm_queue import RefusedError
from algorithmic_efficiency.launchers.slurm_watch import Watch, alive_tasks

_SIGNAL_SEC = 90  # before the time limit
_SIGNAL_SHARE = 4  # at most this part of a short limit


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
      name for names in alive_tasks(slurm_files.folder_of(folder)).values() for name in names
    )

  def run(
    self, jobs: Sequence[RaceJob], folder: Path, *, on_event: OnEvent, tell: Tell
  ) -> list[Outcome | None]:
    home = slurm_files.folder_of(folder)
    watch = Watch(jobs, home, on_event=on_event, tell=tell)
    alive = alive_tasks(home)
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

  def _submit(self, jobs: Sequence[RaceJob], home: Path, watch: Watch, tell: Tell) -> None:
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
