"""Writes small sets of runs in the layout of AlgoPerf, and in ours, for the tests of scoring."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.results import measurements
from algorithmic_efficiency.results.trial_record import TrialRecord

Row = tuple[int, float, float]  # step, seconds, metric on validation


def write_trial(
  root: Path,
  submission: str,
  workload: str,
  rows: Sequence[Row] | None,
  *,
  study: int = 1,
  trial: int = 1,
  framework: str = 'jax',
  hyperparameters: dict | None = None,
  record: dict[str, Any] | None = None,
) -> Path:
  """One trial folder; `rows` None writes no measurements, `record` is what our own trial.json says
  other than that the trial ran and stands here."""
  folder = root / submission / f'study_{study}' / f'{workload}_{framework}' / f'trial_{trial}'
  folder.mkdir(parents=True)
  metric = registry.workload(workload).target.metric
  if rows is not None:
    names = 'accumulated_eval_time,accumulated_logging_time,accumulated_submission_time,'
    names += f'global_step,score,test/{metric},train/{metric},validation/{metric}'
    lines = [names, *(f'1.0,0.5,{sec},{step},{sec},{v},{v},{v}' for step, sec, v in rows)]
    (folder / 'eval_measurements.csv').write_text('\n'.join(lines) + '\n')
  if hyperparameters is not None:
    (folder / 'hparams.json').write_text(json.dumps(hyperparameters))
  if record is not None:
    here = {
      'workload': workload,
      'framework': framework,
      'submission': submission,
      'study': study,
      'trial': trial,
      'suite': '',
      'ruleset': '',
      'status': 'failed',
    }
    (folder / 'trial.json').write_text(json.dumps(here | record))
  return folder


def write_recorded_trial(
  root: Path,
  submission: str,
  workload: str,
  rows: Sequence[Row],
  *,
  study: int = 1,
  entry: str = '',
  **facts: Any,
) -> Path:
  """One trial folder as our runner leaves it: log, tables and record, which `facts` changes."""
  folder = root / submission / f'study_{study}' / f'{workload}_jax' / 'trial_1'
  metric = registry.workload(workload).target.metric
  header = {'workload': workload, 'framework': 'jax', 'seed': 100 + study}
  log = measurements.RunLog.open(folder, header=header)
  for step, sec, value in rows:
    splits = {f'{split}/{metric}': value for split in ('train', 'validation', 'test')}
    times = {'score': sec, 'accumulated_submission_time': sec, 'accumulated_eval_time': 1.0}
    log.append_eval({**splits, **times, 'charged_steps': step}, step)
  log.append_end({'score': rows[-1][1]}, rows[-1][0])
  log.close()
  record = TrialRecord(
    workload=workload,
    framework='jax',
    submission=entry or submission,
    suite='algoperf_v06',
    ruleset='external',
    study=study,
    trial=1,
    status='finished',
    stop_reason='targets_reached',
    global_step=rows[-1][0],
    charged_steps=rows[-1][0],
    submission_time_sec=rows[-1][1],
    seeds={'seed': 1, 'study': study, 'trial': 100 + study},
  )
  dataclasses.replace(record, **facts).write(folder)
  return folder


def hit_at(workload: str, seconds: float, *, steps: int = 100) -> list[Row]:
  """Rows of a trial that reaches the target at its third evaluation."""
  target = registry.workload(workload).target
  miss = target.validation / 2 if target.direction == 'max' else 2 * target.validation
  return [
    (1, seconds / 100, miss),
    (steps // 2, seconds / 2, miss),
    (steps, seconds, target.validation),
  ]


def miss(workload: str, seconds: float = 50.0) -> list[Row]:
  """Rows of a trial that never reaches the target."""
  return [*hit_at(workload, seconds)[:2], (100, seconds, hit_at(workload, 1.0)[0][2])]


def write_times(
  root: Path, times: dict[str, dict[str, float | None]], studies: int = 1, trials: int = 1
) -> Path:
  """Runs whose time to target is the same in every study and trial; None is a miss."""
  for submission, by_workload in times.items():
    for workload, seconds in by_workload.items():
      rows = miss(workload) if seconds is None else hit_at(workload, seconds)
      for study in range(1, studies + 1):
        for trial in range(1, trials + 1):
          write_trial(root, submission, workload, rows, study=study, trial=trial)
  return root
