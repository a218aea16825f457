"""Sets the target of a workload: runs the search and the rerun of the protocol as races.

They use a suite file beside the runs, in which the workload has the given step budget. No trial
of these stops at a target. A third race then times the target, with the step hint of the workload.

A calibration may start from an earlier record instead of search spaces:

- Of the same workload in another framework, the best point runs again with the same seeds. The
  target stays, and both frameworks must agree.
- Of another workload, such as the base of a variant, the best point is searched, and that point
  with half and twice its learning rate.
"""

from __future__ import annotations

import dataclasses
import fractions
import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors, seeds
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Budget, Target
from algorithmic_efficiency.experiments.calibration import robust, target_setting, timing
from algorithmic_efficiency.experiments.calibration.split_size import SplitSize
from algorithmic_efficiency.experiments.calibration.target_setting import Protocol, Record, Run
from algorithmic_efficiency.experiments.calibration.timing import Timing
from algorithmic_efficiency.experiments.race import estimate as estimates
from algorithmic_efficiency.experiments.race import run as race_run
from algorithmic_efficiency.experiments.race import state
from algorithmic_efficiency.experiments.race.estimate import Bounds, Estimate
from algorithmic_efficiency.experiments.race.race import Race, RaceSubmission, expand
from algorithmic_efficiency.launch import request
from algorithmic_efficiency.results import environment as environments
from algorithmic_efficiency.results import files, measurements, trial_record
from algorithmic_efficiency.trial import submission
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.run_options import RunOptions

PROTOCOL: Mapping[str, Any] = {
  'smoke': False,
  'allow_provisional': True,
  'max_global_steps': None,
  'stop_at': 'never',
  'stop_on_divergence': None,  # the suite below has it
  'splits': ('validation', 'test'),
  'full_eval_every': 1,
}
"""The run options that a calibration sets itself."""

