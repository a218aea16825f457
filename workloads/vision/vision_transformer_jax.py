"""The vision Transformer in flax.

Images are [batch, height, width, channels], patches [batch, patches, width], logits [batch,
classes].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import jax as layers
from algorithmic_efficiency.layers.positions import sine_cosine_2d_table

from . import encoder
from .imagenet import VisionTransformer
from .model_jax import eval_step as eval_step  # as for all classifiers of the task
from .model_jax import loss as loss


class _Encoder(nn.Module):
  config: VisionTransformer
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool, dropout_rate: float) -> jax.Array:
    config = encoder.block_config(self.config)
    for index in range(self.config.depth):
      block = layers.Block(config, encoder.JAX_NAMES, self.dtype, name=f'encoderblock_{index}')
      x = block(x, train=train, dropout_rate=dropout_rate)
    if config.norm_position == 'post':
      return x
    return _norm('encoder_layernorm', self.dtype)(x)


class _AttentionPooling(nn.Module):
  """A learned query attends to the patches (Zhai et al., 2022, "Scaling vision transformers")."""

  config: VisionTransformer
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool, dropout_rate: float) -> jax.Array:
    config, dtype = self.config, self.dtype
    init = nn.initializers.xavier_uniform()
    probe = self.param('probe', init, (1, 1, config.width), layers.types(dtype)['param_dtype'])
    probe = jnp.broadcast_to(probe.astype(dtype), (len(x), 1, config.width))
    attention = layers.MultiHeadAttention(
      encoder.attention_config(config),
      config.width,
      dtype,
      encoder.JAX_POOL_NAMES,
      name='MultiHeadDotProductAttention_0',
    )
    feed_forward = layers.FeedForward(encoder.feed_forward_config(config), dtype, name='MlpBlock_0')
    x = attention(probe, x)
    y = _norm('LayerNorm_0', dtype)(x)
    x += feed_forward(y, train=train, dropout_rate=dropout_rate)
    return x[:, 0]


class _VisionTransformer(nn.Module):
  config: VisionTransformer
  num_classes: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool, dropout_rate: float) -> jax.Array:
    config, dtype = self.config, self.dtype
    options: Any = {'train': train, 'dropout_rate': dropout_rate}
    height, width = (size // config.patch_size for size in x.shape[1:3])
    table = sine_cosine_2d_table(height, width, config.width)
    embed = layers.patch_embedding(
      config.width, patch_size=config.patch_size, dtype=dtype, name='conv_patch_extract'
    )
    x = embed(x) + jnp.asarray(table, dtype)
    x = layers.Dropout()(x, dropout_rate, train=train)
    x = _Encoder(config, dtype, name='Transformer')(x, **options)
    if config.pooling == 'map':
      x = _AttentionPooling(config, dtype, name='MAPHead_0')(x, **options)
    else:
      x = x.mean(axis=1)
    x = layers.linear(config.width, use_bias=True, dtype=dtype, name='pre_logits')(x)
    # Logits of a narrow type would tie.
    wide = jnp.promote_types(dtype, jnp.float32)
    head = layers.linear(self.num_classes, init=0.0, use_bias=True, dtype=wide, name='head')
    return head(jnp.tanh(x))


def _norm(name: str, dtype: Any) -> nn.Module:
  return layers.LayerNorm(epsilon=encoder.LAYER_NORM_EPSILON, name=name, **layers.types(dtype))


def build(definition: WorkloadDefinition, *, dtype: Any = jnp.float32) -> nn.Module:
  """Builds the model, which computes in `dtype`; see `VisionTransformer` for how it begins."""
  return _VisionTransformer(definition.model, definition.data.num_classes, dtype)


def forward(
  model: nn.Module,
  batch: Mapping[str, jax.Array],
  *,
  train: bool,
  use_running_average: bool,
  dropout_rate: float,
) -> jax.Array:
  """Returns the logits [batch, classes] of a bound model."""
  return model(batch['inputs'], train=train, dropout_rate=dropout_rate)
