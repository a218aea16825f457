"""Layers that several flax models share.

`torch.py` beside this file has the same layers. Weights are initialized as in flax: kernels normal,
truncated at two standard deviations, with variance 1 / fan-in; biases zero.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from algorithmic_efficiency.layers._jax_loss import token_loss as token_loss
from algorithmic_efficiency.layers._jax_loss import token_sums as token_sums
from algorithmic_efficiency.layers._jax_loss import vocab_logits as vocab_logits

# The default variance of flax, E[x²] - E[x]², loses precision by cancellation.
BatchNorm = functools.partial(nn.BatchNorm, use_fast_variance=False)

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
  'glu': nn.glu,  # the first half, multiplied by the sigmoid of the second
  'relu': nn.relu,
  'relu2': lambda x: jnp.square(nn.relu(x)),
  'sigmoid': nn.sigmoid,
}

# Types and sizes that cuDNN's attention supports.
_FUSED_DTYPES = (jnp.bfloat16, jnp.float16)
_FUSED_MAX_HEAD_DIM = 128


class Outputs(NamedTuple):
  """What `forward` returns for a model with auxiliary losses.

  Attributes:
    logits: the logits, as a model without auxiliary losses returns them.
    auxiliary: the auxiliary losses by name, scalars.
  """

  logits: Any
  auxiliary: Mapping[str, Any]


def types(dtype: Any) -> dict[str, Any]:
  """Returns the type arguments of a flax layer that computes in `dtype`.

  Parameters are float32 or wider.
  """
  return {'dtype': dtype, 'param_dtype': jnp.promote_types(dtype, jnp.float32)}


class Dropout(nn.Module):
  """Dropout whose rate is an argument of the call, a number or a traced scalar."""

  @nn.compact
  def __call__(self, x: jax.Array, rate: float | jax.Array, *, train: bool) -> jax.Array:
    """Zeroes elements of x with probability `rate` and scales the others by 1 / (1 - rate)."""
    if not train or (isinstance(rate, (int, float)) and rate == 0):
      return x
    keep = jax.random.bernoulli(self.make_rng('dropout'), 1 - rate, x.shape)
    scale = jnp.where(rate < 1, 1 / (1 - jnp.minimum(rate, 1 - 1e-6)), 0)
    return jnp.where(keep, x * scale.astype(x.dtype), 0)


def attention(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  *,
  scale: float,
  causal: bool = False,
  mask: jax.Array | None = None,
) -> jax.Array:
  """Computes scaled dot-product attention, with the softmax in float32 or wider.

  On a GPU it uses cuDNN's fused kernel if that supports the type and the size of the heads.

  Args:
    query: [batch, query_length, heads, head_dim].
    key: [batch, key_length, heads, head_dim].
    value: [batch, key_length, heads, head_dim].
    scale: factor of the dot products.
    causal: True if a position attends only to itself and to earlier positions.
    mask: bool, broadcastable to [batch, heads, query_length, key_length]; True where a query may
      attend to a key.

  Returns:
    Array of the shape of `query`.
  """
  wide = jnp.promote_types(query.dtype, jnp.float32)
  head_dim = query.shape[-1]
  if (
    jax.default_backend() == 'gpu'
    and query.dtype in _FUSED_DTYPES
    and head_dim <= _FUSED_MAX_HEAD_DIM
    and head_dim % 8 == 0
  ):
    return jax.nn.dot_product_attention(
      query, key, value, mask=mask, scale=scale, is_causal=causal, implementation='cudnn'
    )
  # As jax.nn.dot_product_attention without cuDNN, except that its softmax is always in float32.
  scores = scale * jnp.einsum('bqhd,bkhd->bhqk', query, key, preferred_element_type=wide)
  if causal:
    before = jnp.tri(query.shape[1], key.shape[1], dtype=bool)
    mask = before if mask is None else mask & before
  if mask is not None:
    scores = jnp.where(mask, scores, jnp.finfo(wide).min)
  weights = jax.nn.softmax(scores).astype(value.dtype)
  return jnp.einsum('bhqk,bkhd->bqhd', weights, value)


def rotate(x: jax.Array, table: jax.Array) -> jax.Array:
  """Rotates adjacent pairs of elements of x [batch, length, heads, head_dim] by position.

  Args:
    x: queries or keys.
    table: `positions.rotary_table`, [2, length, head_dim / 2], in the type of the parameters.
  """
  pairs = x.astype(table.dtype).reshape(*x.shape[:-1], -1, 2)
  cos, sin = table[:, : x.shape[1], None]
  first, second = pairs[..., 0], pairs[..., 1]
  turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
  return turned.reshape(x.shape).astype(x.dtype)


def normalize(x: jax.Array, epsilon: float) -> jax.Array:
  """Scales x [..., dim] to Euclidean norm 1 along its last axis, in float32 or wider; 0 stays 0."""
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  squares = jnp.sum(jnp.square(wide), axis=-1, keepdims=True)
  return wide * jax.lax.rsqrt(squares + epsilon**2)


class Mlp(nn.Module):
  """Two linear layers without bias around an activation; 'glu' doubles the width of the first."""

  hidden_dim: int
  activation: str
  stddev: float
  out_stddev: float
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    width = 2 * self.hidden_dim if self.activation == 'glu' else self.hidden_dim
    hidden = linear(width, stddev=self.stddev, dtype=self.dtype)(x)
    hidden = ACTIVATIONS[self.activation](hidden)
    return linear(x.shape[-1], stddev=self.out_stddev, dtype=self.dtype)(hidden)


def linear(features: int, *, stddev: float, dtype: Any, name: str | None = None) -> nn.Dense:
  """Returns a linear layer without bias; its kernel is initialized normal with `stddev`."""
  init = nn.initializers.normal(stddev)
  return nn.Dense(features, use_bias=False, kernel_init=init, name=name, **types(dtype))
