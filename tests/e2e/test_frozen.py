"""A workload with a frozen layer: it trains, resumes, and ends a trial that changes the layer."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from trials import record, rows, trial_folder, wait_for_rows, without_times
from warm import algoeff

from algorithmic_efficiency.benchmark import registry

pytestmark = pytest.mark.slow

FROZEN = {'jax': ('Conv_0', 'BatchNorm_0'), 'pytorch': ('conv1', 'bn1')}
OPTIMIZERS = {
  'jax': ('optax.adamw', 'learning_rate=3e-3'),
  'pytorch': ('torch.optim.AdamW', 'lr=3e-3'),
}
THIEVES = {
  'jax': """
import jax
import optax
from algorithmic_efficiency.training import jax as training
from algorithmic_efficiency.training.jax import data_selection
from algorithmic_efficiency.training.options import StepOptions

def get_batch_size(workload_name):
  return 128

def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
  return training.start(workload, model_params, model_state, optax.sgd(0.1), StepOptions())

def update_params(**arguments):
  state, params, model_state = training.update_params(**arguments)
  frozen = jax.tree.map(lambda x: x * 1.0001, model_state['frozen'])
  return state, params, {**model_state, 'frozen': frozen}
""",
  'pytorch': """
import torch
from algorithmic_efficiency.training import torch as training
from algorithmic_efficiency.training.options import StepOptions
from algorithmic_efficiency.training.torch import data_selection

def get_batch_size(workload_name):
  return 128

def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
  optimizer = torch.optim.SGD(model_params.parameters(), lr=0.1)
  return training.start(model_params, optimizer, lambda step: 1.0, StepOptions())

def update_params(**arguments):
  arguments['current_param_container'].conv1.weight.mul_(1.0001)
  return training.update_params(**arguments)
""",
}


@pytest.fixture
def task(tmp_path: Path) -> Path:
  """A root with a task whose model is that of quick_vision, with its first layer frozen."""
  folder = tmp_path / 'workloads' / 'frozen_digits'
  folder.mkdir(parents=True)
  text = f"""
import dataclasses
from workloads.vision.definition import WORKLOADS as _VISION

WORKLOADS = {{'frozen_digits': dataclasses.replace(
  _VISION['quick_vision'], name='frozen_digits', base='frozen_digits', task='frozen_digits',
  frozen_params={FROZEN!r},
)}}
"""
  (folder / 'definition.py').write_text(text)
  for file in registry.task_of(registry.workload('quick_vision')).folder.glob('*.py'):
    name = file.stem
    if name not in ('definition', 'imagenet', '__init__'):
      (folder / file.name).write_text(f'from workloads.vision.{name} import *\n')
  return tmp_path


def command(task: Path, framework: str, root: Path, *more: str) -> list[str]:
  return [
    *('run', '--workload', 'frozen_digits', '--path', str(task), '--framework', framework),
    *('--allow_provisional', '--seed', '5', '--num_threads', '1', '--max_global_steps', '50'),
    *('--experiment_dir', str(root), '--quiet', *more),
  ]


def optimizer(framework: str) -> tuple[str, ...]:
  name, value = OPTIMIZERS[framework]
  return ('--optimizer', name, '--hparam', value)


@pytest.mark.parametrize('framework', ['jax', 'pytorch'])
def test_a_killed_trial_goes_on_as_one_that_was_left_alone(framework, task, tmp_path):
  arguments = optimizer(framework)
  whole = algoeff(*command(task, framework, tmp_path / 'whole', *arguments), cwd=tmp_path)
  assert whole.returncode == 0, whole.stderr
  expected = trial_folder(tmp_path / 'whole')
  found = tmp_path / 'cut' / expected.relative_to(tmp_path / 'whole')
  cut = command(task, framework, tmp_path / 'cut', *arguments)
  process = subprocess.Popen([sys.executable, '-m', 'algorithmic_efficiency', *cut], cwd=tmp_path)
  wait_for_rows(found, 1, 2, process)
  process.send_signal(signal.SIGKILL)
  process.wait()
  final = algoeff(*cut, '--resume', cwd=tmp_path)
  assert final.returncode == 0, final.stderr
  assert record(found).status == 'finished'
  assert without_times(rows(found).evals) == without_times(rows(expected).evals)


@pytest.mark.parametrize('framework', ['jax', 'pytorch'])
def test_a_submission_that_changes_them_is_invalid(framework, task, tmp_path):
  folder = tmp_path / 'thief'
  folder.mkdir()
  (folder / f'submission_{framework}.py').write_text(THIEVES[framework])
  arguments = ('--submission', str(folder), '--ruleset', 'self')
  done = algoeff(*command(task, framework, tmp_path / 'out', *arguments), cwd=tmp_path)
  assert done.returncode != 0
  assert record(trial_folder(tmp_path / 'out')).status == 'invalid'
  assert 'Frozen parameters must keep their initial values' in done.stderr
