"""Sets the target of a workload: runs the search and the rerun of the protocol as two races.

Both use a suite file beside the runs, in which the workload has the given step budget. No trial
stops at a target.
"""

from __future__ import annotations

import dataclasses
import fractions
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors, seeds
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Target
from algorithmic_efficiency.experiments.calibration import target_setting
from algorithmic_efficiency.experiments.calibration.target_setting import Record, Run
from algorithmic_efficiency.experiments.race import estimate as estimates
from algorithmic_efficiency.experiments.race import run as race_run
from algorithmic_efficiency.experiments.race import state
from algorithmic_efficiency.experiments.race.estimate import Bounds, Estimate
from algorithmic_efficiency.experiments.race.race import Race, RaceSubmission, expand
from algorithmic_efficiency.launch import request
from algorithmic_efficiency.results import files, measurements, trial_record
from algorithmic_efficiency.trial import submission
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.run_options import ALL_SPLITS, RunOptions

PROTOCOL: Mapping[str, Any] = {
  'smoke': False,
  'allow_provisional': True,
  'max_global_steps': None,
  'stop_at': 'never',
  'stop_on_divergence': None,  # the suite below has it
  'splits': ALL_SPLITS,
  'full_eval_every': 1,
}
"""The run options that a calibration sets itself."""

_SEARCH, _RERUN = 'search', 'rerun'  # folders; the latter is the name of the best point's runs, too
_SUITE = """\
# The runs by which the target of {workload} is set.
name = "{name}"
title = "Calibration of {workload} with {framework}"
axis = "cost_adjusted_steps"
hardware = "any machine"
stop_on_divergence = true

[rulesets.external]
studies = 1
trials = {trials}

[workloads.{workload}]
max_steps = {steps}
"""
_FACTS = (
  *('host_hash', 'cpu_model', 'num_usable_cpus', 'memory_bytes', 'gpu_driver', 'python'),
  *('versions', 'git_commit'),
)


@dataclass(frozen=True, kw_only=True)
class Calibration:
  """The flags of `algoeff calibrate`, as a record.

  Attributes:
    trials: number of points of each submission's search space.
    seeds: number of reruns of the best point.
    step_budget: steps of every run, which schedules span.
    budget_factor: budget of the benchmark as a multiple of `step_budget`.
    seed: seed of the search; None takes that of existing runs, or draws one.
    experiment_dir: folder in which the calibration makes its own.
  """

  workload: str
  submissions: tuple[str, ...]
  framework: str
  trials: int
  seeds: int
  step_budget: int
  budget_factor: fractions.Fraction = target_setting.BUDGET_FACTOR
  seed: int | None = None
  experiment_dir: str = 'runs'
  options: RunOptions = field(default_factory=RunOptions)
  devices: Devices = field(default_factory=Devices)
  workers: int | None = None
  flags: Mapping[str, Any] = field(default_factory=dict)

  @property
  def name(self) -> str:
    return f'{self.workload}_{self.framework}'

  @property
  def folder(self) -> Path:
    return Path(self.experiment_dir).expanduser() / f'calibrate_{self.name}'


def estimate(asked: Calibration, *, retry_failed: bool = False) -> Estimate | None:
  """Estimates the cost of the runs that a calibration still needs; None if it needs none.

  A rerun is estimated like the most expensive trial of the search.

  Raises:
    UserError: an option is invalid.
  """
  _check(asked)
  race = _search(asked)
  configs = expand(race)
  request.check_data(configs)
  left = any(found.is_to_run(retry_failed=retry_failed) for found in state.scan(configs))
  done = [record.status for record in state.records(asked.folder / _RERUN).values()]
  num_reruns = max(0, asked.seeds - done.count('finished'))
  if not left and not num_reruns:
    return None
  search = estimates.from_probes(race, estimates.BudgetLimits(), retry_failed=retry_failed)
  return _with_reruns(search, num_reruns)


def _with_reruns(search: Estimate, number: int) -> Estimate:
  dearest = max(search.trials, key=lambda one: one.at_most_sec)
  rerun = dataclasses.replace(dearest, submission=_RERUN, num_trials=number)
  one = Bounds(expected=rerun.expected_sec, at_most=rerun.at_most_sec)
  rounds = math.ceil(number / search.num_parallel)
  return dataclasses.replace(
    search,
    trials=(*search.trials, rerun),
    num_runs=search.num_runs + number,
    wall_sec=_sum(search.wall_sec, one.times(rounds)),
    device_hours=_sum(search.device_hours, one.times(number * search.num_devices / 3600)),
    disk_bytes=None,  # the search's alone would mislead
  )


def _sum(one: Bounds, other: Bounds) -> Bounds:
  return Bounds(expected=one.expected + other.expected, at_most=one.at_most + other.at_most)


def run(asked: Calibration, *, retry_failed: bool = False, quiet: bool = False) -> Record:
  """Runs the missing runs of a calibration and returns its record.

  Raises:
    UserError: an option is invalid, or a run that the protocol requires has failed.
  """
  _check(asked)
  definition = registry.workload(asked.workload)
  found = race_run.run(_search(asked), retry_failed=retry_failed, quiet=quiet)
  searched = _runs(found, definition.target)
  chosen = target_setting.best([run for run, _ in searched], definition.target.direction)
  rerun = _rerun(asked, chosen, found.configs)
  again = race_run.run(rerun, retry_failed=retry_failed, quiet=quiet)
  reran = _runs(again, definition.target)
  _check_reruns(again, [run for run, _ in reran], definition.target)
  return Record(
    workload=asked.workload,
    framework=asked.framework,
    submissions=asked.submissions,
    num_trials=asked.trials,
    num_seeds=asked.seeds,
    step_budget=asked.step_budget,
    budget_factor=str(asked.budget_factor),
    seed=found.configs[0].root_seed,
    present=definition.target,
    target=target_setting.target_of([run for run, _ in reran], definition.target),
    budget=target_setting.budget_of(asked.step_budget, asked.budget_factor),
    search=tuple(run for run, _ in searched),
    reruns=tuple(run for run, _ in reran),
    environment=_environments([environment for _, environment in reran]),
  )


