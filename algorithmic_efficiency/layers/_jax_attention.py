"""Attention: the operation, its masks and positions, and the layer with its projections."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from algorithmic_efficiency.layers._jax_basics import (
  Dropout,
  initializer,
  is_dropping,
  linear,
  normalize,
  types,
)
from algorithmic_efficiency.layers._jax_plain import is_plain
from algorithmic_efficiency.layers.configs import AttentionConfig, AttentionNames

Cache = dict[str, jax.Array]

# Types and sizes that cuDNN's attention supports.
_FUSED_DTYPES = (jnp.bfloat16, jnp.float16)
_FUSED_MAX_HEAD_DIM = 128


def attention(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  *,
  scale: float,
  causal: bool = False,
  mask: jax.Array | None = None,
  bias: jax.Array | None = None,
  dropout: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
  """Computes scaled dot-product attention, with the softmax in float32 or wider.

  On a GPU it uses cuDNN's fused kernel if that supports the type and the size of the heads. Dropout
  and `plain_kernels` prevent that.

  Args:
    query: [batch, query_length, heads, head_dim].
    key: [batch, key_length, kv_heads, head_dim]; each head serves heads / kv_heads of the query.
    value: [batch, key_length, kv_heads, head_dim].
    scale: factor of the dot products.
    causal: True if a position attends only to itself and to earlier positions.
    mask: bool, broadcastable to [batch, heads, query_length, key_length]; True where a query may
      attend to a key. A query that may attend to none gets zeros.
    bias: added to the scaled products; broadcastable to the same shape.
    dropout: applied to the weights of the attention.

  Returns:
    Array of the shape of `query`.
  """
  attends = None
  if mask is not None:
    mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    mask = mask & _causal_mask(query, key) if causal else mask
    attends = jnp.any(mask, axis=-1, keepdims=True)
    mask = mask | ~attends  # no row is empty, so that all gradients are finite
  if dropout is None and _is_fused(query):
    out = jax.nn.dot_product_attention(
      query,
      key,
      value,
      bias=bias,
      mask=mask,
      scale=scale,
      is_causal=causal,
      implementation='cudnn',
    )
  else:
    if causal and mask is None:
      mask = _causal_mask(query, key)
    out = _plain_attention(query, key, value, scale, mask, bias, dropout)
  return out if attends is None else jnp.where(jnp.swapaxes(attends, 1, 2), out, 0)


def _is_fused(query: jax.Array) -> bool:
  head_dim = query.shape[-1]
  return (
    jax.default_backend() == 'gpu'
    and query.dtype in _FUSED_DTYPES
    and head_dim <= _FUSED_MAX_HEAD_DIM
    and head_dim % 8 == 0
    and not is_plain()
  )


def _causal_mask(query: jax.Array, key: jax.Array) -> jax.Array:
  return jnp.tri(query.shape[1], key.shape[1], dtype=bool)


def _plain_attention(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  scale: float,
  mask: jax.Array | None,
  bias: jax.Array | None,
  dropout: Callable[[jax.Array], jax.Array] | None,
) -> jax.Array:
  """As jax.nn.dot_product_attention without cuDNN, except that its softmax is always wide."""
  wide = jnp.promote_types(query.dtype, jnp.float32)
  groups = query.shape[2] // key.shape[2]
  if groups > 1:
    key, value = (jnp.repeat(x, groups, axis=2) for x in (key, value))
  scores = scale * jnp.einsum('bqhd,bkhd->bhqk', query, key, preferred_element_type=wide)
  if bias is not None:
    scores += bias
  if mask is not None:
    scores = jnp.where(mask, scores, jnp.finfo(wide).min)
  weights = jax.nn.softmax(scores)
  if dropout is not None:
    weights = dropout(weights)
  return jnp.einsum('bhqk,bkhd->bqhd', weights.astype(value.dtype), value)


def rotate(x: jax.Array, table: jax.Array, positions: jax.Array | None = None) -> jax.Array:
  """Rotates adjacent pairs of elements of x [batch, length, heads, head_dim] by position.

  Args:
    x: queries or keys.
    table: `positions.rotary_table`, [2, positions, head_dim / 2], in the type of the parameters.
    positions: int [batch, length]; None: 0, 1, 2, ...
  """
  pairs = x.astype(table.dtype).reshape(*x.shape[:-1], -1, 2)
  table = table[:, : x.shape[1]] if positions is None else table[:, positions]
  cos, sin = jnp.expand_dims(table, -2)
  first, second = pairs[..., 0], pairs[..., 1]
  turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
  return turned.reshape(x.shape).astype(x.dtype)


class MultiHeadAttention(nn.Module):
  """Attention between projections of one input, or of an input and a context.

  Attributes:
    config: heads, norm, scale and initial kernels.
    dim: width of the output.
    dtype: type of the computation.
    names: names of the layers.
  """

  config: AttentionConfig
  dim: int
  dtype: Any
  names: AttentionNames = AttentionNames()

  def setup(self) -> None:
    config, names = self.config, self.names
    self._query = self._heads(config.num_heads, names.query)
    self._key = self._heads(config.kv_heads, names.key)
    self._value = self._heads(config.kv_heads, names.value)
    self._out = self._out_layer()
    self._dropout = Dropout()
    if config.query_key_norm is not None:
      init = nn.initializers.constant(config.query_key_norm.initial_scale)
      self._scale = self.param(names.scale, init, (), types(self.dtype)['param_dtype'])

  def __call__(
    self,
    x: jax.Array,
    context: jax.Array | None = None,
    *,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    table: jax.Array | None = None,
    positions: jax.Array | None = None,
    cache: Cache | None = None,
    train: bool = False,
    dropout_rate: float | jax.Array = 0.0,
  ) -> Any:
    """Attends from x [batch, length, dim] to the context, or to x itself.

    Args:
      context: [batch, context_length, dim]; None for self attention.
      mask, bias: those of `attention`.
      table: rotary positions of self attention; see `rotate`.
      positions: positions of x, int [batch, length]; None: those after what the cache holds.
      cache: of `start_cache`, or the `memory` of a context. Write tokens into it in their order.
        The returned cache takes the place of this one. A row of a memory may serve several rows of
        x, which follow each other; the mask is then [memory rows, heads or 1, 1, context_length].
      train: True turns dropout on.
      dropout_rate: probability with which a weight of the attention is zeroed.

    Returns:
      The output [batch, length, dim]; with a cache, the output and the new cache.
    """
    options: dict[str, Any] = {'mask': mask, 'bias': bias}
    if is_dropping(dropout_rate, train=train):
      drop: Any = self._dropout
      options['dropout'] = functools.partial(drop, rate=dropout_rate, train=True)
    if cache is not None and 'index' not in cache:
      return self._attend_shared(self._scaled(self._query(x)), cache, **options), cache
    if context is not None:
      return self._attend(self._scaled(self._query(x)), self.memory(context), **options)
    query, key, value = self._query(x), self._key(x), self._value(x)
    if cache is not None and positions is None:
      positions = _positions(cache, x.shape[1])
    if table is not None:
      query, key = rotate(query, table, positions), rotate(key, table, positions)
    query, held = self._scaled(query), {'key': self._normalized(key), 'value': value}
    if cache is None:
      return self._attend(query, held, causal=self.config.causal, **options)
    cache, seen = extend_cache(cache, held)
    options['mask'] = seen if mask is None else mask & seen
    return self._attend(query, cache, **options), cache

  def memory(self, context: jax.Array) -> Cache:
    """Returns the keys and values of a context, which can be given as the cache of later calls."""
    return {'key': self._normalized(self._key(context)), 'value': self._value(context)}

  def _heads(self, num_heads: int, name: str) -> nn.DenseGeneral:
    return nn.DenseGeneral(
      (num_heads, self.config.head_dim),
      use_bias=self.config.use_bias,
      kernel_init=initializer(self.config.init),
      name=name,
      **types(self.dtype),
    )

  def _out_layer(self) -> nn.Module:
    config, name = self.config, self.names.out
    options: dict[str, Any] = {'use_bias': config.use_bias, 'name': name}
    if not config.out_by_heads:
      return linear(self.dim, init=config.out_init, dtype=self.dtype, **options)
    init = initializer(config.out_init)
    options |= types(self.dtype)
    return nn.DenseGeneral(self.dim, axis=(-2, -1), kernel_init=init, **options)

  def _scaled(self, query: jax.Array) -> jax.Array:
    norm = self.config.query_key_norm
    if norm is None:
      return query
    return (normalize(query, norm.epsilon) * self._scale).astype(self.dtype)

  def _normalized(self, key: jax.Array) -> jax.Array:
    norm = self.config.query_key_norm
    return key if norm is None else normalize(key, norm.epsilon).astype(self.dtype)

  def _attend_shared(self, query: jax.Array, held: Cache, **options: Any) -> jax.Array:
    """Attends to a memory, of which each row serves as many rows of the query."""
    together = query.reshape(len(held['key']), -1, *query.shape[2:])
    out = self._attend(together, held, **options)
    return out.reshape(*query.shape[:2], -1)

  def _attend(self, query: jax.Array, held: Cache, **options: Any) -> jax.Array:
    out = attention(query, held['key'], held['value'], scale=self.config.factor, **options)
    return self._out(out if self.config.out_by_heads else out.reshape(*out.shape[:2], -1))


def start_cache(config: AttentionConfig, batch_size: int, max_length: int, *, dtype: Any) -> Cache:
  """Returns an empty cache of the keys and values of self attention.

  Returns:
    `key` and `value` [batch, max_length, kv_heads, head_dim], and `index` int [batch], the number
    of tokens that each row holds.
  """
  shape = (batch_size, max_length, config.kv_heads, config.head_dim)
  return {
    'key': jnp.zeros(shape, dtype),
    'value': jnp.zeros(shape, dtype),
    'index': jnp.zeros(batch_size, jnp.int32),
  }


def extend_cache(cache: Cache, new: Cache) -> tuple[Cache, jax.Array]:
  """Writes keys and values after those that the cache holds.

  Args:
    cache: of `start_cache`.
    new: `key` and `value` [batch, length, kv_heads, head_dim].

  Returns:
    The new cache, and the mask [batch, 1, length, max_length] of what each new token may see.
  """
  length, max_length = new['key'].shape[1], cache['key'].shape[1]
  positions = _positions(cache, length)
  rows = jnp.arange(len(positions))[:, None]
  written = {
    name: cache[name].at[rows, positions].set(new[name].astype(cache[name].dtype))
    for name in ('key', 'value')
  }
  seen = jnp.arange(max_length) <= positions[:, None, :, None]
  return {**written, 'index': cache['index'] + length}, seen


def _positions(cache: Cache, length: int) -> jax.Array:
  """Positions [batch, length] of the tokens after those that a cache holds."""
  return cache['index'][:, None] + jnp.arange(length, dtype=cache['index'].dtype)
