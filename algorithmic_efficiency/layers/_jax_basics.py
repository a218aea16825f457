"""Types, initial weights, activations, norms and dropout of flax models."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from algorithmic_efficiency.layers.configs import Init

# The default variance of flax, E[x²] - E[x]², loses precision by cancellation.
BatchNorm = functools.partial(nn.BatchNorm, use_fast_variance=False)
LayerNorm = functools.partial(nn.LayerNorm, use_fast_variance=False)
RMSNorm = nn.RMSNorm

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
  'gelu': functools.partial(nn.gelu, approximate=False),  # exact, of the error function
  'gelu_tanh': functools.partial(nn.gelu, approximate=True),
  'glu': nn.glu,  # the first half, multiplied by the sigmoid of the second
  'relu': nn.relu,
  'relu2': lambda x: jnp.square(nn.relu(x)),
  'sigmoid': nn.sigmoid,
  'silu': nn.silu,
  'tanh': nn.tanh,
}


def types(dtype: Any) -> dict[str, Any]:
  """Returns the type arguments of a flax layer that computes in `dtype`.

  Parameters are float32 or wider.
  """
  return {'dtype': dtype, 'param_dtype': jnp.promote_types(dtype, jnp.float32)}


def initializer(init: Init, batch_axis: Sequence[int] = ()) -> Any:
  """Returns the initializer of a kernel, as `configs.Init` says.

  Args:
    batch_axis: axes of an array of several kernels that are no axes of a kernel.
  """
  if init == 'lecun_normal':
    return nn.initializers.lecun_normal(batch_axis=batch_axis)
  if init == 'xavier_uniform':
    return nn.initializers.xavier_uniform(batch_axis=batch_axis)
  return nn.initializers.normal(init)


def linear(
  features: int,
  *,
  dtype: Any,
  init: Init = 'lecun_normal',
  use_bias: bool = False,
  bias_stddev: float = 0.0,
  precision: jax.lax.Precision | None = None,
  name: str | None = None,
) -> nn.Dense:
  """Returns a linear layer; `init` and `bias_stddev` say how its kernel and its bias begin.

  Args:
    precision: of the product; None is JAX's default, which rounds float32 on some accelerators.
  """
  return nn.Dense(
    features,
    use_bias=use_bias,
    kernel_init=initializer(init),
    bias_init=nn.initializers.normal(bias_stddev) if bias_stddev else nn.initializers.zeros,
    precision=precision,
    name=name,
    **types(dtype),
  )


class Dropout(nn.Module):
  """Dropout whose rate is an argument of the call, a number or a traced scalar."""

  @nn.compact
  def __call__(self, x: jax.Array, rate: float | jax.Array, *, train: bool) -> jax.Array:
    """Zeroes elements of x with probability `rate` and scales the others by 1 / (1 - rate)."""
    if not is_dropping(rate, train=train):
      return x
    keep = jax.random.bernoulli(self.make_rng('dropout'), 1 - rate, x.shape)
    scale = jnp.where(rate < 1, 1 / (1 - jnp.minimum(rate, 1 - 1e-6)), 0)
    return jnp.where(keep, x * scale.astype(x.dtype), 0)


def is_dropping(rate: float | jax.Array, *, train: bool) -> bool:
  """Whether dropout of this rate may change anything; a traced rate may."""
  return train and not (isinstance(rate, (int, float)) and rate == 0)


def normalize(x: jax.Array, epsilon: float) -> jax.Array:
  """Scales x [..., dim] to Euclidean norm 1 along its last axis, in float32 or wider; 0 stays 0."""
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  squares = jnp.sum(jnp.square(wide), axis=-1, keepdims=True)
  return wide * jax.lax.rsqrt(squares + epsilon**2)
