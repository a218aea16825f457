"""The image classifiers in flax.

Images are [batch, height, width, channels], logits [batch, classes].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import jax as layers

from .definition import ConvNet, Mlp


class _ConvNet(nn.Module):
  config: ConvNet
  num_classes: int
  dtype: Any

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool, use_running_average: bool, dropout_rate: float
  ) -> jax.Array:
    config, types = self.config, layers.types(self.dtype)
    for index, channels in enumerate(config.channels):
      x = nn.Conv(
        channels,
        (3, 3),
        strides=1 if index == 0 else 2,
        padding=1,
        use_bias=config.norm is None,
        **types,
      )(x)
      if config.norm == 'batch':
        x = layers.BatchNorm(
          use_running_average=use_running_average,
          momentum=config.bn_momentum,
          epsilon=config.bn_epsilon,
          **types,
        )(x)
      x = layers.ACTIVATIONS[config.activation](x)
    x = layers.Dropout()(x.reshape(len(x), -1), dropout_rate, train=train)
    small = nn.initializers.variance_scaling(0.1**2, 'fan_in', 'truncated_normal')
    return nn.Dense(self.num_classes, kernel_init=small, **types)(x)


class _Mlp(nn.Module):
  config: Mlp
  num_classes: int
  dtype: Any

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool, use_running_average: bool, dropout_rate: float
  ) -> jax.Array:
    types = layers.types(self.dtype)
    x = nn.Dense(self.config.hidden_dim, **types)(x.reshape(len(x), -1))
    x = layers.ACTIVATIONS[self.config.activation](x)
    x = layers.Dropout()(x, dropout_rate, train=train)
    return nn.Dense(self.num_classes, **types)(x)


_MODELS = {ConvNet: _ConvNet, Mlp: _Mlp}


def build(definition: WorkloadDefinition, *, dtype: Any = jnp.float32) -> nn.Module:
  """Builds the model; kernels are truncated normal with variance 1 / fan-in, biases zero.

  The kernel of the head of `ConvNet` is a tenth of that.
  """
  model = _MODELS[type(definition.model)]
  return model(definition.model, definition.data.num_classes, dtype)


def forward(
  model: nn.Module,
  batch: Mapping[str, jax.Array],
  *,
  train: bool,
  use_running_average: bool,
  dropout_rate: float,
) -> jax.Array:
  """Returns the logits [batch, classes] of a bound model."""
  return model(
    batch['inputs'],
    train=train,
    use_running_average=use_running_average,
    dropout_rate=dropout_rate,
  )


def loss(
  definition: WorkloadDefinition,
  targets: jax.Array,
  logits: jax.Array,
  mask: jax.Array | None = None,
  label_smoothing: float = 0.0,
) -> dict[str, jax.Array]:
  """Computes softmax cross entropy; targets are int [batch] or probabilities [batch, classes]."""
  return layers.class_loss(targets, logits, mask, label_smoothing)


def eval_step(
  definition: WorkloadDefinition, batch: Mapping[str, jax.Array], logits: jax.Array
) -> tuple[dict[str, tuple[jax.Array, jax.Array]], dict[str, jax.Array]]:
  """Returns sum and weight of every metric over the valid examples, and no outputs."""
  weights = batch['weights']
  losses = loss(definition, batch['targets'], logits, weights)
  return layers.class_sums(batch['targets'], logits, losses, weights), {}
