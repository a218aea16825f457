"""The shared JAX step: gradients, clipping, parts, schedules, logging, and one compilation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from algorithmic_efficiency.errors import UserError
from algorithmic_efficiency.training.options import StepOptions
from tests.unit import training_toys as toys

jax = pytest.importorskip('jax')
optax = pytest.importorskip('optax')

from algorithmic_efficiency.training import jax as training  # noqa: E402

RNG = np.array([1, 2], np.uint32)


def _params():
  return jax.tree.map(jax.numpy.asarray, toys.params())


def _gradients(options, batch=None, workload=None):
  workload = workload or toys.JaxWorkload()
  batch = toys.batches(1)[0] if batch is None else batch
  return training.mean_gradients(workload, _params(), None, batch, RNG, options)


def _assert_close(left, right, **tolerance):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), left, right)


def _run(workload, state, params, batches, point=None, model_state=None):
  for step, batch in enumerate(batches):
    state, params, model_state = training.update_params(
      current_param_container=params,
      model_state=model_state,
      batch=batch,
      optimizer_state=state,
      **toys.update_arguments(workload, point, step, RNG),
    )
  return state, params, model_state


def test_gradient_is_that_of_the_mean_over_valid_examples():
  batch = toys.batches(1)[0]
  valid = {name: value[:-2] for name, value in batch.items()}
  workload = toys.JaxWorkload()

  def mean(params):
    logits, _ = workload.model_fn(params, valid, None, None, RNG, True)
    loss = workload.loss_fn(valid['targets'], logits, label_smoothing=0.1)
    return loss['summed'] / len(valid['targets'])

  loss, expected = jax.value_and_grad(mean)(_params())
  gradients, got, _ = _gradients(StepOptions(label_smoothing=0.1), batch)
  _assert_close(gradients, expected, rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(got, loss, rtol=1e-6)


@pytest.mark.parametrize('num_parts', [2, 4, 16])
def test_parts_give_the_gradient_of_the_whole_batch(num_parts):
  # The two examples that do not count fall into different parts, so the parts weigh differently.
  whole, loss, _ = _gradients(StepOptions())
  parts, loss_of_parts, _ = _gradients(StepOptions(micro_batches=num_parts))
  _assert_close(parts, whole, rtol=2e-5, atol=1e-6)
  np.testing.assert_allclose(loss_of_parts, loss, rtol=1e-6)


def test_parts_without_weights_and_with_nested_inputs():
  batch = toys.batches(1)[0]
  batch = {'inputs': batch['inputs'], 'targets': batch['targets'], 'more': (batch['inputs'], None)}
  whole, _, _ = _gradients(StepOptions(), batch)
  parts, _, _ = _gradients(StepOptions(micro_batches=4), batch)
  _assert_close(parts, whole, rtol=2e-5, atol=1e-6)


@pytest.mark.slow
def test_parts_have_dropout_masks_of_their_own():
  batch = toys.batches(1)[0]
  same = {name: np.repeat(value[:1], 2, 0) for name, value in batch.items()}
  alone = {name: value[:1] for name, value in batch.items()}
  parts, _, _ = _gradients(StepOptions(micro_batches=2, dropout_rate=0.5), same)
  one, _, _ = _gradients(StepOptions(dropout_rate=0.5), alone)
  both = [
    training.mean_gradients(
      toys.JaxWorkload(), _params(), None, alone, key, StepOptions(dropout_rate=0.5)
    )[0]
    for key in jax.random.split(RNG, 2)
  ]
  mean = jax.tree.map(lambda x, y: (x + y) / 2, *both)
  _assert_close(parts, mean, rtol=2e-5, atol=1e-6)
  assert any(
    not np.allclose(x, y) for x, y in zip(jax.tree.leaves(parts), jax.tree.leaves(one), strict=True)
  )


def test_a_batch_that_does_not_split_evenly_is_refused():
  with pytest.raises(UserError, match='16 is not divisible by 3'):
    _gradients(StepOptions(micro_batches=3))


def test_examples_that_depend_on_each_other_are_refused_in_parts():
  workload = toys.JaxWorkload(independent_examples=False)
  with pytest.raises(UserError, match=r'independent_examples=False.*Leave micro_batches at 1'):
    training.start(workload, _params(), None, optax.sgd(0.1), StepOptions(micro_batches=2))
  training.start(workload, _params(), None, optax.sgd(0.1), StepOptions())


def test_a_model_with_state_may_run_in_parts():
  options = StepOptions(micro_batches=2)
  training.start(toys.JaxWorkload(), _params(), {'frozen': {}}, optax.sgd(0.1), options)


@pytest.mark.parametrize(('limit', 'expected'), [(0.01, 0.01), (100.0, None)])
def test_clipping_bounds_the_global_norm(limit, expected):
  gradients, _, _ = _gradients(StepOptions())
  norm = float(optax.tree.norm(gradients))
  workload = toys.JaxWorkload()
  start = _params()
  before = jax.tree.map(np.array, start)
  state, step = training.start(workload, start, None, optax.sgd(1.0), StepOptions(grad_clip=limit))
  _, params, _, metrics = step(state, start, None, toys.batches(1)[0], RNG)
  moved = jax.tree.map(lambda x, y: x - y, before, params)
  np.testing.assert_allclose(optax.tree.norm(moved), expected or norm, rtol=1e-3)
  np.testing.assert_allclose(metrics['grad_norm'], norm, rtol=1e-5)  # as it was before clipping


def test_state_has_the_form_of_algoperf():
  state = training.start(toys.JaxWorkload(), _params(), None, optax.adam(0.1), StepOptions())
  assert isinstance(state, tuple) and len(state) == 2 and callable(state[1])
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state[0]))


def test_model_state_goes_through():
  workload = toys.JaxWorkload(stateful=True)
  params, model_state = _params(), {'calls': jax.numpy.zeros((), int)}
  state = training.start(workload, params, model_state, optax.sgd(0.1), StepOptions())
  _, _, model_state = _run(workload, state, params, toys.batches(3), model_state=model_state)
  assert int(model_state['calls']) == 3


def test_loss_and_norm_are_logged_now_and_then_as_device_scalars():
  workload = toys.JaxWorkload()
  workload.metrics_logger = toys.Logger()
  params = _params()
  state = training.start(workload, params, None, optax.sgd(0.0), StepOptions())
  _run(workload, state, params, toys.batches(1) * 201)
  assert [step for step, _ in workload.metrics_logger.rows] == [0, 100, 200]
  gradients, loss, _ = _gradients(StepOptions())
  for _, metrics in workload.metrics_logger.rows:
    assert all(isinstance(value, jax.Array) for value in metrics.values())
    np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics['grad_norm'], optax.tree.norm(gradients), rtol=1e-5)


def test_fault_14_the_step_is_compiled_once():
  # The reference's baselines build a jitted function in every call of update_params.
  module = toys.submission('external', 'adamw', 'jax')
  workload = toys.JaxWorkload()
  params = _params()
  state = module.init_optimizer_state(workload, params, None, toys.POINT, RNG)
  functions = {state[1]}
  for step, batch in enumerate(toys.batches(5)):
    state, params, _ = module.update_params(
      current_param_container=params,
      model_state=None,
      batch=batch,
      optimizer_state=state,
      **toys.update_arguments(workload, toys.POINT, step, RNG),
    )
    functions.add(state[1])
  assert len(functions) == 1
  assert len(workload.dropout_rates) == 1, 'the model was traced more than once'
  assert state[1]._cache_size() == 1


def test_what_a_step_replaces_is_donated():
  params = _params()
  state = training.start(toys.JaxWorkload(), params, None, optax.adam(0.1), StepOptions())
  moments = jax.tree.leaves(state[0])
  _run(toys.JaxWorkload(), state, params, toys.batches(1))
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(params))
  assert all(leaf.is_deleted() for leaf in moments)


# Schedules.


def test_warmup_cosine():
  schedule = training.warmup_cosine(2.0, step_hint=100, warmup_factor=0.1)
  steps = [0, 5, 10, 55, 100, 150]
  np.testing.assert_allclose(
    [float(schedule(step)) for step in steps], [0, 1, 2, 1, 0, 0], atol=1e-6
  )


def test_warmup_linear():
  schedule = training.warmup_linear(
    2.0, step_hint=100, warmup_factor=0.1, decay_steps_factor=0.5, end_factor=0.1
  )
  steps = [0, 5, 10, 32.5, 55, 90]
  np.testing.assert_allclose(
    [float(schedule(step)) for step in steps], [0, 1, 2, 1.1, 0.2, 0.2], atol=1e-6
  )


@pytest.mark.parametrize('warmup_factor', [0.0, 0.3, 1.0])
@pytest.mark.parametrize('step_hint', [1, 7, 40])
def test_schedules_of_both_frameworks_are_the_same(step_hint, warmup_factor):
  pytest.importorskip('torch')
  from algorithmic_efficiency.training import torch as torch_updates

  common = {'step_hint': step_hint, 'warmup_factor': warmup_factor}
  decay = {'decay_steps_factor': 0.9, 'end_factor': 0.01}
  pairs = [
    (training.warmup_cosine(0.3, **common), torch_updates.warmup_cosine(**common)),
    (
      training.warmup_linear(0.3, **common, **decay),
      torch_updates.warmup_linear(**common, **decay),
    ),
  ]
  for schedule, factor in pairs:
    for step in range(step_hint + 5):
      np.testing.assert_allclose(schedule(step), 0.3 * factor(step), atol=2e-7)


# Several devices.


@pytest.mark.slow
def test_fault_28_arrays_sharded_over_a_mesh_are_taken_as_they_are():
  # The reference's archived baselines add a device axis to the optimizer state.
  script = Path(__file__).with_name('training_devices_script.py')
  root = script.parents[2]
  subprocess.run([sys.executable, str(script)], check=True, cwd=root, timeout=300)
