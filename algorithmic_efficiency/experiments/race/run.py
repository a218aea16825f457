"""Runs a race: starts missing trials, continues those that were cut off, skips finished ones."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from algorithmic_efficiency import errors
from algorithmic_efficiency.experiments.race import state, step_cost
from algorithmic_efficiency.experiments.race.race import Race, expand, with_baselines
from algorithmic_efficiency.experiments.race.state import TrialState
from algorithmic_efficiency.experiments.race.time_limit import TIMING_SEC, time_limits
from algorithmic_efficiency.launch import pool, request, trial_folder
from algorithmic_efficiency.launch.display import Display
from algorithmic_efficiency.launch.local import OnMessage
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.launch.pool import Event
from algorithmic_efficiency.launch.slots import Slot
from algorithmic_efficiency.launch.tally import Tally, Timing
from algorithmic_efficiency.launchers.launcher import RaceJob
from algorithmic_efficiency.results import files, race_files
from algorithmic_efficiency.results.race_files import Selection
from algorithmic_efficiency.results.trial_record import Status, TrialRecord
from algorithmic_efficiency.trial.config import TrialConfig


@dataclass(frozen=True, kw_only=True)
class RaceResult:
  """The outcome of a race.

  Attributes:
    configs, outcomes: all trials that have ended, and how, in the same order.
    num_left_failed: number of trials that were failed or invalid before, and were not run again.
    problems: messages about step costs that could not be measured.
    num_left_running: number of trials that were left running or waiting in a queue.
  """

  configs: tuple[TrialConfig, ...]
  outcomes: tuple[Outcome, ...]
  num_left_failed: int
  problems: tuple[str, ...]
  num_left_running: int = 0


@dataclass(frozen=True, kw_only=True)
class _StepCosts:
  """Times the steps of all submissions of a study against the baseline's, as a job.

  Attributes:
    to_run: submissions with trials that are due.
  """

  configs: Sequence[TrialConfig]
  runs: Path
  anew: bool
  to_run: frozenset[str]

  def __call__(self, slot: Slot, tell: OnMessage, canceled: threading.Event) -> Outcome:
    try:
      problems = step_cost.measure(
        self.configs, self.runs, slot, canceled, anew=self.anew, to_run=self.to_run
      )
    except errors.UserError as error:
      problems = [str(error)]
    status: Status = 'failed' if problems else 'finished'
    return Outcome(folder=self.runs, status=status, stop_reason='', reason='\n'.join(problems))


def run(
  race: Race,
  *,
  retry_failed: bool = False,
  quiet: bool = False,
  on_end: Callable[[Tally], None] = lambda tally: None,
) -> RaceResult:
  """Runs the trials of a race that are due. One that fails does not stop the others.

  Args:
    retry_failed: if true, failed and invalid trials are run again.
    quiet: if true, failures alone are shown.
    on_end: called whenever a job has ended.

  Raises:
    UserError: something in the race is wrong or missing, and nothing was started.
    KeyboardInterrupt: the race was interrupted; the records of the running trials say so.
  """
  request.check_data(expand(race))  # a mistake leaves nothing behind
  with _locked(race.folder):
    configs = expand(race)  # another process may have raced here until now
    launcher = race.launcher
    running = launcher.left_running(race.folder)
    if running and race.overwrite:
      raise errors.UserError(
        f'{len(running)} jobs of {race.folder} are still in the queue, and --overwrite would run '
        'into them. Leave it out to pick them up, or cancel them first.'
      )
    states = state.begun_anew(configs) if race.overwrite else state.scan(configs)
    _check_idle([found for found in states if _name(race, found) not in running])
    _remember(race, configs[0].suite)
    jobs, trials = _jobs(race, states, retry_failed, running)
    tally = Tally(
      configs,
      trials,
      earlier=_earlier(states, trials),
      num_slots=launcher.num_parallel(len(jobs)),
      hears=race.slurm is None,
    )
    with Display(tally, quiet=quiet) as display:

      def take(event: Event) -> None:
        display.take(event)
        if event.kind == 'ended':
          on_end(tally)

      ended = launcher.run(jobs, race.folder, on_event=take, tell=display.say)
  measured = [
    outcome
    for outcome, trial in zip(ended, trials, strict=True)
    if outcome is not None and not isinstance(trial, int)
  ]
  outcomes = tally.outcomes()
  return RaceResult(
    configs=tuple(configs[index] for index in outcomes),
    outcomes=tuple(outcomes.values()),
    num_left_running=len(configs) - len(outcomes),
    num_left_failed=0 if retry_failed else sum(one.kind in ('failed', 'invalid') for one in states),
    problems=tuple(dict.fromkeys(outcome.reason for outcome in measured if outcome.reason)),
  )


def _earlier(states: Sequence[TrialState], jobs: Sequence[int | Timing]) -> dict[int, TrialRecord]:
  """The records of the trials that are not run, by their index."""
  todo = set(jobs)
  return {
    index: found.record
    for index, found in enumerate(states)
    if index not in todo and found.record is not None
  }


def _remember(race: Race, suite: str) -> None:
  """Writes down what is raced here, with the workloads of the races before this one."""
  selection = Selection(suite=suite, workloads=race.workloads, plain_steps=race.plain_steps)
  race_files.write_selection(
    race.folder, selection.extended(race_files.read_selection(race.folder))
  )


def _jobs(
  race: Race, states: Sequence[TrialState], retry_failed: bool, running: Collection[str]
) -> tuple[list[RaceJob], list[int | Timing]]:
  """Makes the jobs in order, and for each job the index of its trial among the states.

  A job that measures step costs has what it times instead.
  """
  jobs: list[RaceJob] = []
  limits = time_limits(race.folder)
  trials: list[int | Timing] = []
  groups = with_baselines(race, _by_study(states)) if race.is_weighed else {}
  due: dict[tuple[int, str, str], set[str]] = {}  # submissions with trials to run, by study
  for found in states:
    if found.is_to_run(retry_failed=retry_failed):
      due.setdefault(_study_of(found), set()).add(found.config.submission)
  for index, found in enumerate(states):
    group = groups.pop(_study_of(found), None)  # timed before the first trial of its study
    if group is not None:
      jobs.append(_timing(race, group, frozenset(due.get(_study_of(found), ()))))
      study, workload, framework = _study_of(found)
      trials.append(Timing(workload, framework, study))
    name = _name(race, found)
    if found.is_to_run(retry_failed=retry_failed) or name in running:
      jobs.append(
        RaceJob(
          name=name,
          job=pool.PooledTrial(config=found.config_to_run),
          framework=found.config.framework,
          at_most_sec=limits.of_trial(found.config),
        )
      )
      trials.append(index)
  return jobs, trials


def _name(race: Race, found: TrialState) -> str:
  return str(found.config.path.relative_to(race.folder.resolve()))


def _timing(race: Race, group: Sequence[TrialConfig], to_run: frozenset[str]) -> RaceJob:
  one = group[0]
  submissions = ','.join(sorted({config.submission for config in group}))
  return RaceJob(
    name=f'steps of {submissions} on {one.workload} ({one.framework}), study {one.study}',
    job=_StepCosts(configs=group, runs=race.folder.resolve(), anew=race.overwrite, to_run=to_run),
    framework=one.framework,
    is_trial=False,
    at_most_sec=TIMING_SEC,
  )


def _study_of(found: TrialState) -> tuple[int, str, str]:
  return found.config.study, found.config.workload, found.config.framework


def _by_study(states: Sequence[TrialState]) -> dict[tuple[int, str, str], list[TrialConfig]]:
  grouped = itertools.groupby(sorted(states, key=_study_of), _study_of)
  return {key: [found.config for found in group] for key, group in grouped}


@contextlib.contextmanager
def _locked(runs: Path) -> Iterator[None]:
  """Keeps other races out of a folder of runs during the block."""
  files.make_folder(runs)
  try:
    lock = trial_folder.lock(
      runs, f'Another race is running in {runs}; wait for it or end it first.'
    )
  except OSError as error:
    raise files.storage_error(runs, error) from error
  with lock:
    yield


def _check_idle(states: Sequence[TrialState]) -> None:
  """Makes sure that no other process runs one of the trials, and recovers backups.

  Raises:
    UserError: another process is at work in the folder of a trial.
  """
  for parent in {found.config.path.parent for found in states}:
    trial_folder.recover(parent)
  for found in states:
    if found.config.path.is_dir() and found.kind in ('absent', 'unfinished'):
      with trial_folder.TrialFolder(found.config.path):
        pass
