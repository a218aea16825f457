"""Every submission is the same algorithm in both frameworks."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit import update_toys as toys

jax = pytest.importorskip('jax')
torch = pytest.importorskip('torch')

NUM_STEPS = 50
RNG = np.array([1, 2], np.uint32)


def _train_jax(module, point, batches):
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


def _train_torch(module, point, batches):
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


@pytest.mark.parametrize(
  ('ruleset', 'name'),
  [
    ('external', 'adamw'),
    ('external', 'nadamw'),
    ('external', 'nesterov'),
    ('external', 'momentum'),
    ('self', 'nadamw'),
  ],
)
def test_both_frameworks_take_the_same_steps(ruleset, name, monkeypatch):
  modules = [toys.submission(ruleset, name, framework) for framework in ('jax', 'pytorch')]
  for module in modules:
    if ruleset == 'self':  # the toys draw different dropout masks in the two frameworks
      options = type(module._OPTIONS)(label_smoothing=0.1, dropout_rate=0.0)
      monkeypatch.setattr(module, '_OPTIONS', options)
  point = toys.POINT if ruleset == 'external' else None
  batches = toys.batches(NUM_STEPS)
  trace_jax = _train_jax(modules[0], point, batches)
  trace_torch = _train_torch(modules[1], point, batches)
  start = toys.params()
  for step, (ours, theirs) in enumerate(zip(trace_jax, trace_torch, strict=True)):
    for key in start:
      np.testing.assert_allclose(
        ours[key], theirs[key], rtol=2e-5, atol=2e-5, err_msg=f'{key} after step {step}'
      )
  moved = max(np.abs(trace_jax[-1][key] - start[key]).max() for key in start)
  assert moved > 0.01
