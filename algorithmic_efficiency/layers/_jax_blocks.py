"""The parts of Transformers that surround attention: feed-forward layers, blocks and patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from algorithmic_efficiency.layers._jax_attention import Cache, MultiHeadAttention, start_cache
from algorithmic_efficiency.layers._jax_basics import (
  ACTIVATIONS,
  Dropout,
  LayerNorm,
  RMSNorm,
  linear,
  types,
)
from algorithmic_efficiency.layers.configs import BlockConfig, BlockNames, FeedForwardConfig

_NORMS: dict[str, Callable[..., nn.Module]] = {'layer': LayerNorm, 'rms': RMSNorm}


class FeedForward(nn.Module):
  """Linear layers with an activation and optionally a gate; see `FeedForwardConfig`.

  Its layers are `Dense_0`, `Dense_1` and so on, in the order first, gate, last.
  """

  config: FeedForwardConfig
  dtype: Any

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False, dropout_rate: float | jax.Array = 0.0
  ) -> jax.Array:
    """Returns an array of the shape of x; dropout is that of the hidden units."""
    config = self.config

    def layer(features: int, init: Any) -> nn.Dense:
      return linear(
        features,
        init=init,
        use_bias=config.use_bias,
        bias_stddev=config.bias_stddev,
        dtype=self.dtype,
      )

    hidden = ACTIVATIONS[config.activation](layer(config.first_dim, config.init)(x))
    if config.gate != 'none':
      gate = layer(config.hidden_dim, config.init)
      hidden *= gate(x if config.gate == 'input' else hidden)
    hidden = Dropout()(hidden, dropout_rate, train=train)
    return layer(x.shape[-1], config.out_init)(hidden)


def residual(
  x: jax.Array,
  part: Callable[[jax.Array], jax.Array],
  norm: Callable[[jax.Array], jax.Array],
  position: str,
) -> jax.Array:
  """Adds a part of the input to the input.

  Args:
    norm: of the part's input if `position` is 'pre', of the sum if it is 'post'.
  """
  return x + part(norm(x)) if position == 'pre' else norm(x + part(x))


class Block(nn.Module):
  """Self attention, optional cross attention and a feed-forward layer, each with a residual sum.

  Attributes:
    config: the parts and where the norms stand.
    names: the names of the parts.
    dtype: type of the computation.
  """

  config: BlockConfig
  names: BlockNames
  dtype: Any

  def setup(self) -> None:
    config, names = self.config, self.names
    self._self = MultiHeadAttention(
      config.self_attention,
      config.dim,
      self.dtype,
      names.self_projections,
      name=names.self_attention,
    )
    if config.cross_attention is not None:
      self._cross = MultiHeadAttention(
        config.cross_attention,
        config.dim,
        self.dtype,
        names.cross_projections,
        name=names.cross_attention,
      )
    self._feed_forward = FeedForward(config.feed_forward, self.dtype, name=names.feed_forward)
    norm = _NORMS[config.norm]
    options = {'epsilon': config.norm_epsilon, **types(self.dtype)}
    self._norms = [norm(name=name, **options) for name in names.norms]
    self._dropout = Dropout()

  def __call__(
    self,
    x: jax.Array,
    context: jax.Array | None = None,
    *,
    mask: jax.Array | None = None,
    context_mask: jax.Array | None = None,
    table: jax.Array | None = None,
    positions: jax.Array | None = None,
    cache: dict[str, Cache] | None = None,
    train: bool = False,
    dropout_rate: float | jax.Array = 0.0,
    attention_dropout_rate: float | jax.Array = 0.0,
  ) -> Any:
    """Transforms x [batch, length, dim].

    Args:
      context: what cross attention attends to, [batch, context_length, dim]; the cache can hold it.
      mask: mask of self attention; see `attention`.
      context_mask: mask of cross attention.
      table, positions: rotary positions of self attention; see `rotate`.
      cache: of `start_cache`; see `MultiHeadAttention`.
      train: True turns dropout on.
      dropout_rate: probability with which hidden units and outputs of the parts are zeroed.
      attention_dropout_rate: that of the weights of attention.

    Returns:
      [batch, length, dim]; with a cache, this and the new cache.
    """
    new_cache = {} if cache is None else dict(cache)

    def drop(x: jax.Array) -> jax.Array:
      return self._dropout(x, dropout_rate, train=train)

    def attend(kind: str, layer: nn.Module, *inputs: Any, **options: Any) -> jax.Array:
      options |= {'train': train, 'dropout_rate': attention_dropout_rate}
      if cache is None:
        out = layer(*inputs, **options)
      else:
        out, new_cache[kind] = layer(*inputs, cache=cache[kind], **options)
      return drop(out)

    def add(x: jax.Array, part: Callable[[jax.Array], jax.Array], norm: nn.Module) -> jax.Array:
      return residual(x, part, norm, self.config.norm_position)

    options = {'mask': mask, 'table': table, 'positions': positions}
    x = add(x, lambda x: attend('self', self._self, x, **options), self._norms[0])
    if self.config.cross_attention is not None:
      x = add(
        x, lambda x: attend('cross', self._cross, x, context, mask=context_mask), self._norms[1]
      )
    feed = lambda x: self._feed_forward(x, train=train, dropout_rate=dropout_rate)  # noqa: E731
    x = add(x, lambda x: drop(feed(x)), self._norms[-1])
    return x if cache is None else (x, new_cache)

  def start_cache(
    self, x: jax.Array, max_length: int, context: jax.Array | None = None
  ) -> dict[str, Cache]:
    """Returns the empty cache of at most `max_length` tokens.

    Args:
      x: any array of the batch size and the type of the inputs.
      context: what cross attention attends to, [batch, context_length, dim].
    """
    cache = start_cache(self.config.self_attention, len(x), max_length, dtype=x.dtype)
    if context is None:
      return {'self': cache}
    return {'self': cache, 'cross': self._cross.memory(context)}


class PatchEmbedding(nn.Conv):
  """A linear function of each patch of an image, as a convolution whose stride is its size.

  Use `patch_embedding` to make one.
  """

  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns [batch, patches, dim] of images [batch, height, width, channels], row by row.

    Raises:
      ValueError: patches do not divide the images.
    """
    size = self.kernel_size[0]
    if x.shape[1] % size or x.shape[2] % size:
      raise ValueError(
        f'Patches of {size} pixels must divide an image; it has {x.shape[1]} x {x.shape[2]}. '
        'Resize the images.'
      )
    x = super().__call__(x)
    return jnp.reshape(x, (len(x), -1, self.features))


def patch_embedding(
  dim: int, *, patch_size: int, dtype: Any, use_bias: bool = True, name: str | None = None
) -> PatchEmbedding:
  """Returns the layer that embeds the patches of an image."""
  size = (patch_size, patch_size)
  return PatchEmbedding(
    dim, size, strides=size, padding='VALID', use_bias=use_bias, name=name, **types(dtype)
  )
