"""The residual networks in flax.

Images are [batch, height, width, channels], logits [batch, classes].
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import jax as layers

from . import residual
from .imagenet import ResNet
from .model_jax import eval_step as eval_step  # as for all classifiers of the task
from .model_jax import loss as loss


class _Block(nn.Module):
  config: ResNet
  block: residual.Block
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, use_running_average: bool) -> jax.Array:
    config = self.config
    conv = functools.partial(_conv, config, self.dtype)
    norm = functools.partial(_norm, config, self.dtype, use_running_average)
    activation = layers.ACTIVATIONS[config.activation]
    *first, last = self.block.convs
    y = x
    for one in first:
      y = activation(norm()(conv(one)(y)))
    y = norm(scale=config.last_bn_scale)(conv(last)(y))
    if self.block.projection is not None:
      x = norm(name='BatchNorm_proj')(conv(self.block.projection, name='Conv_proj')(x))
    return activation(x + y)


class _ResNet(nn.Module):
  config: ResNet
  num_classes: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, use_running_average: bool) -> jax.Array:
    config, dtype = self.config, self.dtype
    x = _conv(config, dtype, residual.stem(config), name='Conv_init')(x)
    x = _norm(config, dtype, use_running_average, name='BatchNorm_init')(x)
    x = layers.ACTIVATIONS[config.activation](x)
    if config.stem == 'imagenet':
      x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    blocks = [block for stage in residual.stages(config) for block in stage]
    for index, block in enumerate(blocks):
      name = f'{residual.JAX_NAMES[config.block]}_{index}'
      x = _Block(config, block, dtype, name=name)(x, use_running_average=use_running_average)
    # Logits of a narrow type would tie.
    wide = jnp.promote_types(dtype, jnp.float32)
    x = x.mean(axis=(1, 2), dtype=wide)
    head = layers.linear(
      self.num_classes, init=config.head_stddev, use_bias=True, dtype=wide, name='Dense_0'
    )
    return head(x)


def _conv(config: ResNet, dtype: Any, conv: residual.Conv, name: str | None = None) -> nn.Conv:
  return nn.Conv(
    conv.out_channels,
    (conv.size, conv.size),
    strides=conv.stride,
    padding=conv.padding,
    use_bias=config.norm is None,
    name=name,
    **layers.types(dtype),
  )


def _norm(
  config: ResNet,
  dtype: Any,
  use_running_average: bool,
  *,
  scale: float = 1.0,
  name: str | None = None,
) -> Callable[[jax.Array], jax.Array]:
  if config.norm is None:
    return lambda x: x
  return layers.BatchNorm(
    use_running_average=use_running_average,
    momentum=config.bn_momentum,
    epsilon=config.bn_epsilon,
    scale_init=nn.initializers.constant(scale),
    name=name,
    **layers.types(dtype),
  )


def build(definition: WorkloadDefinition, *, dtype: Any = jnp.float32) -> nn.Module:
  """Builds the model, which computes in `dtype`; see `ResNet` for how it begins."""
  return _ResNet(definition.model, definition.data.num_classes, dtype)


def forward(
  model: nn.Module,
  batch: Mapping[str, jax.Array],
  *,
  train: bool,
  use_running_average: bool,
  dropout_rate: float,
) -> jax.Array:
  """Returns the logits [batch, classes] of a bound model; it has no dropout."""
  return model(batch['inputs'], use_running_average=use_running_average)
