"""Writes the runs of an entry that trained nothing, with the times, rows and seeds of a race."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency import seeds
from algorithmic_efficiency.benchmark import registry, search_space
from algorithmic_efficiency.benchmark.definition import Target
from algorithmic_efficiency.clock import BUCKETS
from algorithmic_efficiency.results import files, measurements
from algorithmic_efficiency.results.measurements import RunLog
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial import submission
from algorithmic_efficiency.trial.config import budget_of
from algorithmic_efficiency.trial.run_options import RunOptions
from scoring.rules import resolve

SUITE = str(Path(__file__).with_name('small_suite.toml'))
RULESET, NAME = 'external', 'my_adamw'
ROOT_SEED = 7
SECONDS = {
  'setup': 2.0,
  'init_optimizer': 0.1,
  'data': 0.02,
  'update': 0.3,
  'prepare_for_eval': 0.0,
  'eval': 0.5,
  'log': 0.01,
  'checkpoint': 0.04,
}
"""What the start takes, and what each step (data, update) and evaluation takes of a bucket."""

ENVIRONMENT = {
  'host_hash': 'a' * 16,
  'machine_hash': 'b' * 16,
  'devices': {'platform': 'cpu', 'num_devices': 1, 'world_size': 1, 'num_threads': 1},
}


def write_code(folder: Path) -> Path:
  """A submission as an entrant has it."""
  shutil.copytree(registry.HOME / 'submissions' / f'{RULESET}_tuning' / 'adamw', folder)
  shutil.rmtree(folder / '__pycache__', ignore_errors=True)
  return folder


def write_race(runs: Path, code: Path) -> Path:
  """All trials of the suite; those with an even number reach their target in the sixth row."""
  rules = resolve(SUITE, ruleset=RULESET)
  space = search_space.load(code / 'tuning_search_space.json')
  for workload in rules.members:
    for study in range(1, rules.tuning.num_studies + 1):
      study_seed = seeds.derive(ROOT_SEED, 'study', study)
      points = search_space.points(
        space, rules.tuning.num_trials, seeds.derive(study_seed, 'points')
      )
      for trial, point in enumerate(points, 1):
        folder = runs / NAME / f'study_{study}' / f'{workload}_jax' / f'trial_{trial}'
        write_trial(folder, code, workload, study, trial, point)
  return runs


def write_trial(
  folder: Path, code: Path, workload: str, study: int, trial: int, point: Mapping[str, Any]
) -> None:
  """One trial through the log and the record of a real one, with a clock that is made up."""
  suite = registry.suite(SUITE)
  definition = registry.workload(workload, suite.name)
  budget = budget_of(definition, suite, RULESET)
  study_seed = seeds.derive(ROOT_SEED, 'study', study)
  trial_seed = seeds.derive(study_seed, 'trial', trial)
  header = {'workload': workload, 'framework': 'jax', 'seed': trial_seed}
  log = RunLog.open(folder, header=header)
  buckets = dict.fromkeys(BUCKETS, 0.0) | {one: SECONDS[one] for one in ('setup', 'init_optimizer')}
  reaches = trial % 2 == 0
  step, number = 0, 0
  random = seeds.generator(trial_seed, 'rows')
  for number, due in enumerate(_due(budget.eval_period_steps, budget.max_steps)):
    for bucket in ('data', 'update'):
      buckets[bucket] += SECONDS[bucket] * (due - step)
    buckets['eval'] += SECONDS['eval']
    step, is_last = due, reaches and number == 5
    log.append_eval(_row(definition.target, buckets, step, is_last, random), step)
    for bucket in ('log', 'checkpoint'):
      buckets[bucket] += SECONDS[bucket]
    if is_last:
      break
  submission_sec = buckets['data'] + buckets['update']
  log.append_end({'score': submission_sec}, step)
  log.close()
  files.write_json_atomic(folder / 'hparams.json', dict(point))
  files.write_json_atomic(folder / 'flags_0.json', {'suite': suite.name})
  (folder / '.lock').touch()
  (folder / 'checkpoint_1').write_bytes(b'weights')
  TrialRecord(
    workload=workload,
    framework='jax',
    submission=NAME,
    suite=suite.name,
    suite_file=SUITE,
    ruleset=RULESET,
    study=study,
    trial=trial,
    status='finished',
    stop_reason='targets_reached' if reaches else 'budget_spent',
    hyperparameters=point,
    options=RunOptions(stop_on_divergence=True).recorded(),
    batch_size=definition.batch_sizes.train,
    global_step=step,
    charged_steps=step,
    submission_time_sec=submission_sec,
    step_time_sec=SECONDS['data'] + SECONDS['update'],
    wall_sec=sum(buckets.values()),
    parent_wall_sec=sum(buckets.values()) + 0.1,
    seeds={'seed': ROOT_SEED, 'study': study_seed, 'trial': trial_seed},
    buckets=buckets,
    definition_hash=definition.content_hash(),
    suite_hash=suite.rules_hash(RULESET),
    submission_hash=submission.source_hash(code / 'submission_jax.py'),
    environment=ENVIRONMENT,
  ).write(folder)


def _due(period: int, most: int) -> Iterator[int]:
  """The steps after which a trial is evaluated, one batch a step."""
  yield 1
  yield from range(period, most, period)
  yield most


def at_target(target: Target) -> dict[str, float]:
  """Metrics that reach a target."""
  values = {'validation': target.validation, 'test': target.test}
  return {f'{split}/{target.metric}': v for split, v in values.items() if v is not None}


def _row(
  target: Target,
  buckets: Mapping[str, float],
  step: int,
  is_hit: bool,
  random: np.random.Generator,
) -> dict[str, float]:
  sign = 1.0 if target.direction == 'max' else -1.0
  distance = 0.0 if is_hit else sign * (0.1 + 0.1 * random.random())
  submission_sec = buckets['data'] + buckets['update']
  return {
    **{f'{split}/loss': 1.0 + random.random() for split in ('validation', 'test')},
    **{name: value * (1 - distance) for name, value in at_target(target).items()},
    'score': submission_sec,
    'total_duration': sum(buckets.values()),
    'accumulated_submission_time': submission_sec,
    'accumulated_eval_time': buckets['eval'],
    'accumulated_logging_time': buckets['log'] + buckets['checkpoint'],
    'charged_steps': step,
  }


def without_records(runs: Path) -> Path:
  """Leaves what AlgoPerf leaves of each trial."""
  for folder in runs.glob('*/*/*/*'):
    for name in ('trial.json', measurements.LOG_FILE, 'flags_0.json'):
      (folder / name).unlink()
  return runs
