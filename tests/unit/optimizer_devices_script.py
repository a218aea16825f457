"""Trains the toy with optimizers of optax on one device and on a mesh of two, and compares.

Usage: optimizer_devices_script.py NAME...
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import optimizer_toys

from algorithmic_efficiency.backends import jax as backend_jax
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.optimizers import jax as jax_optimizers
from tests.unit import training_toys as toys

NUM_STEPS = 4


def train(name, num_devices):
  """The parameters that are evaluated after some steps, with an evaluation on the way."""
  mesh = Mesh(np.array(jax.devices()[:num_devices]), ('batch',))
  replicated = NamedSharding(mesh, PartitionSpec()) if num_devices > 1 else None
  sharded = NamedSharding(mesh, PartitionSpec('batch')) if num_devices > 1 else None
  workload = optimizer_toys.with_roles(toys.JaxWorkload(NUM_STEPS), outputs_first=False)
  params = jax.device_put(toys.params(), replicated)
  settings = optimizer_toys.settings(name, optimizer_toys.OPTAX[name])
  state = jax_optimizers.start(workload, params, None, settings)
  for step, batch in enumerate(toys.batches(NUM_STEPS)):
    common = toys.update_arguments(workload, None, step, np.array([step, 2], np.uint32))
    state, params, _ = jax_optimizers.update_params(
      current_param_container=params,
      model_state=None,
      batch=jax.device_put(batch, sharded),
      optimizer_state=state,
      **common,
    )
    if step in (1, NUM_STEPS - 1):
      state, params, _ = jax_optimizers.prepare_for_eval(
        current_param_container=params, model_state=None, optimizer_state=state, **common
      )
  for leaf in jax.tree.leaves(params):
    assert leaf.sharding.is_fully_replicated
    assert len(leaf.sharding.device_set) == num_devices
  return jax.device_get(params)


def main(names):
  backend_jax.start(Devices(platform='cpu', num_devices=2))
  for name in names:
    expected = train(name, 1)
    for key, value in train(name, 2).items():
      np.testing.assert_allclose(value, expected[key], rtol=1e-3, atol=1e-4, err_msg=name)


main(sys.argv[1:])
