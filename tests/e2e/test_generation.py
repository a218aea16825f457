"""A task of which a metric is that of generated outputs, as a user runs it."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from trials import record, rows, trial_folder, wait_for_rows, without_times
from warm import algoeff

pytest.importorskip('sacrebleu')

ROOT = Path(__file__).with_name('generating')
FRAMEWORKS = [
  pytest.param('pytorch', marks=pytest.mark.slow),
  pytest.param('jax', marks=pytest.mark.long),
]
OPTIMIZERS = {
  'pytorch': ('torch.optim.AdamW', 'lr=0.1'),
  'jax': ('optax.adamw', 'learning_rate=0.1'),
}


def command(framework: str, root: Path, workload: str = 'spelling') -> list[str]:
  return [
    *('run', '--path', str(ROOT), '--workload', workload, '--framework', framework),
    *('--submission', 'nadamw', '--ruleset', 'self', '--seed', '3', '--num_threads', '1'),
    *('--experiment_dir', str(root), '--quiet'),
  ]


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_a_metric_is_generated_in_its_turns_and_empty_cells_are_read(framework, tmp_path):
  done = algoeff(*command(framework, tmp_path / 'runs'), cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  folder = trial_folder(tmp_path / 'runs')
  with open(folder / 'eval_measurements.csv', newline='') as file:
    table = [*csv.DictReader(file)]
  generated = [int(row['global_step']) for row in table if row['validation/bleu']]
  assert generated == [1, 12, 24, 36, 48, 60]
  assert [bool(row['test/bleu']) for row in table] == [
    bool(row['validation/bleu']) for row in table
  ]
  assert all(row['validation/accuracy'] and row['test/loss'] for row in table)
  assert 'train/bleu' not in table[0]
  scored = algoeff(
    *('score', tmp_path / 'runs', '--path', ROOT, '--suite', 'quick', '--allow_provisional'),
    *('--output_dir', tmp_path / 'scores'),
    cwd=tmp_path,
  )
  assert scored.returncode == 0, scored.stderr
  assert 'nan_metric' not in scored.stdout and 'damaged' not in scored.stdout
  assert (tmp_path / 'scores' / 'report.html').stat().st_size > 0


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_a_generated_target_is_reached_through_a_partial_evaluation(framework, tmp_path):
  optimizer, rate = OPTIMIZERS[framework]
  done = algoeff(
    *('run', '--path', ROOT, '--workload', 'spelling_bleu', '--optimizer', optimizer),
    *('--hparam', rate, '--ruleset', 'self', '--seed', '3', '--full_eval_every', '100'),
    *('--num_threads', '1', '--experiment_dir', tmp_path / 'runs', '--quiet'),
    cwd=tmp_path,
  )
  assert done.returncode == 0, done.stderr
  folder = trial_folder(tmp_path / 'runs')
  assert record(folder).stop_reason == 'targets_reached'
  assert rows(folder).evals[-1]['validation/bleu'] == pytest.approx(100.0)
  [partial, *_] = [row for row in rows(folder).metrics if 'partial/validation/bleu' in row]
  assert partial['partial/validation/num_examples'] == 16.0


@pytest.mark.parametrize('framework', ['pytorch', 'jax'])
@pytest.mark.long
def test_a_trial_that_is_killed_and_resumed_generates_in_the_same_evaluations(framework, tmp_path):
  whole = algoeff(*command(framework, tmp_path / 'whole'), cwd=tmp_path)
  assert whole.returncode == 0, whole.stderr
  expected = trial_folder(tmp_path / 'whole')
  found = tmp_path / 'cut' / expected.relative_to(tmp_path / 'whole')
  process = subprocess.Popen(
    [sys.executable, '-m', 'algorithmic_efficiency', *command(framework, tmp_path / 'cut')],
    cwd=tmp_path,
  )
  wait_for_rows(found, 1, 4, process)
  process.kill()
  process.wait()
  assert 0 < len(rows(found).evals) < 16
  resumed = algoeff(*command(framework, tmp_path / 'cut'), '--resume', cwd=tmp_path)
  assert resumed.returncode == 0, resumed.stderr
  assert without_times(rows(found).evals) == without_times(rows(expected).evals)


@pytest.mark.parametrize('framework', ['pytorch', 'jax'])
@pytest.mark.long
def test_a_smoke_run_generates(framework, tmp_path):
  done = algoeff(*command(framework, tmp_path / 'runs'), '--smoke', cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  evaluations = rows(trial_folder(tmp_path / 'runs')).evals
  assert 'validation/bleu' in evaluations[0] and 'validation/bleu' in evaluations[-1]
