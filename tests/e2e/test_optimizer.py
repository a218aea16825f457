"""Optimizers by their import name, on a real workload: they train, resume, and can be run again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from trials import record, rows, trial_folder, wait_for_rows, without_times
from warm import algoeff

pytestmark = pytest.mark.slow

# What is left of the loss of a guess after 100 steps, at most; a language is never certain.
WORKLOADS = {'quick_vision': 0.75, 'quick_lm': 0.85, 'quick_nmt': 0.8, 'quick_moe': 0.75}
# Hyperparameters with which each gets well below the loss of a guess within a few steps.
OPTIMIZERS = {
  'torch.optim.SGD': ['lr=0.1', 'momentum=0.98'],
  'torch.optim.AdamW': ['lr=3e-3'],
  'torch.optim.NAdam': ['lr=3e-3'],
  'torch.optim.Adafactor': ['lr=3e-2'],
  'torch.optim.Muon': ['lr=0.02', 'adam_lr=3e-3'],
  'torch.optim.LBFGS': ['lr=0.3', 'line_search_fn=strong_wolfe', 'max_iter=4', 'history_size=10'],
  'optax.adamw': ['learning_rate=3e-3'],
  'optax.lion': ['learning_rate=2e-3'],
  'optax.contrib.muon': ['learning_rate=0.02', 'adam_learning_rate=3e-3'],
  'optax.contrib.schedule_free_adamw': ['learning_rate=1e-2'],
  'optax.contrib.prodigy': ['estim_lr0=1e-3'],
  'optax.contrib.ademamix': ['learning_rate=3e-3'],
  'optax.lbfgs': [],
}


def flags(optimizer: str) -> list[str]:
  pytest.importorskip(optimizer.partition('.')[0])
  return ['--optimizer', optimizer, *(f'--hparam={one}' for one in OPTIMIZERS[optimizer])]


def command(root: Path, *more: str, workload: str = 'quick_vision') -> list[str]:
  return [
    *('run', '--workload', workload, '--allow_provisional', '--seed', '5', '--num_threads', '1'),
    *('--experiment_dir', str(root), '--quiet', *more),
  ]


def losses(folder: Path) -> list[float]:
  return [row['validation/loss'] for row in rows(folder).evals]


# One of each family: a rule, matrices, a line search, weights that are evaluated apart.
SLOW = {
  'quick_vision': (
    *('torch.optim.AdamW', 'torch.optim.Muon'),
    *('torch.optim.LBFGS', 'optax.contrib.schedule_free_adamw'),
  ),
  'quick_lm': ('optax.adamw',),
  'quick_nmt': ('torch.optim.AdamW',),
  'quick_moe': ('torch.optim.Muon',),  # each expert is a matrix of its own
}


@pytest.mark.parametrize(
  ('workload', 'optimizer'),
  [
    pytest.param(workload, optimizer, marks=[pytest.mark.long] * (optimizer not in SLOW[workload]))
    for workload in WORKLOADS
    for optimizer in OPTIMIZERS
  ],
)
def test_every_one_trains(optimizer: str, workload: str, tmp_path: Path):
  limit = ['--max_global_steps', '100', '--full_eval_every', '100', '--no-save_checkpoints']
  done = algoeff(*command(tmp_path, *flags(optimizer), *limit, workload=workload), cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  first, *_, last = losses(trial_folder(tmp_path))
  assert last < WORKLOADS[workload] * first


@pytest.mark.parametrize(
  ('optimizer', 'more'),
  [
    ('optax.contrib.schedule_free_adamw', ['--num_devices', '2']),
    pytest.param(
      'torch.optim.Muon',
      ['--num_devices', '2', '--ruleset', 'self', '--schedule', 'wsd'],
      marks=pytest.mark.long,
    ),
  ],
)
def test_two_devices_a_kill_and_another_run_of_the_same(
  optimizer: str, more: list[str], tmp_path: Path
):
  limit = ['--max_global_steps', '60', *more]
  arguments = [*flags(optimizer), *limit]
  whole = algoeff(*command(tmp_path / 'whole', *arguments), cwd=tmp_path)
  assert whole.returncode == 0, whole.stderr
  expected = trial_folder(tmp_path / 'whole')
  place = expected.relative_to(tmp_path / 'whole')
  name, found = place.parts[0], tmp_path / 'cut' / place
  process = subprocess.Popen(
    [sys.executable, '-m', 'algorithmic_efficiency', *command(tmp_path / 'cut', *arguments)],
    cwd=tmp_path,
  )
  wait_for_rows(found, 1, 2, process)
  assert process.poll() is None, 'it got through before it could be killed'
  process.send_signal(signal.SIGKILL)
  process.wait()

  others = ['--grad_clip', '1', '--experiment', name]
  refused = algoeff(*command(tmp_path / 'cut', *arguments, *others, '--resume'), cwd=tmp_path)
  assert (refused.returncode, 'the settings and source that it began with' in refused.stderr) == (
    2,
    True,
  )
  final = algoeff(*command(tmp_path / 'cut', *arguments, '--resume'), cwd=tmp_path)
  assert final.returncode == 0, final.stderr
  assert without_times(rows(found).evals) == without_times(rows(expected).evals)

  copy = Path(shutil.copytree(expected / name, tmp_path / 'entered'))
  framework = ['--framework', record(expected).framework]
  again = command(tmp_path / 'again', '--submission', str(copy), *framework, *limit[:4])
  ruleset = ['--ruleset', record(expected).ruleset]
  assert algoeff(*again, *ruleset, cwd=tmp_path).returncode == 0
  repeated = trial_folder(tmp_path / 'again')
  assert without_times(rows(repeated).evals) == without_times(rows(expected).evals)
  assert record(repeated).submission_hash == record(expected).submission_hash
