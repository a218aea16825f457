"""The decoder-only Transformer in flax.

Shapes: tokens [batch, length], hidden states [batch, length, dim], kernel [vocab, dim], logits
[batch, length, vocab].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import jax as layers
from algorithmic_efficiency.layers.positions import rotary_table

from .blocks import JAX_NAMES, block_config
from .definition import Decoder, TokenWindows


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
    block = block_config(config, data.sequence_length)
    self.blocks = [layers.Block(block, JAX_NAMES, self.dtype) for _ in range(config.num_layers)]
    if config.norm_position == 'pre':
      self.out_ln = _norm(config, self.dtype)
    if not config.tied_embeddings:
      self.output_proj = _Kernel((config.dim, data.vocab_size), config.init_stddev, self.dtype)

  def __call__(self, tokens: jax.Array, segments: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Returns the last hidden states and the kernel whose product are the logits."""
    config = self.config
    table = rotary_table(tokens.shape[1], config.head_dim, config.rope_theta)
    table = jnp.asarray(table, layers.types(self.dtype)['param_dtype'])
    mask = None if segments is None else layers.segment_mask(segments)
    # Cast after the look-up: gradients of frequent tokens are long sums.
    x = self.embed(tokens).astype(self.dtype)
    for block in self.blocks:
      x = block(x, table=table, mask=mask)
    if config.norm_position == 'pre':
      x = self.out_ln(x)
    kernel = self.embed.embedding if config.tied_embeddings else self.output_proj().T
    return x, kernel


def _norm(config: Decoder, dtype: Any) -> nn.Module:
  return layers.RMSNorm(epsilon=config.rms_norm_epsilon, **layers.types(dtype))


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
  return layers.token_loss(targets, logits, mask, label_smoothing)


def eval_step(
  definition: WorkloadDefinition,
  batch: Mapping[str, jax.Array],
  logits: jax.Array,
) -> tuple[dict[str, tuple[jax.Array, jax.Array]], dict[str, jax.Array]]:
  """Sum and weight of every metric over the tokens that count, and no outputs."""
  targets = batch['targets']
  weights = layers.spread_weights(batch['weights'], targets)
  return layers.token_sums(targets, logits, weights, batch['target_bytes']), {}
