"""The decoder-only Transformer in flax.

Shapes: tokens [batch, length], hidden states [batch, length, dim], kernel [vocab, dim], logits
[batch, length, vocab].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import jax as layers
from algorithmic_efficiency.layers.positions import rotary_table

from .definition import Decoder, TokenWindows


class _CausalAttn(nn.Module):
  config: Decoder
  length: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, table: jax.Array, mask: jax.Array | None) -> jax.Array:
    config, types = self.config, layers.types(self.dtype)

    def heads(name: str) -> jax.Array:
      init = nn.initializers.normal(config.init_stddev)
      features = (config.num_heads, config.head_dim)
      return nn.DenseGeneral(features, use_bias=False, kernel_init=init, name=name, **types)(x)

    query = layers.rotate(heads('query'), table)
    key = layers.rotate(heads('key'), table)
    value = heads('value')
    scale = config.head_dim**-0.5
    if config.qk_norm:
      init = nn.initializers.constant(math.log2(self.length**2 - self.length))
      learned = self.param('attn_scale', init, (), types['param_dtype'])
      query = (layers.normalize(query, config.qk_norm_epsilon) * learned).astype(self.dtype)
      key = layers.normalize(key, config.qk_norm_epsilon).astype(self.dtype)
      scale = 1.0
    out = layers.attention(query, key, value, scale=scale, causal=True, mask=mask)
    project = layers.linear(
      config.dim, stddev=config.residual_stddev, dtype=self.dtype, name='attn_out_proj'
    )
    return project(out.reshape(x.shape))


class _Block(nn.Module):
  config: Decoder
  length: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, table: jax.Array, mask: jax.Array | None) -> jax.Array:
    config = self.config
    attention = _CausalAttn(config, self.length, self.dtype, name='CausalAttn_0')
    mlp = layers.Mlp(
      config.mlp_dim,
      activation=config.mlp,
      stddev=config.init_stddev,
      out_stddev=config.residual_stddev,
      dtype=self.dtype,
    )
    x = self._add(x, lambda x: attention(x, table, mask))
    return self._add(x, mlp)

  def _add(self, x: jax.Array, part: Callable[[jax.Array], jax.Array]) -> jax.Array:
    norm = _norm(self.config, self.dtype)
    return x + part(norm(x)) if self.config.norm_position == 'pre' else norm(x + part(x))


class _Kernel(nn.Module):
  """The kernel of a linear layer that others apply."""

  shape: tuple[int, ...]
  stddev: float
  dtype: Any

  @nn.compact
  def __call__(self) -> jax.Array:
    init = nn.initializers.normal(self.stddev)
    return self.param('kernel', init, self.shape, layers.types(self.dtype)['param_dtype'])


class _Decoder(nn.Module):
  config: Decoder
  data: TokenWindows
  dtype: Any

  def setup(self) -> None:
    config, data = self.config, self.data
    self.embed = nn.Embed(
      data.vocab_size,
      config.dim,
      embedding_init=nn.initializers.normal(config.init_stddev),
      param_dtype=layers.types(self.dtype)['param_dtype'],
    )
    self.blocks = [
      _Block(config, data.sequence_length, self.dtype) for _ in range(config.num_layers)
    ]
    if config.norm_position == 'pre':
      self.out_ln = _norm(config, self.dtype)
    if not config.tied_embeddings:
      self.output_proj = _Kernel((config.dim, data.vocab_size), config.init_stddev, self.dtype)

  def __call__(self, tokens: jax.Array, segments: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Returns the last hidden states and the kernel whose product are the logits."""
    config = self.config
    table = rotary_table(tokens.shape[1], config.head_dim, config.rope_theta)
    table = jnp.asarray(table, layers.types(self.dtype)['param_dtype'])
    mask = None
    if segments is not None:
      mask = (segments[:, :, None] == segments[:, None, :])[:, None]
    # Cast after the look-up: gradients of frequent tokens are long sums.
    x = self.embed(tokens).astype(self.dtype)
    for block in self.blocks:
      x = block(x, table, mask)
    if config.norm_position == 'pre':
      x = self.out_ln(x)
    kernel = self.embed.embedding if config.tied_embeddings else self.output_proj().T
    return x, kernel


def _norm(config: Decoder, dtype: Any) -> nn.RMSNorm:
  return nn.RMSNorm(epsilon=config.rms_norm_epsilon, **layers.types(dtype))


def build(definition: WorkloadDefinition, *, dtype: Any = jnp.float32) -> nn.Module:
  """The definition's model, which computes in `dtype`; see `Decoder` for how it begins."""
  return _Decoder(definition.model, definition.data, dtype)


def forward(
  model: nn.Module,
  batch: Mapping[str, jax.Array],
  *,
  train: bool,
  use_running_average: bool,
  dropout_rate: float,
) -> jax.Array:
  """Logits of a bound model; it has no dropout. Attention stays within `segments`, if given."""
  return layers.vocab_logits(*model(batch['inputs'], batch.get('segments')))


def loss(
  definition: WorkloadDefinition,
  targets: jax.Array,
  logits: jax.Array,
  mask: jax.Array | None = None,
  label_smoothing: float = 0.0,
) -> dict[str, jax.Array]:
  """Cross entropy of tokens; a mask weighs sequences [batch] or tokens [batch, length]."""
  mask = None if mask is None else _of_tokens(mask, targets)
  return layers.token_loss(targets, logits, mask, label_smoothing)


def eval_sums(
  definition: WorkloadDefinition,
  batch: Mapping[str, jax.Array],
  logits: jax.Array,
) -> dict[str, tuple[jax.Array, jax.Array]]:
  """Sum and weight of every metric over the tokens that count."""
  targets = batch['targets']
  weights = _of_tokens(batch['weights'], targets)
  return layers.token_sums(targets, logits, weights, batch['target_bytes'])


def _of_tokens(weights: jax.Array, targets: jax.Array) -> jax.Array:
  weights = weights.reshape(*weights.shape, *[1] * (targets.ndim - weights.ndim))
  return jnp.broadcast_to(weights, targets.shape)
