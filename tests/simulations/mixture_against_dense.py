"""A mixture of experts against plain MLPs of as many active parameters, from real runs.

    python tests/simulations/mixture_against_dense.py FOLDER RECORD [--workload digits_moe]

RECORD is the calibration of the workload. Its best point runs with half, once and twice its
learning rate on the workload, on `_dense` and on `_no_balance`, with three paired seeds, for the
steps of the record. Each side is compared at its own best learning rate. The command goes on where
it was.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from algorithmic_efficiency import api
from algorithmic_efficiency.experiments.calibration.target_setting import Record
from algorithmic_efficiency.results import files

SEED = 16
FACTORS = (0.5, 1.0, 2.0)  # of the learning rate
NUM_STUDIES = 3
LOSS = 'validation/loss'
LOAD = 'validation/load_variation'


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('folder', type=Path, help='of the runs')
  parser.add_argument('record', type=Path, help='of the calibration, a .json file')
  parser.add_argument('--workload', default='digits_moe')
  given = parser.parse_args(argv)
  record = Record.read(given.record)
  race(given.folder, record, given.workload)
  trials = pd.DataFrame([_row(trial) for trial in api.trials(given.folder)])
  for line in lines(trials, given.workload):
    print(line)


def race(folder: Path, record: Record, workload: str) -> None:
  """Runs the trials that are missing; none of them stops at a target."""
  point = record.chosen.point
  points = [{**point, 'learning_rate': point['learning_rate'] * factor} for factor in FACTORS]
  files.make_folder(folder)
  file = folder / 'points.json'
  files.write_json_atomic(file, points)
  for variant in ('', '_dense', '_no_balance'):
    command = f'run --workload {workload}{variant} --framework {record.framework} --stop_at never'
    options = ['--submission', record.chosen.submission, '--tuning_search_space', str(file)]
    options += ['--trials', str(len(FACTORS)), '--studies', str(NUM_STUDIES)]
    options += ['--max_global_steps', str(record.protocol.step_budget), '--seed', str(SEED)]
    options += ['--experiment_dir', str(folder), '--allow_provisional', '--resume']
    options += ['--splits', 'validation', '--num_threads', '1']
    subprocess.run(
      [sys.executable, '-m', 'algorithmic_efficiency', *command.split(), *options],
      check=True,
      stdout=subprocess.DEVNULL,
    )


def _row(trial: api.Trial) -> Mapping[str, object]:
  evals = trial.rows().dropna(subset=[LOSS])
  last = evals.iloc[-1]
  return {
    'workload': trial.record.workload,
    'study': trial.record.study,
    'learning_rate': trial.record.hyperparameters['learning_rate'],
    'loss': last[LOSS],
    'load': last.get(LOAD, np.nan),
    'step_sec': last['accumulated_submission_time'] / last['global_step'],
  }


def lines(trials: pd.DataFrame, workload: str) -> Iterator[str]:
  """What a reader needs: loss of each side at its best learning rate, and their difference."""
  best = {
    name: _at_best_rate(trials[trials['workload'] == name])
    for name in (workload, f'{workload}_dense', f'{workload}_no_balance')
  }
  for name, own in best.items():
    losses = ', '.join(f'{loss:.4f}' for loss in own['loss'])
    load = '' if own['load'].isna().any() else f'; load variation {own["load"].mean():.3f}'
    yield (
      f'{name}: learning rate {own["learning_rate"].iloc[0]:.3g}; last loss {losses}; median step '
      f'{own["step_sec"].median():.3f} s{load}'
    )
  mixture, dense = best[workload], best[f'{workload}_dense']
  differences = mixture['loss'].to_numpy() - dense['loss'].to_numpy()
  mean, low, high = _interval(differences)
  yield f'Mixture less dense, paired: {mean:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}'
  ratio = (mixture['step_sec'].to_numpy() / dense['step_sec'].to_numpy()).mean()
  yield f'A step of the mixture over one of the dense model: {ratio:.2f}'


def _at_best_rate(trials: pd.DataFrame) -> pd.DataFrame:
  """The trials at the learning rate with the least mean loss, by study."""
  rate = trials.groupby('learning_rate')['loss'].agg(lambda losses: losses.mean(skipna=False))
  return trials[trials['learning_rate'] == rate.fillna(np.inf).idxmin()].sort_values('study')


def _interval(values: np.ndarray) -> tuple[float, float, float]:
  """Mean and 95 % interval of Student's t."""
  mean, error = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
  reach = stats.t.ppf(0.975, len(values) - 1) * error
  return mean, mean - reach, mean + reach


if __name__ == '__main__':
  main()
