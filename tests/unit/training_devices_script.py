"""Trains the toy on one device and on a mesh of four, and compares; run by test_training_jax.py."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import jax_toy

from algorithmic_efficiency.backends import jax as backend_jax
from algorithmic_efficiency.backends.base import Devices
from tests.unit import training_toys as toys

NUM_STEPS = 5
BALANCE = 2.0
RNG = np.array([1, 2], np.uint32)


def train(num_devices, balance=0.0, **options):
  mesh = Mesh(np.array(jax.devices()[:num_devices]), ('batch',))
  replicated = NamedSharding(mesh, PartitionSpec()) if num_devices > 1 else None
  sharded = NamedSharding(mesh, PartitionSpec('batch')) if num_devices > 1 else None
  # Neither clipped nor divided by its own size, so that the size of the gradient shows.
  point = type(toys.POINT)(**{**vars(toys.POINT), 'grad_clip': None, **options})
  module = toys.submission('external', 'nesterov', 'jax')
  workload = toys.JaxWorkload(step_hint=NUM_STEPS, balance=balance)
  params = jax.device_put(toys.params(), replicated)
  state = module.init_optimizer_state(workload, params, None, point, RNG)
  for step, batch in enumerate(toys.batches(NUM_STEPS)):
    state, params, _ = module.update_params(
      current_param_container=params,
      model_state=None,
      batch=jax.device_put(batch, sharded),
      optimizer_state=state,
      **toys.update_arguments(workload, point, step, RNG),
    )
  assert state[1]._cache_size() == 1, 'compiled more than once'
  for leaf in jax.tree.leaves((params, state[0])):
    assert leaf.sharding.is_fully_replicated
    assert len(leaf.sharding.device_set) == num_devices
  shapes = {name: value.shape for name, value in params.items()}
  assert shapes == {name: value.shape for name, value in toys.params().items()}
  return jax.device_get(params)


def check_training():
  plain = train(1)
  for options in ({}, {'micro_batches': 2}):
    assert_close(train(4, **options), plain)
  balanced = train(1, balance=BALANCE)
  assert np.abs(balanced['bias_1'] - plain['bias_1']).max() > 1e-3
  for num_devices in (2, 4):
    assert_close(train(num_devices, balance=BALANCE), balanced)


def assert_close(params, expected):
  for name, value in params.items():
    np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5)


def check_task_losses(backend):
  """Losses by task of examples on four devices are those of all examples."""
  definition = jax_toy.definition(task_names=('a', 'b', 'none'))
  workload = backend.workload(definition, jax_toy.task(), jax_toy.BUDGET)
  batch = {**jax_toy.batch(16, 0, 13), 'task': np.arange(16, dtype=np.int32) % 2}
  logits = np.random.default_rng(0).normal(size=(16, jax_toy.NUM_CLASSES)).astype(np.float32)

  @jax.jit
  def by_task(batch, logits):
    return workload.task_losses(batch['targets'], logits, batch['weights'], batch['task'])

  found = by_task(*backend.place({'batch': batch, 'logits': logits}).values())
  for name, values in by_task(batch, logits).items():
    np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)
  assert found['n_valid_examples'].tolist() == [7, 6, 0]


def main():
  backend = backend_jax.start(Devices(platform='cpu', num_devices=4))
  check_training()
  check_task_losses(backend)


main()
