"""The word-by-word translator in flax: words [batch, length], logits [batch, length, vocab]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import jax as layers


class _WordByWord(nn.Module):
  dim: int
  vocab_size: int
  dtype: Any

  @nn.compact
  def __call__(self, words: jax.Array) -> jax.Array:
    types = layers.types(self.dtype)
    x = nn.Embed(self.vocab_size, self.dim, **types)(words)
    return nn.Dense(self.vocab_size, **types)(x)


def build(definition: WorkloadDefinition, *, dtype: Any = jnp.float32) -> nn.Module:
  """Returns the model of the definition."""
  return _WordByWord(definition.model.dim, definition.data.vocab_size, dtype)


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
  """Computes the cross entropy of words; a mask weighs sentences [batch] or words."""
  return layers.token_loss(targets, logits, mask, label_smoothing)


def eval_step(
  definition: WorkloadDefinition, batch: Mapping[str, jax.Array], logits: jax.Array
) -> tuple[dict[str, Any], dict[str, jax.Array]]:
  """Returns sum and weight of accuracy and loss over words, and no outputs."""
  targets = batch['targets']
  weights = layers.spread_weights(batch['weights'], targets)
  losses = layers.token_loss(targets, logits, weights)
  return layers.class_sums(targets, logits, losses, weights), {}


def generate(
  definition: WorkloadDefinition, model: nn.Module, batch: Mapping[str, jax.Array], *, is_last: bool
) -> dict[str, jax.Array]:
  """Returns the likeliest words, int32 [batch, length]."""
  return {'words': jnp.argmax(model(batch['inputs']), axis=-1).astype(jnp.int32)}
