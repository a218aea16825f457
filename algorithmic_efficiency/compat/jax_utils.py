"""AlgoPerf's `jax_utils`."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp


class Dropout(nn.Module):
  """Sets values to zero with a probability that the call may give, and scales up the others.

  Attributes:
    rate: the probability where the call gives none.
    broadcast_dims: axes along which all values share their fate.
    deterministic: True for no dropout; the call may say it instead.
    rng_collection: stream of random keys.
  """

  rate: float | None = None
  broadcast_dims: Sequence[int] = ()
  deterministic: bool | None = None
  rng_collection: str = 'dropout'

  @nn.compact
  def __call__(
    self,
    inputs: jax.Array,
    deterministic: bool | None = None,
    rate: float | jax.Array | None = None,
    rng: jax.Array | None = None,
  ) -> jax.Array:
    """Returns an array of the shape and type of `inputs`.

    Raises:
      ValueError: `deterministic` or the rate is given nowhere, or `deterministic` twice.
    """
    deterministic = nn.merge_param('deterministic', self.deterministic, deterministic)
    rate = self.rate if rate is None else rate
    if rate is None:
      raise ValueError('Dropout needs a rate: give one to the module or to its call.')
    if deterministic:
      return inputs
    rng = self.make_rng(self.rng_collection) if rng is None else rng
    shape = [1 if axis in self.broadcast_dims else size for axis, size in enumerate(inputs.shape)]
    keep = jax.random.bernoulli(rng, 1.0 - rate, shape)
    # With a rate of 1 nothing is kept, and nothing may be divided by zero.
    scale = jnp.where(rate < 1.0, 1.0 / jnp.maximum(1.0 - rate, 1e-9), 0.0)
    return jnp.where(keep, inputs * scale.astype(inputs.dtype), jnp.zeros_like(inputs))
