"""NAdamW that also computes the inverse root of a matrix every 20 steps, as Shampoo does.

The root changes no update. What is measured is that its work comes at every twentieth step.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from algorithmic_efficiency import spec
from algorithmic_efficiency.training import jax as training
from algorithmic_efficiency.training.batch_size import get_batch_size
from algorithmic_efficiency.training.jax import data_selection, update_params
from algorithmic_efficiency.training.options import StepOptions

__all__ = ['data_selection', 'get_batch_size', 'init_optimizer_state', 'update_params']

PERIOD = 20  # steps
SIZE = 640  # rows of the matrix: its root takes as long as about ten steps of quick_vision


class _State(NamedTuple):
  count: jax.Array
  root: jax.Array  # [row, column]


def init_optimizer_state(
  workload: spec.Workload,
  model_params: spec.ParameterContainer,
  model_state: spec.ModelAuxiliaryState,
  hyperparameters: spec.Hyperparameters,
  rng: spec.RandomState,
) -> spec.OptimizerState:
  optimizer = optax.chain(inverse_roots(), optax.nadamw(1e-3))
  return training.start(workload, model_params, model_state, optimizer, StepOptions())


def inverse_roots() -> optax.GradientTransformation:
  """Keeps the inverse fourth root of a matrix that depends on the gradients; leaves them alone."""

  def init(params: optax.Params) -> _State:
    return _State(count=jnp.zeros([], jnp.int32), root=jnp.eye(SIZE))

  def update(
    updates: optax.Updates, state: _State, params: optax.Params | None = None
  ) -> tuple[optax.Updates, _State]:
    root = jax.lax.cond(
      state.count % PERIOD == 0,
      lambda: _inverse_root(optax.global_norm(updates)),
      lambda: state.root,
    )
    return updates, _State(count=state.count + 1, root=root)

  return optax.GradientTransformation(init, update)


def _inverse_root(scale: jax.Array) -> jax.Array:
  rows = jnp.arange(SIZE, dtype=jnp.float32)
  matrix = jnp.eye(SIZE) + scale * jnp.exp(-jnp.abs(rows[:, None] - rows) / SIZE)
  values, vectors = jnp.linalg.eigh(matrix)
  return (vectors * jnp.maximum(values, 1e-6) ** -0.25) @ vectors.T
