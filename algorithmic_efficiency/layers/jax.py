"""What several flax models share.

Every layer has a twin of the same meaning in `torch.py` beside this file. Weights begin as flax has
them: kernels normal, truncated at two standard deviations, variance 1 / fan-in; biases zero.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

# By default flax takes the mean of the squares less the square of the mean, which cancels badly.
BatchNorm = functools.partial(nn.BatchNorm, use_fast_variance=False)

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
  'relu': nn.relu,
  'sigmoid': nn.sigmoid,
}


def types(dtype: Any) -> dict[str, Any]:
  """Type arguments of a flax layer that computes in `dtype`: parameters are at least float32."""
  return {'dtype': dtype, 'param_dtype': jnp.promote_types(dtype, jnp.float32)}


class Dropout(nn.Module):
  """Dropout whose rate is given at the call, as a number or as a traced scalar."""

  @nn.compact
  def __call__(self, x: jax.Array, rate: float | jax.Array, *, train: bool) -> jax.Array:
    """Zeroes elements of x with probability `rate` and scales the others by 1 / (1 - rate)."""
    if not train or (isinstance(rate, (int, float)) and rate == 0):
      return x
    keep = jax.random.bernoulli(self.make_rng('dropout'), 1 - rate, x.shape)
    scale = jnp.where(rate < 1, 1 / (1 - jnp.minimum(rate, 1 - 1e-6)), 0)
    return jnp.where(keep, x * scale.astype(x.dtype), 0)
