"""The layout with a device axis, which entries get that use `jax.pmap`."""

from __future__ import annotations

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import jax_toy
import numpy as np
import pytest

from algorithmic_efficiency import errors, spec
from algorithmic_efficiency.backends import jax as backend_jax
from algorithmic_efficiency.backends.base import Devices

WORDS = np.array([1, 2], np.uint32)
PMAP = frozenset({'jax.pmap'})


@pytest.fixture(scope='module')
def flat():
  return backend_jax.start(Devices(platform='cpu', num_devices=1))


def begin(backend):
  workload = backend.workload(jax_toy.definition(), jax_toy.task(), jax_toy.BUDGET)
  return workload, *workload.init_model_fn(backend.key(WORDS))


def loss_of(params, workload, batch, model_state, rng):
  logits, new_state = workload.model_fn(
    params, batch, model_state, spec.ForwardPassMode.TRAIN, rng, update_batch_norm=True
  )
  loss = workload.loss_fn(batch['targets'], logits, batch['weights'])
  return loss['summed'] / loss['n_valid_examples'], new_state


def step(workload, params, model_state, batch, rng):
  """One of gradient descent."""
  (_, new_state), grads = jax.value_and_grad(loss_of, has_aux=True)(
    params, workload, batch, model_state, rng
  )
  return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), new_state


def test_the_layout_follows_from_what_is_used(flat):
  assert flat.for_submission(frozenset({'jax.jit'})) is flat
  assert flat.for_submission(PMAP) is not flat


def test_training_and_evaluation_are_those_of_the_flat_layout(flat):
  """On one device, up to rounding."""
  with_axis = flat.for_submission(PMAP)
  steps = {
    flat: jax.jit(step, static_argnums=0, donate_argnums=(1, 2)),
    with_axis: functools.partial(
      jax.pmap,
      axis_name='batch',
      in_axes=(None, 0, 0, 0, 0),
      static_broadcasted_argnums=0,
      donate_argnums=(1, 2),
    )(step),
  }
  found = {}
  for backend, train in steps.items():
    workload, params, state = begin(backend)
    for index in range(5):
      rng = np.array([index, 0], np.uint32)
      batch = backend.place(jax_toy.batch(16, index))
      params, state = train(
        workload, params, state, batch, rng if backend is flat else jnp.asarray(rng)[None]
      )
    batches = [jax_toy.batch(16, 7), jax_toy.batch(4, 8)]
    sums = backend.eval_sums(workload, params, state, batches, WORDS)
    assert backend.all_finite(params)
    found[backend] = (params, state, sums)
  for ours, theirs in zip(*map(jax.tree.leaves, found.values()), strict=True):
    np.testing.assert_allclose(np.squeeze(theirs), np.squeeze(ours), rtol=1e-6)


def test_shapes_have_no_device_axis(flat):
  workload, params, _ = begin(flat.for_submission(PMAP))
  wanted, *_ = begin(flat)
  assert jax.tree.leaves(params)[0].shape[0] == 1
  assert jax.tree.map(lambda s: s.shape_tuple, workload.param_shapes) == jax.tree.map(
    lambda s: s.shape_tuple, wanted.param_shapes
  )
  assert workload.model_params_types == wanted.model_params_types


def test_parameters_are_kept_without_the_device_axis(flat):
  """So that any backend evaluates them."""
  with_axis = flat.for_submission(PMAP)
  _, params, model_state = begin(with_axis)
  kept = with_axis.pack(
    dict(zip(('params', 'model_state'), with_axis.evaluated(params, model_state), strict=True))
  )
  _, *fresh = begin(flat)
  names = ('params', 'model_state')
  restored = flat.overlay(dict(zip(names, fresh, strict=True)), kept, fixed=names)
  jax.tree.map(np.testing.assert_array_equal, restored['params'], fresh[0])
  assert flat.evaluated(params, model_state) == (params, model_state)


def test_it_needs_all_devices_in_one_process(flat, monkeypatch):
  monkeypatch.setattr(jax, 'local_device_count', lambda: 4)
  with pytest.raises(errors.UserError, match=r'jax\.pmap must have all devices .* 1 of'):
    flat.for_submission(PMAP)
  monkeypatch.undo()
  monkeypatch.setattr(flat, 'world_size', 2)
  with pytest.raises(errors.UserError, match=r'in 2 process'):
    flat.for_submission(PMAP)


EIGHT = """
import jax, jax_toy, numpy as np
from algorithmic_efficiency.backends import jax as backend_jax
from algorithmic_efficiency.backends.base import Devices
flat = backend_jax.start(Devices(platform='cpu', num_devices=8))
backend = flat.for_submission(frozenset({'jax.pmap'}))
workload = backend.workload(jax_toy.definition(), jax_toy.task(), jax_toy.BUDGET)
key_data = np.array([1, 2], np.uint32)
params, state = workload.init_model_fn(backend.key(key_data))
for leaf in jax.tree.leaves((params, state)):
  assert leaf.shape[0] == 8 and len(leaf.sharding.device_set) == 8
  assert all(np.array_equal(copy, leaf[0]) for copy in np.asarray(leaf))
rows = jax_toy.batch(16, 0)
placed = backend.place(rows)
assert placed['inputs'].shape == (8, 2, 6) and len(placed['inputs'].sharding.device_set) == 8
assert np.array_equal(np.asarray(placed['targets']).reshape(16), rows['targets'])

# Each device has averages of its own; their mean is evaluated.
different = jax.tree.map(lambda x: x + np.arange(8.0).reshape(8, *[1] * (x.ndim - 1)), state)
mean = jax.tree.map(lambda x: x[0] + 3.5, state)
one = jax.tree.map(lambda x: x[0], params)
same = flat.workload(jax_toy.definition(), jax_toy.task(), jax_toy.BUDGET)
sums = backend.eval_sums(workload, params, different, [rows, jax_toy.batch(5, 1)], key_data)
wanted = flat.eval_sums(same, one, mean, [rows, jax_toy.batch(5, 1)], key_data)
assert sums['num_examples'] == wanted['num_examples'] == (21.0, 1.0)
np.testing.assert_allclose(sums['loss'], wanted['loss'], rtol=1e-6)

# What is saved of each device comes back to it.
packed = backend.pack({'state': different})
restored = backend.overlay({'state': state}, packed)['state']
for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(different)):
  assert np.array_equal(ours, theirs) and len(ours.sharding.device_set) == 8
"""


@pytest.mark.slow
def test_eight_devices():
  paths = f'import sys; sys.path.insert(0, {str(jax_toy.__file__).rpartition("/")[0]!r})\n'
  subprocess.run([sys.executable, '-c', paths + EIGHT], check=True)