def _check(asked: Calibration) -> None:
  registry.workload(asked.workload)
  for name, least in (('trials', 1), ('seeds', 2), ('step_budget', 2)):
    if getattr(asked, name) < least:
      raise errors.UserError(f'--{name} must be at least {least}; it is {getattr(asked, name)}.')
  request.check_num_trials(asked.trials)
  if asked.budget_factor < 1:
    raise errors.UserError(f'--budget_factor must be at least 1; it is {asked.budget_factor}.')
  for name in asked.submissions:
    submission.locate(name, 'external', asked.framework)


def _search(asked: Calibration) -> Race:
  return Race(
    entries=tuple(RaceSubmission(submission=name) for name in asked.submissions),
    studies=1,
    trials=asked.trials,
    seed=asked.seed,
    experiment_dir=str(asked.folder / _SEARCH),
    **_common(asked),
  )


def _rerun(asked: Calibration, chosen: Run, search: Sequence[TrialConfig]) -> Race:
  """Runs the best point with other seeds than the search, because the search selected it."""
  module = next(one.submission_path for one in search if one.submission == chosen.submission)
  file = asked.folder / 'best_point.json'
  files.write_json_atomic(file, [dict(chosen.point)])
  return Race(
    entries=(RaceSubmission(submission=module, name=_RERUN),),
    tuning_search_space=str(file),
    studies=asked.seeds,
    trials=1,
    seed=seeds.derive(search[0].root_seed, 'rerun'),
    experiment_dir=str(asked.folder / _RERUN),
    **_common(asked),
  )


def _common(asked: Calibration) -> dict[str, Any]:
  return {
    'suite': str(_suite(asked)),
    'frameworks': (asked.framework,),
    'workloads': (asked.workload,),
    'ruleset': 'external',
    'options': dataclasses.replace(asked.options, **PROTOCOL),
    'devices': asked.devices,
    'workers': asked.workers,
    'flags': asked.flags,
  }


def _suite(asked: Calibration) -> Path:
  """Writes the suite file unless there are runs of it; returns its path.

  Raises:
    UserError: existing runs have another number of steps or trials.
  """
  file = asked.folder / 'suite.toml'
  text = _SUITE.format(
    name=f'calibrate_{asked.name}',
    workload=asked.workload,
    framework=asked.framework,
    trials=asked.trials,
    steps=asked.step_budget,
  )
  if file.exists() and file.read_text() == text:
    return file
  if (asked.folder / _SEARCH).exists():
    raise errors.UserError(
      f'A calibration must continue with the options that it began with; {asked.folder} has '
      'another --step_budget or --trials (see suite.toml in it). Give those, or another '
      '--experiment_dir.'
    )
  files.make_folder(file.parent)
  with files.replacing(file) as out:
    out.write(text.encode())
  return file


def _runs(result: race_run.RaceResult, target: Target) -> list[tuple[Run, Mapping[str, Any]]]:
  """Returns the runs of a race with their environments; a failed trial has no best value."""
  return [_run(trial, target) for trial in result.configs]


def _run(trial: TrialConfig, target: Target) -> tuple[Run, Mapping[str, Any]]:
  record = trial_record.read_trial(trial.path)
  if record is None or record.status != 'finished':
    rows: Sequence[Mapping[str, float]] = ()
  else:
    rows = measurements.read(trial.path).evals
  validation, step = _best(rows, f'validation/{target.metric}', target.direction)
  test, _ = _best(rows, f'test/{target.metric}', target.direction)
  run = Run(
    submission=trial.submission,
    number=trial.study if trial.submission == _RERUN else trial.trial,
    point=trial.hyperparameters or {},
    stop_reason='' if record is None else record.stop_reason or record.status,
    best_validation=validation,
    best_test=test,
    best_step=step,
  )
  return run, {} if record is None else record.environment


def _best(
  rows: Sequence[Mapping[str, float]], column: str, direction: str
) -> tuple[float | None, int | None]:
  """Returns the best finite value of a column and the first step that reached it."""
  sign = -1.0 if direction == 'max' else 1.0
  finite = [row for row in rows if math.isfinite(row.get(column, math.nan))]
  if not finite:
    return None, None
  best = min(finite, key=lambda row: (sign * row[column], row['global_step']))
  return float(best[column]), int(best['global_step'])


def _check_reruns(result: race_run.RaceResult, runs: Sequence[Run], target: Target) -> None:
  """Checks that every rerun has a finite value of the target's metric."""
  for trial, run in zip(result.configs, runs, strict=True):
    if run.best_validation is None or (target.test is not None and run.best_test is None):
      raise errors.UserError(
        f'Every seed of the rerun counts; {trial.path} has no finite value of {target.metric} '
        f'({run.stop_reason}). Fix the cause, and run the command again with --retry_failed.'
      )


def _environments(found: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
  """Returns the part of each distinct environment on which figures depend, without paths."""
  distinct = {}
  for environment in found:
    facts = {name: environment.get(name) for name in _FACTS}
    devices = {
      name: value
      for name, value in environment.get('devices', {}).items()
      if name != 'compilation_cache'
    }
    distinct[json.dumps([facts, devices], sort_keys=True, default=str)] = {
      **facts,
      'devices': devices,
    }
  return tuple(distinct.values())
