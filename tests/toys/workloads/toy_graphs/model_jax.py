"""A classifier of graphs in flax: arrays of the graphs, logits [batch, classes]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import jax as layers

from .definition import Graphs, MessagePassing


class _MessagePassing(nn.Module):
  config: MessagePassing
  data: Graphs
  dtype: Any

  @nn.compact
  def __call__(self, graphs: Mapping[str, jax.Array]) -> jax.Array:
    types = layers.types(self.dtype)
    kinds = jax.nn.one_hot(graphs['kinds'], self.data.num_kinds, dtype=self.dtype)
    ends = [_taken(kinds, graphs[end]) for end in ('senders', 'receivers')]
    messages = nn.relu(nn.Dense(self.config.dim, **types)(jnp.concatenate(ends, axis=-1)))
    weights = graphs['edge_weights'].astype(self.dtype)
    pooled = jnp.einsum('be,bed->bd', weights, messages) / weights.sum(axis=1, keepdims=True)
    return nn.Dense(self.data.num_classes, **types)(pooled)


def _taken(nodes: jax.Array, indices: jax.Array) -> jax.Array:
  """Returns the rows of nodes [batch, nodes, dim] at int indices [batch, edges]."""
  return jnp.take_along_axis(nodes, indices[:, :, None], axis=1)


def build(definition: WorkloadDefinition, *, dtype: Any = jnp.float32) -> nn.Module:
  """Returns the model of the definition."""
  return _MessagePassing(definition.model, definition.data, dtype)


def forward(
  model: nn.Module,
  batch: Mapping[str, jax.Array],
  *,
  train: bool,
  use_running_average: bool,
  dropout_rate: float,
) -> jax.Array:
  """Returns the logits of a bound model; it has no dropout."""
  return model(batch['inputs'])


def loss(
  definition: WorkloadDefinition,
  targets: jax.Array,
  logits: jax.Array,
  mask: jax.Array | None = None,
  label_smoothing: float = 0.0,
) -> dict[str, Any]:
  """Computes the cross entropy of the classes, int [batch]."""
  return layers.token_loss(targets, logits, mask, label_smoothing)


def eval_step(
  definition: WorkloadDefinition, batch: Mapping[str, jax.Array], logits: jax.Array
) -> tuple[dict[str, Any], dict[str, jax.Array]]:
  """Returns sum and weight of accuracy and loss, and no outputs."""
  weights = batch['weights']
  losses = loss(definition, batch['targets'], logits, weights)
  return layers.class_sums(batch['targets'], logits, losses, weights), {}
