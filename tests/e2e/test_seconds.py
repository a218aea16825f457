"""Trials that race in seconds, on real data."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from trials import record, rows, trial_folder
from warm import algoeff

pytestmark = [pytest.mark.slow, pytest.mark.data]

COLUMNS = {
  *('accumulated_eval_time', 'accumulated_logging_time', 'accumulated_submission_time'),
  *('global_step', 'preemption_count', 'score', 'total_duration'),
  *('train/accuracy', 'train/loss', 'validation/accuracy', 'validation/loss'),
  *('validation/num_examples', 'test/accuracy', 'test/loss', 'test/num_examples'),
}


@pytest.mark.parametrize('framework', ['jax', 'pytorch'])
def test_mnist_in_seconds(framework: str, test_data: Path, tmp_path: Path):
  prepare = ('data', 'prepare', 'mnist', '--source', test_data / 'mnist', '--data_dir', 'data')
  assert algoeff(*prepare, cwd=tmp_path).returncode == 0
  result = algoeff(
    *('run', '--workload', 'mnist', '--framework', framework, '--suite', 'algoperf_v06'),
    *('--submission', 'nadamw', '--ruleset', 'self', '--seed', 1, '--data_dir', 'data'),
    *('--max_global_steps', 400, '--num_threads', 1, '--quiet'),
    cwd=tmp_path,
  )
  assert result.returncode == 0, result.stderr
  folder = trial_folder(tmp_path)
  found = record(folder)
  assert found.status == 'finished'
  assert found.stop_reason in ('step_limit', 'targets_reached')
  # The parent also counts the start and the end of the process, but may read messages late.
  assert 0.8 * found.parent_wall_sec - 5 < sum(found.buckets.values()) < found.parent_wall_sec + 0.5
  assert rows(folder).evals[0]['global_step'] == 1
  with open(folder / 'eval_measurements.csv', newline='') as file:
    columns = next(csv.reader(file))
  assert columns == sorted(columns)
  assert set(columns) >= COLUMNS
  names = {path.name for path in folder.iterdir()}
  assert names >= {'measurements.csv', 'flags_0.json', 'meta_data_0.json', 'trial.json'}
