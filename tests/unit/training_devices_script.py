"""Trains the toy on one device and on a mesh of four, and compares; run by test_training_jax.py."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from algorithmic_efficiency.backends import jax as backend_jax
from algorithmic_efficiency.backends.base import Devices
from tests.unit import training_toys as toys

NUM_STEPS = 5
RNG = np.array([1, 2], np.uint32)


def train(num_devices, **options):
  mesh = Mesh(np.array(jax.devices()[:num_devices]), ('batch',))
  replicated = NamedSharding(mesh, PartitionSpec()) if num_devices > 1 else None
  sharded = NamedSharding(mesh, PartitionSpec('batch')) if num_devices > 1 else None
  # Neither clipped nor divided by its own size, so that the size of the gradient shows.
  point = type(toys.POINT)(**{**vars(toys.POINT), 'grad_clip': None, **options})
  module = toys.submission('external', 'nesterov', 'jax')
  workload = toys.JaxWorkload(step_hint=NUM_STEPS)
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


def main():
  backend_jax.start(Devices(platform='cpu', num_devices=4))
  expected = train(1)
  for options in ({}, {'micro_batches': 2}):
    for name, value in train(4, **options).items():
      np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5)


main()