_SEARCH, _RERUN, _TIMED = 'search', 'rerun', 'timed'  # folders; the names of reruns, too
_LEARNING_RATES = (0.5, 1.0, 2.0)  # of the points beside that of an earlier record
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
eval_period_steps = {period}
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
    eval_period_steps: steps between evaluations; None for 30 evaluations a run.
    budget_factor: budget of the benchmark as a multiple of `step_budget`.
    max_variation: largest accepted variation of the time to target.
    seed: seed of the search; None takes that of existing runs, or draws one.
    from_record: path of the record that the calibration starts from; '' for search spaces.
    earlier: that record.
    experiment_dir: folder in which the calibration makes its own.

  Raises:
    UserError: a number is out of range.
  """

  workload: str
  submissions: tuple[str, ...]
  framework: str
  trials: int
  seeds: int
  step_budget: int
  eval_period_steps: int | None = None
  budget_factor: fractions.Fraction = target_setting.BUDGET_FACTOR
  max_variation: float = 0.1
  seed: int | None = None
  from_record: str = ''
  earlier: Record | None = None
  experiment_dir: str = 'runs'
  options: RunOptions = field(default_factory=RunOptions)
  devices: Devices = field(default_factory=Devices)
  workers: int | None = None
  flags: Mapping[str, Any] = field(default_factory=dict)

  def __post_init__(self) -> None:
    for name, least in (('trials', 1), ('seeds', 2), ('step_budget', 2)):
      if getattr(self, name) < least:
        raise errors.UserError(f'--{name} must be at least {least}; it is {getattr(self, name)}.')
    request.check_num_trials(self.trials)
    if self.budget_factor < target_setting.HINT_FACTOR:
      raise errors.UserError(
        f'--budget_factor must be at least {target_setting.HINT_FACTOR}, the factor of the step '
        f'hint; it is {self.budget_factor}.'
      )
    if self.eval_period_steps is not None and not 1 <= self.eval_period_steps <= self.step_budget:
      raise errors.UserError(
        f'--eval_period_steps must be from 1 to --step_budget, {self.step_budget}; it is '
        f'{self.eval_period_steps}.'
      )

  @classmethod
  def from_earlier(cls, path: str, workload: str, framework: str, **more: Any) -> Calibration:
    """Returns the calibration of a workload that starts from the record in a file.

    Raises:
      UserError: the file is no such record, its target is not accepted, or it is of this workload
        in this framework.
    """
    record = Record.read(Path(path).expanduser())
    if record.faults:
      raise errors.UserError(
        f'--from_record must name a record whose target is accepted; that of {path} is not. '
        f'{record.faults[0]}'
      )
    if (record.workload, record.framework) == (workload, framework):
      raise errors.UserError(
        f'--from_record must be of another framework or another workload; {path} is of {workload} '
        f'with {framework}.'
      )
    protocol = record.protocol
    return cls(
      workload=workload,
      framework=framework,
      submissions=(record.chosen.submission,),
      trials=len(_LEARNING_RATES),
      seeds=protocol.num_seeds,
      step_budget=protocol.step_budget,
      eval_period_steps=protocol.eval_period_steps,
      budget_factor=fractions.Fraction(protocol.budget_factor),
      max_variation=protocol.max_variation,
      seed=protocol.seed,
      from_record=path,
      earlier=record,
      **more,
    )

  @property
  def name(self) -> str:
    return f'{self.workload}_{self.framework}'

  @property
  def folder(self) -> Path:
    return Path(self.experiment_dir).expanduser() / f'calibrate_{self.name}'

  @property
  def period(self) -> int:
    if self.eval_period_steps is not None:
      return self.eval_period_steps
    return max(1, self.step_budget // target_setting.EVALS_PER_RUN)

  @property
  def repeated(self) -> Record | None:
    """The record of another framework whose best point runs again, without a search."""
    same = self.earlier is not None and self.earlier.workload == self.workload
    return self.earlier if same else None

  @property
  def num_timed(self) -> int:
    return 2 * self.seeds

  def protocol(self, seed: int) -> Protocol:
    return Protocol(
      submissions=self.submissions,
      num_trials=self.trials,
      num_seeds=self.seeds,
      step_budget=self.step_budget,
      eval_period_steps=self.period,
      budget_factor=str(self.budget_factor),
      max_variation=self.max_variation,
      seed=seed,
    )


def estimate(asked: Calibration, *, retry_failed: bool = False) -> Estimate | None:
  """Estimates the cost of the runs that a calibration still needs; None if it needs none.

  Runs whose point is not known yet are estimated like the most expensive trial of the search. A
  timed run may take a third more steps, the step hint; it is expected to end before.

  Raises:
    UserError: an option is invalid.
  """
  _check(asked)
  first = _search(asked) if asked.repeated is None else _rerun(asked, _point_of(asked.repeated))
  configs = expand(first)
  request.check_data(configs)
  left = any(found.is_to_run(retry_failed=retry_failed) for found in state.scan(configs))
  later = {} if asked.repeated else {_RERUN: asked.seeds, _TIMED: asked.num_timed}
  numbers = {
    folder: max(0, number - _num_finished(asked.folder / folder))
    for folder, number in later.items()
  }
  if not left and not any(numbers.values()):
    return None
  found = estimates.from_probes(first, estimates.BudgetLimits(), retry_failed=retry_failed)
  for folder, number in numbers.items():
    found = _with_reruns(found, folder, number) if number else found
  return found


def _num_finished(folder: Path) -> int:
  return [record.status for record in state.records(folder).values()].count('finished')


def _with_reruns(before: Estimate, folder: str, number: int) -> Estimate:
  """Adds runs of the best point to the estimate of the search, and of those before."""
  dearest = max(before.trials, key=lambda one: one.at_most_sec)
  steps = float(target_setting.HINT_FACTOR) if folder == _TIMED else 1.0
  rerun = dataclasses.replace(
    dearest, submission=folder, num_trials=number, at_most_sec=steps * dearest.at_most_sec
  )
  one = Bounds(expected=rerun.expected_sec, at_most=rerun.at_most_sec)
  rounds = math.ceil(number / before.num_parallel)
  return dataclasses.replace(
    before,
    trials=(*before.trials, rerun),
    num_runs=before.num_runs + number,
    wall_sec=_sum(before.wall_sec, one.times(rounds)),
    device_hours=_sum(before.device_hours, one.times(number * before.num_devices / 3600)),
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
  workload = registry.workload(asked.workload)
  present = workload.target
  trials = functools.partial(_trials, target=present, retry_failed=retry_failed, quiet=quiet)
  if asked.repeated is not None:
    searched: list[_Trial] = []
    chosen, point = asked.repeated.chosen, _point_of(asked.repeated)
  else:
    searched = trials(_search(asked))
    chosen = target_setting.best([trial.run for trial in searched], present.direction)
    point = next(_Point.of(trial.config) for trial in searched if trial.run is chosen)
  reran = trials(_rerun(asked, point))
  _check_reruns(reran, present)
  reruns = [trial.run for trial in reran]
  protocol = asked.protocol(point.root_seed)
  if asked.repeated is not None:
    target = asked.repeated.target
    results: dict[str, Any] = {'agreement': _agreement(asked, reruns, asked.repeated)}
  else:
    target = target_setting.target_of(reruns, present)
    timed = trials(_timed(asked, point, protocol.budget, target))
    size = SplitSize.of_validation(workload, reran[0].config.data_dir)
    results = {'timing': _timing(protocol.budget, target, timed, reruns, size)}
  return Record(
    workload=asked.workload,
    framework=asked.framework,
    from_record=asked.from_record,
    protocol=protocol,
    present=present,
    target=target,
    chosen=chosen,
    search=tuple(trial.run for trial in searched),
    reruns=tuple(reruns),
    environment=_environments([trial.environment for trial in reran]),
    **results,
  )


def _check(asked: Calibration) -> None:
  registry.workload(asked.workload)
  for name in asked.submissions:
    submission.locate(name, 'external', asked.framework)


# The races.


@dataclass(frozen=True, kw_only=True)
class _Point:
  """A point of a submission, and the seed from which those of its runs follow."""

  submission: str
  hyperparameters: Mapping[str, Any]
  root_seed: int

  @classmethod
  def of(cls, config: TrialConfig) -> _Point:
    return cls(
      submission=config.submission_path,
      hyperparameters=config.hyperparameters or {},
      root_seed=config.root_seed,
    )


def _point_of(record: Record) -> _Point:
  chosen = record.chosen
  return _Point(
    submission=chosen.submission,
    hyperparameters=chosen.point,
    root_seed=record.protocol.seed,
  )


def _search(asked: Calibration) -> Race:
  space = None
  if asked.earlier is not None:
    points = _points_beside(asked.earlier.chosen)
    space = _write_points(asked.folder / 'points.json', points)
  return Race(
    entries=tuple(RaceSubmission(submission=name) for name in asked.submissions),
    tuning_search_space=space,
    studies=1,
    trials=asked.trials,
    seed=asked.seed,
    experiment_dir=str(asked.folder / _SEARCH),
    **_common(asked, _suite(asked), splits=('validation',)),
  )


def _points_beside(chosen: Run) -> list[Mapping[str, Any]]:
  """Returns the point, and the same point with other learning rates.

  Raises:
    UserError: the point has no learning rate.
  """
  if 'learning_rate' not in chosen.point:
    raise errors.UserError(
      'The points beside that of an earlier record differ in learning_rate; its best point, of '
      f'{chosen.submission}, has none. Search the spaces of --submissions instead.'
    )
  rate = chosen.point['learning_rate']
  return [{**chosen.point, 'learning_rate': rate * factor} for factor in _LEARNING_RATES]


def _rerun(asked: Calibration, point: _Point) -> Race:
  """Runs the best point with other seeds than the search, because the search selected it."""
  return Race(
    entries=(RaceSubmission(submission=point.submission, name=_RERUN),),
    tuning_search_space=_write_points(asked.folder / 'best_point.json', [point.hyperparameters]),
    studies=asked.seeds,
    trials=1,
    seed=seeds.derive(point.root_seed, _RERUN),
    experiment_dir=str(asked.folder / _RERUN),
    **_common(asked, _suite(asked)),
  )


def _timed(asked: Calibration, point: _Point, budget: Budget, target: Target) -> Race:
  """Runs the best point with the schedules of a race, until it reaches the target."""
  suite = _suite(asked, budget.step_hint, target)
  return Race(
    entries=(RaceSubmission(submission=point.submission, name=_TIMED),),
    tuning_search_space=_write_points(asked.folder / 'best_point.json', [point.hyperparameters]),
    studies=asked.num_timed,
    trials=1,
    seed=seeds.derive(point.root_seed, _TIMED),
    experiment_dir=str(asked.folder / _TIMED),
    **_common(asked, suite, stop_at='validation', splits=('validation',)),
  )


def _common(asked: Calibration, suite: Path, **options: Any) -> dict[str, Any]:
  workload = registry.workload(asked.workload)
  generated = () if workload.generation is None else workload.generation.metrics
  options = {'generate': workload.target.metric in generated, **options}
  return {
    'suite': str(suite),
    'frameworks': (asked.framework,),
    'workloads': (asked.workload,),
    'ruleset': 'external',
    'is_scored': False,
    'options': dataclasses.replace(asked.options, **{**PROTOCOL, **options}),
    'devices': asked.devices,
    'workers': asked.workers,
    'flags': asked.flags,
  }


def _write_points(file: Path, points: Sequence[Mapping[str, Any]]) -> str:
  files.make_folder(file.parent)
  files.write_json_atomic(file, [dict(point) for point in points])
  return str(file)


def _suite(asked: Calibration, steps: int | None = None, target: Target | None = None) -> Path:
  """Writes a suite file unless there are runs of it; returns its path.

  Args:
    steps: budget and step hint; None for the step budget of the calibration.
    target: target of the timed runs; None for that of the definition.

  Raises:
    UserError: existing runs have other options.
  """
  first = _SEARCH if asked.repeated is None else _RERUN
  file, folder = asked.folder / 'suite.toml', asked.folder / first
  text = _SUITE.format(
    name=f'{"calibrate" if target is None else "time"}_{asked.name}',
    workload=asked.workload,
    framework=asked.framework,
    trials=asked.trials,
    steps=asked.step_budget if steps is None else steps,
    period=asked.period,
  )
  if target is not None:
    file, folder = asked.folder / 'timed.toml', asked.folder / _TIMED
    text += f'\n[workloads.{asked.workload}.target]\nvalidation = {target.validation!r}\n'
  if file.exists() and file.read_text() == text:
    return file
  if folder.exists():
    raise errors.UserError(
      f'A calibration must continue with the options that it began with; {asked.folder} has '
      f'another --step_budget, --eval_period_steps or --trials (see {file.name} in it). Give '
      'those, or another --experiment_dir.'
    )
  files.make_folder(file.parent)
  with files.replacing(file) as out:
    out.write(text.encode())
  return file


# The results.


@dataclass(frozen=True, kw_only=True)
class _Trial:
  """A trial that has ended.

  Attributes:
    values: validation value of the target's metric, by step; finite ones only.
  """

  config: TrialConfig
  run: Run
  values: Mapping[int, float]
  environment: Mapping[str, Any]


def _trials(race: Race, *, target: Target, retry_failed: bool, quiet: bool) -> list[_Trial]:
  """Runs the missing trials of a race; a trial that failed has no values."""
  result = race_run.run(race, retry_failed=retry_failed, quiet=quiet)
  return [_trial(config, target) for config in result.configs]


def _trial(config: TrialConfig, target: Target) -> _Trial:
  record = trial_record.read_trial(config.path)
  if record is None or record.status != 'finished':
    rows: Sequence[Mapping[str, float]] = ()
  else:
    rows = measurements.read(config.path).evals
  values = _values(rows, f'validation/{target.metric}')
  validation, step = _best(values, target.direction)
  test, _ = _best(_values(rows, f'test/{target.metric}'), target.direction)
  run = Run(
    submission=config.submission,
    number=config.study if config.submission in (_RERUN, _TIMED) else config.trial,
    point=config.hyperparameters or {},
    stop_reason='' if record is None else record.stop_reason or record.status,
    best_validation=validation,
    best_test=test,
    best_step=step,
  )
  environment = {} if record is None else record.environment
  return _Trial(config=config, run=run, values=values, environment=environment)


def _values(rows: Sequence[Mapping[str, float]], column: str) -> dict[int, float]:
  """Returns the finite values of a column by step."""
  return {
    int(row['global_step']): float(row[column])
    for row in rows
    if math.isfinite(row.get(column, math.nan))
  }


def _best(values: Mapping[int, float], direction: str) -> tuple[float | None, int | None]:
  """Returns the best value, and the first step that reached it."""
  if not values:
    return None, None
  sign = -1.0 if direction == 'max' else 1.0
  step = min(values, key=lambda step: (sign * values[step], step))
  return values[step], step


def _check_reruns(trials: Sequence[_Trial], target: Target) -> None:
  """Checks that every rerun has a finite value of the target's metric."""
  for trial in trials:
    run = trial.run
    if run.best_validation is None or (target.test is not None and run.best_test is None):
      raise errors.UserError(
        f'Every seed of the rerun counts; {trial.config.path} has no finite value of '
        f'{target.metric} ({run.stop_reason}). Fix the cause, and run the command again with '
        '--retry_failed.'
      )


