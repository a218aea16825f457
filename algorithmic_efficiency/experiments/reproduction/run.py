"""Runs a published point and compares its metrics with the published logs.

The run is an ordinary trial with a seed of its own, evaluated at the steps of the logs' rows. Logs
of races in seconds have rows at different steps. The steps of the log with the most rows are used,
and the other logs are interpolated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency import backends, errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.experiments.reproduction import prediction_band, reference_logs
from algorithmic_efficiency.experiments.reproduction.prediction_band import (
  MIN_LOGS,
  Agreement,
  Band,
)
from algorithmic_efficiency.experiments.reproduction.reference_logs import Log, Logs
from algorithmic_efficiency.launch import request as requests
from algorithmic_efficiency.launch import session
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.results import measurements, schema
from algorithmic_efficiency.results.trial_record import POINT_FILE, Point
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.run_options import ALL_SPLITS, RunOptions

PROTOCOL: Mapping[str, Any] = {
  'smoke': False,
  'allow_provisional': True,
  'max_global_steps': None,
  'stop_at': 'never',
  'stop_on_divergence': False,
  'splits': ALL_SPLITS,
  'full_eval_every': 1,
}
"""The run options that a reproduction sets itself."""

_NUM_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class Reproduction:
  """The flags of `algoeff reproduce`, as a record.

  Attributes:
    against: a folder of logs.
    steps: number of steps to compare; None compares all steps of the logs.
    framework: framework of the run; None takes that of the logs.
    point: a file with the point to run, one of those of the logs; None takes theirs, if they have
      but one.
    suite: None takes that in which the logs say that they ran, else the only one of the workload.
    devices: how many ranks they have follows from the framework, or from `num_processes`.
    overwrite: whether the run starts anew where one is there; otherwise it goes on.
  """

  workload: str
  submission: str
  against: str
  steps: int | None = None
  framework: str | None = None
  point: str | None = None
  suite: str | None = None
  seed: int | None = None
  experiment_dir: str = 'runs'
  overwrite: bool = False
  options: RunOptions = field(default_factory=RunOptions)
  devices: Devices = field(default_factory=Devices)
  num_processes: int | None = None
  flags: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PreparedReproduction:
  """A reproduction before it runs: the trial, and the band in which it is expected."""

  config: TrialConfig
  bands: Mapping[str, Band]
  logs: tuple[Log, ...]
  left_out: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ReproductionReport:
  """The result of a reproduction.

  Attributes:
    logs: folders of the logs from which the band was made.
    left_out: logs of the workload that could not be used, with the reason.
    steps: steps to evaluate.
    last_step: last step of the run.
    not_compared: metrics of the logs that the run does not have.
  """

  workload: str
  framework: str
  submission: str
  suite: str
  point: Point | None
  logs: tuple[str, ...]
  left_out: tuple[str, ...]
  folder: str
  status: str
  reason: str
  steps: tuple[int, ...]
  last_step: int
  metrics: tuple[Agreement, ...]
  not_compared: tuple[str, ...]

  @property
  def is_reproduced(self) -> bool:
    """True if the run completed all steps and every metric is inside its band."""
    whole = self.status == 'finished' and self.last_step >= self.steps[-1]
    return whole and bool(self.metrics) and all(one.is_inside for one in self.metrics)


def run(prepared: PreparedReproduction, *, quiet: bool = False) -> ReproductionReport:
  """Runs the point, or resumes an existing run, and compares it with the logs.

  Raises:
    UserError: an option is invalid, or the logs cannot be used.
  """
  [outcome] = session.run_trials([prepared.config], quiet=quiet)
  return _report(prepared, outcome)


def prepare(asked: Reproduction) -> PreparedReproduction:
  """Reads the logs and prepares the trial.

  Raises:
    UserError: an option is invalid, or the logs cannot be used.
  """
  registry.workload(asked.workload)
  if asked.steps is not None and asked.steps <= 0:
    raise errors.UserError(f'--steps must be positive; it is {asked.steps}.')
  home = Path(asked.experiment_dir).expanduser() / f'reproduce_{asked.workload}'
  logs = reference_logs.find(Path(asked.against), asked.workload, asked.framework, apart=home)
  suite, of_suite = _suite(asked, logs)
  chosen = _of_point(asked, of_suite, logs)
  steps = _steps(chosen, asked.steps)
  bands = prediction_band.bands(chosen, steps)
  point = chosen[0].point
  world_size = backends.num_processes(
    logs.framework,
    platform=asked.devices.platform,
    num_devices=asked.devices.num_devices,
    num_processes=asked.num_processes,
  )
  request = requests.Request(
    workload=asked.workload,
    framework=logs.framework,
    submission=asked.submission,
    suite=suite,
    ruleset='external' if point is not None else 'self',
    point=point,
    seed=asked.seed,
    experiment_dir=str(home),
    resume=not asked.overwrite,
    overwrite=asked.overwrite,
    options=replace(asked.options, **PROTOCOL, eval_steps=tuple(map(int, steps))),
    devices=replace(asked.devices, world_size=world_size),
    flags=asked.flags,
  )
  [config] = requests.configs(request)
  return PreparedReproduction(
    config=config, bands=bands, logs=tuple(chosen), left_out=logs.left_out
  )


def _suite(asked: Reproduction, logs: Logs) -> tuple[str, list[Log]]:
  """The suite to run in, which gives the step hint, and the logs that may be of it: AlgoPerf's do
  not say of which they are."""
  said = sorted({log.suite for log in logs.found if log.suite is not None})
  if asked.suite is None and len(said) > 1:
    raise errors.UserError(
      f'A run is held against logs of one suite; those in {logs.root} ran in '
      f'{" and ".join(said)}. Choose with --suite.'
    )
  known = tuple(said) or tuple(registry.workload(asked.workload).suites)
  if asked.suite is None and len(known) > 1:
    raise errors.UserError(
      f'The logs in {logs.root} do not say in which suite they ran, and {asked.workload} is in '
      f'{", ".join(known)}, with step hints of their own. Choose with --suite.'
    )
  suite = asked.suite or next(iter(known))
  return suite, [log for log in logs.found if log.suite in (None, suite)]


def _of_point(asked: Reproduction, found: Sequence[Log], logs: Logs) -> list[Log]:
  """Returns the logs of the point to run."""
  groups = reference_logs.by_point(found)
  if asked.point is not None:
    point = _point(Path(asked.point).expanduser())
    groups = [group for group in groups if group[0].point == point]
    if not groups:
      raise errors.UserError(
        f'--point must be a point of the logs; no log in {logs.root} has that of {asked.point}.'
      )
  elif len(groups) > 1:
    named = [
      f'{group[0].folder / POINT_FILE} ({len(group)} log{"s" * (len(group) > 1)})'
      for group in groups[:_NUM_LISTED]
    ]
    more = f' and {len(groups) - _NUM_LISTED} more' if len(groups) > _NUM_LISTED else ''
    raise errors.UserError(
      f'One point is run; {logs.root} has logs of {len(groups)}. Choose with --point: '
      f'{", ".join(named)}{more}.'
    )
  chosen = groups[0] if groups else []
  if len(chosen) < MIN_LOGS:
    raise errors.UserError(
      f'A band needs {MIN_LOGS} logs of one point; {logs.root} has {len(chosen)}.'
      + ''.join(f' Left out: {why}.' for why in logs.left_out[:_NUM_LISTED])
    )
  return chosen


def _point(file: Path) -> Point:
  try:
    return schema.convert(schema.read_json(file), Point)  # type: ignore[type-abstract]
  except FileNotFoundError:
    raise errors.UserError(
      f'--point {file} could not be read: No such file or directory.'
    ) from None
  except schema.DamagedRecordError as error:
    raise errors.UserError(
      f'--point must be a JSON file with a point, such as the {POINT_FILE} of a log; {file} is '
      f'not ({error}).'
    ) from None


def _steps(logs: Sequence[Log], most: int | None) -> np.ndarray:
  """Returns the steps to evaluate: those of the log with the most rows that enough logs span."""
  candidates = [log.steps[_num_spanning(logs, log.steps) >= MIN_LOGS] for log in logs]
  spanned = max(candidates, key=len)
  if not len(spanned):
    raise errors.UserError(f'The logs of the point have no step that {MIN_LOGS} of them span.')
  steps = spanned if most is None else max((one[one <= most] for one in candidates), key=len)
  if not len(steps):
    raise errors.UserError(
      f'The logs have rows from step {spanned[0]} to step {spanned[-1]}; with --steps {most} there '
      'is none to compare at.'
    )
  return steps


def _num_spanning(logs: Sequence[Log], steps: np.ndarray) -> np.ndarray:
  return sum((log.steps[0] <= steps) & (steps <= log.steps[-1]) for log in logs)


def _report(prepared: PreparedReproduction, outcome: Outcome) -> ReproductionReport:
  config = prepared.config
  metrics: list[Agreement] = []
  last_step, not_compared = 0, []
  if outcome.status != 'invalid' and (outcome.folder / measurements.EVAL_FILE).exists():
    own = reference_logs.read(outcome.folder)
    metrics = prediction_band.agreements(own, prepared.bands)
    last_step = int(own.steps[-1])
    not_compared = [name for name in prepared.bands if name not in own.curves]
  return ReproductionReport(
    workload=config.workload,
    framework=config.framework,
    submission=config.submission,
    suite=config.suite,
    point=config.hyperparameters,
    logs=tuple(str(log.folder) for log in prepared.logs),
    left_out=prepared.left_out,
    folder=str(outcome.folder),
    status=outcome.status,
    reason=outcome.reason or outcome.stop_reason,
    steps=config.options.eval_steps,
    last_step=last_step,
    metrics=tuple(metrics),
    not_compared=tuple(not_compared),
  )
