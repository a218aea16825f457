"""The decoder over text, images and audio in flax.

Shapes: B batch, L positions, D width, V vocabulary, R frames of a position, M mel bands.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import jax as layers
from algorithmic_efficiency.layers.losses import add_auxiliary
from algorithmic_efficiency.layers.positions import rotary_table

from . import architecture
from .data_records import AUDIO, IMAGE, PADDING, TEXT, RowForm
from .definition import SparseDecoder

_Batch = Mapping[str, jax.Array]
_PRECISION = jax.lax.Precision.HIGHEST  # of sums, which the default rounds on some accelerators
_matmul = functools.partial(jnp.matmul, precision=_PRECISION)


class _Audio(nn.Module):
  """Two convolutions over time, the second of which joins the frames of a position."""

  config: SparseDecoder
  data: RowForm
  dtype: Any

  @nn.compact
  def __call__(self, frames: jax.Array, is_audio: jax.Array) -> jax.Array:
    """Transforms frames [B, L, R * M] to [B, L, D]; clips apart do not see each other."""
    config, num_frames = self.config, self.data.frames_per_position
    options = {'padding': 'VALID', **layers.types(self.dtype)}
    is_frame = jnp.repeat(is_audio, num_frames, axis=1)[..., None]
    x = frames.reshape(len(frames), -1, self.data.num_mels).astype(self.dtype) * is_frame
    x = nn.Conv(config.audio_dim, (3,), name='conv_0', **options | {'padding': 1})(x)
    x = layers.ACTIVATIONS['gelu'](x) * is_frame
    size = (num_frames,)
    return nn.Conv(config.dim, size, strides=size, name='conv_1', **options)(x)


class _Block(nn.Module):
  config: SparseDecoder
  layer: int
  dtype: Any

  @nn.compact
  def __call__(
    self, x: jax.Array, is_token: jax.Array, *, train: bool, **attention: Any
  ) -> tuple[jax.Array, layers.Routes | None]:
    """Transforms x [B, L, D]; a block with one MLP has no routes."""
    config, routes = self.config, None
    attend = layers.MultiHeadAttention(
      architecture.attention_config(config), config.dim, self.dtype, name='CausalAttn_0'
    )
    x += attend(_norm(config, self.dtype, 'RMSNorm_0')(x), **attention)
    hidden = _norm(config, self.dtype, 'RMSNorm_1')(x)
    experts = architecture.experts_config(config, self.layer)
    if experts is None:
      mlp = architecture.mlp_config(config, self.layer)
      out = layers.FeedForward(mlp, self.dtype, name='Mlp_0')(hidden)
    else:
      out, routes = layers.Experts(experts, self.dtype, name='Experts_0')(
        hidden, is_token, train=train
      )
    return x + out, routes


def _norm(config: SparseDecoder, dtype: Any, name: str | None = None) -> nn.Module:
  return layers.RMSNorm(epsilon=config.rms_norm_epsilon, name=name, **layers.types(dtype))


class _Model(nn.Module):
  definition: WorkloadDefinition
  dtype: Any

  def setup(self) -> None:
    config, data = self.definition.model, self.definition.data
    self.embed = nn.Embed(
      data.vocab_size,
      config.dim,
      embedding_init=nn.initializers.normal(config.init_stddev),
      param_dtype=layers.types(self.dtype)['param_dtype'],
    )
    self.patches = layers.linear(config.dim, dtype=self.dtype)
    if data.has_audio:
      self.audio = _Audio(config, data, self.dtype)
    self.blocks = [_Block(config, layer, self.dtype) for layer in range(config.num_layers)]
    self.out_ln = _norm(config, self.dtype)

  def __call__(self, batch: _Batch, *, train: bool) -> layers.Outputs | jax.Array:
    config, modality = self.definition.model, batch['modality']
    is_token = modality != PADDING
    table = rotary_table(self.definition.data.row_length, config.head_dim, config.rope_theta)
    attention = {
      'mask': layers.segment_mask(batch['segments']),
      'table': jnp.asarray(table, layers.types(self.dtype)['param_dtype']),
      'positions': batch['positions'],
    }
    x, routes = self._inputs(batch, modality), []
    for block in self.blocks:
      x, chosen = block(x, is_token, train=train, **attention)
      routes += [] if chosen is None else [chosen]
    logits = layers.vocab_logits(self.out_ln(x), self.embed.embedding)
    if not routes:
      return logits
    statistics = {} if train else layers.router_statistics(routes, len(x))
    return layers.Outputs(logits, layers.router_losses(routes), statistics)

  def _inputs(self, batch: _Batch, modality: jax.Array) -> jax.Array:
    """Embeds what each position holds, [B, L, D]; padding is 0."""
    # Cast after the look-up: gradients of frequent tokens are long sums.
    x = self.embed(batch['inputs']).astype(self.dtype)
    x = jnp.where((modality == TEXT)[..., None], x, 0)
    x += jnp.where((modality == IMAGE)[..., None], self._images(batch), 0)
    if self.definition.data.has_audio:
      is_audio = modality == AUDIO
      x += jnp.where(is_audio[..., None], self.audio(batch['frames'], is_audio), 0)
    return x

  def _images(self, batch: _Batch) -> jax.Array:
    config, data = self.definition.model, self.definition.data
    wide = layers.types(self.dtype)['param_dtype']
    mean, stddev = jnp.asarray(architecture.pixel_statistics(self.definition), wide)
    table = jnp.asarray(architecture.patch_table(config, data), wide)
    rows, columns = jnp.moveaxis(batch['patch_positions'], -1, 0)
    places = table[rows * data.patches_per_side + columns]
    patches = (batch['patches'].astype(wide) - mean) / stddev
    return self.patches(patches.astype(self.dtype)) + places.astype(self.dtype)


def build(definition: WorkloadDefinition, *, dtype: Any = jnp.float32) -> nn.Module:
  """Returns the model of the definition, which computes in `dtype`, its routers in float32.

  Raises:
    UserError: an expert has no room for a token.
  """
  architecture.check_capacity(definition)
  return _Model(definition, dtype)


def forward(
  model: nn.Module,
  batch: _Batch,
  *,
  train: bool,
  use_running_average: bool,
  dropout_rate: float,
) -> layers.Outputs | jax.Array:
  """Returns the logits [B, L, V] of a bound model, with auxiliary losses if it has routers."""
  return model(batch, train=train)


def loss(
  definition: WorkloadDefinition,
  targets: jax.Array,
  logits: layers.Outputs | jax.Array,
  mask: jax.Array | None = None,
  label_smoothing: float = 0.0,
) -> dict[str, Any]:
  """Computes the cross entropy of tokens, and adds the losses of the routers to the sum.

  Args:
    mask: weight of each sequence [B] or token [B, L]; answers have weight 1 in batches.
  """
  if not isinstance(logits, layers.Outputs):
    return layers.token_loss(targets, logits, mask, label_smoothing)
  losses = layers.token_loss(targets, logits.logits, mask, label_smoothing)
  weights = architecture.auxiliary_weights(definition.model)
  return add_auxiliary(losses, logits.auxiliary, weights)


def eval_step(
  definition: WorkloadDefinition, batch: _Batch, logits: layers.Outputs | jax.Array
) -> tuple[dict[str, Any], dict[str, jax.Array]]:
  """Returns the sums of every metric, and no outputs; the kind of a row is its first task's.

  `router_load` counts the assignments of each layer to each expert, [layers, experts].
  """
  outputs = logits if isinstance(logits, layers.Outputs) else layers.Outputs(logits, {})
  targets = batch['targets']
  losses, is_correct = layers.token_results(targets, outputs.logits)
  weights = layers.spread_weights(batch['weights'], targets).astype(losses.dtype)
  counts = jnp.any(weights != 0, axis=1).astype(losses.dtype)  # [B], 0 for padding
  is_exact = jnp.all(is_correct | (weights == 0), axis=1)
  kinds = jax.nn.one_hot(batch['task'][:, 0], len(definition.task_names), dtype=losses.dtype)
  by_row = jnp.sum(losses * weights, axis=1), jnp.sum(weights, axis=1)
  sums = {
    'accuracy': (jnp.sum(is_correct * weights), jnp.sum(weights)),
    'loss': (jnp.sum(losses * weights), jnp.sum(weights)),
    'loss_of_kind': tuple(_matmul(one, kinds) for one in by_row),
    'exact_match': (_matmul(counts * is_exact, kinds), _matmul(counts, kinds)),
  }
  return sums | _router_sums(outputs.statistics, counts), {}


def _router_sums(statistics: Mapping[str, jax.Array], counts: jax.Array) -> dict[str, Any]:
  """The sums of the rows that count."""
  if not statistics:
    return {}
  entropy, num_tokens = statistics['entropy'], statistics['num_tokens']
  return {
    'router_load': jnp.einsum('b,ble->le', counts, statistics['load'], precision=_PRECISION),
    'router_entropy': (
      jnp.sum(_matmul(counts, entropy)),
      entropy.shape[1] * _matmul(counts, num_tokens),
    ),
  }