def _agreement(
  asked: Calibration, reruns: Sequence[Run], earlier: Record
) -> target_setting.FrameworkAgreement:
  return target_setting.FrameworkAgreement.of(
    (asked.framework, earlier.framework),
    target_setting.validation_values(reruns),
    target_setting.validation_values(earlier.reruns),
  )


def _timing(
  budget: Budget, target: Target, timed: Sequence[_Trial], reruns: Sequence[Run], size: SplitSize
) -> Timing:
  assert budget.eval_period_steps is not None
  return Timing(
    steps=tuple(
      next(
        (step for step, value in trial.values.items() if target.reached('validation', value)), None
      )
      for trial in timed
    ),
    step_hint=budget.step_hint,
    eval_period_steps=budget.eval_period_steps,
    resolution=timing.resolution(target.metric, target.validation, size),
    spread=robust.spread(target_setting.validation_values(reruns)),
    validation_size=size,
  )


def _environments(found: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
  """Returns the part of each distinct environment on which figures depend, without paths."""
  distinct = {}
  for facts in found:
    kept = {name: facts.get(name) for name in _FACTS}
    kept['devices'] = environments.without_folders(facts)['devices']
    distinct[json.dumps(kept, sort_keys=True, default=str)] = kept
  return tuple(distinct.values())
