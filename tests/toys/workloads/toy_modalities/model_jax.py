"""Experts over items of several kinds in flax.

Items are [batch, length], logits [batch, length, classes]. Items see the mean of their segment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import jax as layers
from algorithmic_efficiency.layers.losses import add_auxiliary

from .definition import Experts, Modalities


class _Experts(nn.Module):
  config: Experts
  data: Modalities
  dtype: Any

  @nn.compact
  def __call__(
    self, inputs: Mapping[str, jax.Array], segments: jax.Array, weights: jax.Array
  ) -> layers.Outputs:
    config, types = self.config, layers.types(self.dtype)
    x = nn.Embed(self.data.num_classes + 1, config.dim, name='embed', **types)(inputs['text'])
    x += nn.Dense(config.dim, name='image', **types)(inputs['image'])
    x += nn.Dense(config.dim, name='audio', **types)(inputs['audio'])
    is_near = (segments[:, :, None] == segments[:, None, :]).astype(x.dtype)
    x += jnp.einsum('bqk,bkd->bqd', is_near, x) / is_near.sum(axis=-1, keepdims=True)
    routes = nn.Dense(config.num_experts, use_bias=False, name='router', **types)(x)
    probabilities = jax.nn.softmax(routes)
    shape = (config.num_experts, config.dim, config.dim)
    init = nn.initializers.lecun_normal(batch_axis=0)
    kernel = self.param('experts_kernel', init, shape, types['param_dtype'])
    x += jnp.einsum('ble,bld,edf->blf', probabilities, x, kernel.astype(x.dtype))
    logits = nn.Dense(self.data.num_classes, name='out', **types)(x)
    return layers.Outputs(logits, {'balance': _balance(probabilities, weights)})


def _balance(probabilities: jax.Array, weights: jax.Array) -> jax.Array:
  """Returns num_experts times the sum of squares of the experts' shares of the global batch."""
  shares = jnp.einsum('bl,ble->e', weights, probabilities) / weights.sum()
  return probabilities.shape[-1] * jnp.sum(jnp.square(shares))


def build(definition: WorkloadDefinition, *, dtype: Any = jnp.float32) -> nn.Module:
  """Returns the model of the definition."""
  return _Experts(definition.model, definition.data, dtype)


def forward(
  model: nn.Module,
  batch: Mapping[str, Any],
  *,
  train: bool,
  use_running_average: bool,
  dropout_rate: float,
) -> layers.Outputs:
  """Returns the logits of a bound model and its auxiliary loss; it has no dropout."""
  return model(
    batch['inputs'], batch['segments'], layers.spread_weights(batch['weights'], batch['targets'])
  )


def loss(
  definition: WorkloadDefinition,
  targets: jax.Array,
  logits: layers.Outputs,
  mask: jax.Array | None = None,
  label_smoothing: float = 0.0,
) -> dict[str, Any]:
  """Computes the cross entropy of items, and adds the auxiliary loss to the sum."""
  losses = layers.token_loss(targets, logits.logits, mask, label_smoothing)
  weights = {'balance': definition.model.balance_weight}
  return add_auxiliary(losses, logits.auxiliary, weights)


def eval_step(
  definition: WorkloadDefinition, batch: Mapping[str, Any], logits: layers.Outputs
) -> tuple[dict[str, Any], dict[str, jax.Array]]:
  """Returns sum and weight of accuracy and loss over items, those of each task, and no outputs."""
  targets = batch['targets']
  weights = layers.spread_weights(batch['weights'], targets)
  losses = layers.token_loss(targets, logits.logits, weights)
  is_correct = (jnp.argmax(logits.logits, axis=-1) == targets) * weights
  tasks = jax.nn.one_hot(batch['task'], len(definition.task_names))
  by_task = [jnp.einsum('bl,blt->t', values, tasks) for values in (is_correct, weights)]
  sums = {
    'accuracy': (jnp.sum(is_correct), jnp.sum(weights)),
    'loss': (losses['summed'], losses['n_valid_examples']),
    'accuracy_of_task': tuple(by_task),
  }
  return sums, {}
