"""Parameters that a trial has kept give the values of its own row, to the last bit."""

from __future__ import annotations

import json

import pytest
from trials import record, rows, trial_folder
from warm import algoeff

PACKAGES = {'jax': 'jax', 'pytorch': 'torch'}
RUN = (
  'run',
  '--workload',
  'quick_vision',
  '--submission',
  'nadamw',
  '--ruleset',
  'self',
  '--quiet',
)
SIZES = ('--seed', '3', '--num_threads', '1', '--max_global_steps', '31')


@pytest.mark.slow
@pytest.mark.parametrize('framework', PACKAGES)
def test_kept_parameters_give_the_row_of_the_trial(tmp_path, framework):
  pytest.importorskip(PACKAGES[framework])
  words = (*RUN, '--framework', framework, *SIZES, '--keep_params', 'best')
  done = algoeff(*words, cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  folder = trial_folder(tmp_path)
  for path in folder.glob('checkpoint_*'):
    path.unlink()
  kept = record(folder).kept_params
  assert kept['num_bytes'] == (folder / kept['file']).stat().st_size
  evals = rows(folder).evals
  best = max(evals, key=lambda row: row['validation/accuracy'])
  assert kept['global_step'] == best['global_step']

  splits = ('--split', 'eval_train,validation,test', '--num_threads', '1')
  done = algoeff('evaluate', 'runs', *splits, '--output', 'values.json', cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  values = json.loads((tmp_path / 'values.json').read_text())['values']
  assert values == {name: best[name] for name in values}
  assert {'train/loss', 'validation/accuracy', 'test/num_examples'} <= set(values)
  assert f'validation/accuracy      {best["validation/accuracy"]:.6g}' in done.stdout
