"""Every baseline takes the steps of its paper, in both frameworks.

The twin is written in numpy, in float64, as the README files of the baselines have it.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from algorithmic_efficiency.benchmark import registry
from tests.unit import training_toys as toys

NUM_STEPS = 50
RNG = np.array([1, 2], np.uint32)
BASELINES = list(registry.submissions())


# The twin.


def _gradients(params, batch, label_smoothing):
  """Of the mean cross entropy of the toy over the examples that count."""
  weights = batch['weights'] / batch['weights'].sum()
  hidden = np.tanh(batch['inputs'] @ params['kernel_0'] + params['bias_0'])
  logits = hidden @ params['kernel_1'] + params['bias_1']
  probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  labels = np.eye(3)[batch['targets']] * (1 - label_smoothing) + label_smoothing / 3
  out = (probabilities - labels) * weights[:, None]
  inner = (out @ params['kernel_1'].T) * (1 - hidden**2)
  return {
    'kernel_0': batch['inputs'].T @ inner,
    'bias_0': inner.sum(0),
    'kernel_1': hidden.T @ out,
    'bias_1': out.sum(0),
  }


def _cosine(h, step):
  num_warmup = int(h['warmup_factor'] * NUM_STEPS)
  if step < num_warmup:
    return h['learning_rate'] * step / num_warmup
  done = (step - num_warmup) / (NUM_STEPS - num_warmup)
  return h['learning_rate'] * (1 + math.cos(math.pi * done)) / 2


def _linear(h, step):
  num_warmup = int(h['warmup_factor'] * NUM_STEPS)
  if step < num_warmup:
    return h['learning_rate'] * step / num_warmup
  num_decay = int(h['decay_steps_factor'] * (NUM_STEPS - num_warmup))
  done = min((step - num_warmup) / num_decay, 1)
  return h['learning_rate'] * (1 - done * (1 - h['end_factor']))


def _adam_step(name, h, p, g, m, v, step):
  b1, b2, t = 1 - h['one_minus_beta1'], h['beta2'], step + 1
  m[:] = b1 * m + (1 - b1) * g
  v[:] = b2 * v + (1 - b2) * g**2
  if name == 'nadamw':
    direction = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
  else:
    direction = m / (1 - b1**t)
  direction = direction / (np.sqrt(v / (1 - b2**t)) + 1e-8)
  p -= _cosine(h, step) * (direction + h['weight_decay'] * p)


def _sgd_step(name, h, p, g, m, v, step):
  b1 = 1 - h['one_minus_beta1']
  g = g + h['weight_decay'] * p
  m[:] = b1 * m + g
  p -= _linear(h, step) * (g + b1 * m if name == 'nesterov' else m)


def _train_twin(name, h, batches):
  step_of = _adam_step if 'adam' in name else _sgd_step
  params = {key: value.astype(np.float64) for key, value in toys.params().items()}
  m, v = ({key: np.zeros_like(value) for key, value in params.items()} for _ in range(2))
  trace = []
  for step, batch in enumerate(batches):
    gradients = _gradients(params, batch, label_smoothing=0.1)
    norm = math.sqrt(sum((g**2).sum() for g in gradients.values()))
    scale = 1.0 if h['grad_clip'] is None else min(1.0, h['grad_clip'] / norm)
    for key, p in params.items():
      step_of(name, h, p, gradients[key] * scale, m[key], v[key], step)
    trace.append({key: p.copy() for key, p in params.items()})
  return trace


# The baselines.


def _train_jax(module, point, batches):
  import jax

  workload = toys.JaxWorkload(step_hint=NUM_STEPS)
  params = jax.tree.map(jax.numpy.asarray, toys.params())
  state = module.init_optimizer_state(workload, params, None, point, RNG)
  trace = []
  for step, batch in enumerate(batches):
    state, params, _ = module.update_params(
      current_param_container=params,
      model_state=None,
      batch=batch,
      optimizer_state=state,
      **toys.update_arguments(workload, point, step, RNG),
    )
    trace.append({name: np.array(value) for name, value in params.items()})
  return trace


def _train_pytorch(module, point, batches):
  workload = toys.TorchWorkload(step_hint=NUM_STEPS)
  model = toys.torch_model(toys.params())
  state = module.init_optimizer_state(workload, model, None, point, RNG)
  trace = []
  for step, batch in enumerate(batches):
    state, model, _ = module.update_params(
      current_param_container=model,
      model_state=None,
      batch=toys.torch_batch(batch),
      optimizer_state=state,
      **toys.update_arguments(workload, point, step, RNG),
    )
    trace.append({name: value.detach().numpy().copy() for name, value in model.named_parameters()})
  return trace


@pytest.mark.parametrize(('ruleset', 'name'), BASELINES)
@pytest.mark.parametrize('framework', ['jax', 'pytorch'])
def test_a_baseline_takes_the_steps_of_its_twin(framework, ruleset, name, monkeypatch):
  pytest.importorskip('jax' if framework == 'jax' else 'torch')
  module = toys.submission(ruleset, name, framework)
  point, values = toys.POINT, vars(toys.POINT)
  if ruleset == 'self':
    point, values = None, {**vars(module._POINT), 'grad_clip': None}
    # The twin draws no dropout masks, and has the label smoothing of the others.
    options = type(module._OPTIONS)(label_smoothing=0.1, dropout_rate=0.0)
    monkeypatch.setattr(module, '_OPTIONS', options)
  batches = toys.batches(NUM_STEPS)
  train = _train_jax if framework == 'jax' else _train_pytorch
  trace = train(module, point, batches)
  twin = _train_twin(name, values, batches)
  for step, (params, expected) in enumerate(zip(trace, twin, strict=True)):
    for key, value in params.items():
      np.testing.assert_allclose(
        value, expected[key], rtol=5e-6, atol=5e-6, err_msg=f'{key} after step {step}'
      )
  start = toys.params()
  assert max(np.abs(trace[-1][key] - start[key]).max() for key in start) > 0.01


def test_self_tuning_nadamw_has_the_constants_of_algoperf():
  for framework in ('jax', 'pytorch'):
    pytest.importorskip('jax' if framework == 'jax' else 'torch')
    assert vars(toys.submission('self', 'nadamw', framework)._POINT) == {
      'learning_rate': 0.0017486387539278373,
      'one_minus_beta1': 0.06733926164,
      'beta2': 0.9955159689799007,
      'weight_decay': 0.08121616522670176,
      'warmup_factor': 0.02,
      'dropout_rate': 0.1,
    }


@pytest.mark.parametrize('name', [name for kind, name in BASELINES if kind == 'self'])
@pytest.mark.parametrize('framework', ['jax', 'pytorch'])
def test_self_tuning_trains_with_the_options_among_its_constants(framework, name):
  pytest.importorskip('jax' if framework == 'jax' else 'torch')
  module = toys.submission('self', name, framework)
  for option in ('label_smoothing', 'dropout_rate', 'grad_clip', 'micro_batches'):
    default = {'label_smoothing': 0.0, 'micro_batches': 1}.get(option)
    expected = getattr(module._POINT, option, default)
    assert getattr(module._OPTIONS, option) == expected, option


@pytest.mark.parametrize('name', [name for kind, name in BASELINES if kind == 'self'])
def test_the_constants_are_those_of_the_other_framework(name):
  pytest.importorskip('jax')
  pytest.importorskip('torch')
  points = [vars(toys.submission('self', name, one)._POINT) for one in ('jax', 'pytorch')]
  assert points[0] == points[1]
