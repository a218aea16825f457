"""Mixtures of experts: tokens are sorted by expert, and each expert multiplies its own.

Shapes: tokens [..., dim], kernels of experts [experts, in, out]. Slots hold the tokens in the order
of their experts.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from algorithmic_efficiency.layers._jax_basics import ACTIVATIONS, initializer, linear, types
from algorithmic_efficiency.layers._jax_plain import is_plain
from algorithmic_efficiency.layers._jax_routing import PRECISION, Dispatch, Routes, dispatch, route
from algorithmic_efficiency.layers.configs import ExpertsConfig, Init
from algorithmic_efficiency.layers.slots import block_size


class Experts(nn.Module):
  """A mixture of experts with its router; see `ExpertsConfig`.

  The router computes in float32 or wider, on every platform.
  """

  config: ExpertsConfig
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, is_token: jax.Array, *, train: bool) -> tuple[jax.Array, Routes]:
    """Transforms x [..., dim].

    Args:
      is_token: False for padding, which gets zeros, bool [...].
      train: True drops assignments beyond the capacity.

    Returns:
      An array of the shape of x, and the routes of its flattened tokens.
    """
    config, tokens = self.config, x.reshape(-1, x.shape[-1])
    wide = types(self.dtype)['param_dtype']
    options = {'init': config.router_init, 'precision': PRECISION, 'name': 'router'}
    router = linear(config.num_experts, dtype=wide, **options)
    routes = route(router(tokens.astype(wide)), is_token.ravel(), config, train=train)
    experts = _Kernels(config, self.dtype, name='experts')
    return experts(tokens, routes).reshape(x.shape), routes


class _Kernels(nn.Module):
  config: ExpertsConfig
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, routes: Routes) -> jax.Array:
    """Returns the weighted outputs of the experts, [tokens, dim]."""
    alignment = _alignment(routes.experts.size, self.config.num_experts)
    plan = dispatch(routes, alignment)
    expert, dim = self.config.expert, x.shape[-1]

    def multiply(name: str, x: jax.Array, out_dim: int, init: Init) -> jax.Array:
      kernels = self._kernels(name, (x.shape[-1], out_dim), init).astype(self.dtype)
      return grouped_matmul(x, kernels, plan.sizes, alignment)

    x = _rows(x.astype(self.dtype), plan.tokens)
    hidden = ACTIVATIONS[expert.activation](multiply('first', x, expert.first_dim, expert.init))
    if expert.gate != 'none':
      gated = x if expert.gate == 'input' else hidden
      hidden *= multiply('gate', gated, expert.hidden_dim, expert.init)
    return _combined(multiply('last', hidden, dim, expert.out_init), plan, routes)

  def _kernels(self, name: str, shape: tuple[int, int], init: Init) -> jax.Array:
    shape_of_all = (self.config.num_experts, *shape)
    dtype = types(self.dtype)['param_dtype']
    return self.param(name, initializer(init, batch_axis=(0,)), shape_of_all, dtype)


def _rows(x: jax.Array, rows: jax.Array) -> jax.Array:
  """Rows of x by number; zeros for the number after the last one."""
  return jnp.take(x, rows, axis=0, mode='fill', fill_value=0)


def _combined(outputs: jax.Array, plan: Dispatch, routes: Routes) -> jax.Array:
  """The weighted sum of the outputs [slots, dim] of each token's experts, [tokens, dim]."""
  chosen = _rows(outputs, plan.slots)  # [tokens, choices, dim]
  return jnp.einsum('tkd,tk->td', chosen, routes.weights.astype(outputs.dtype))


def grouped_matmul(x: jax.Array, kernels: jax.Array, sizes: jax.Array, alignment: int) -> jax.Array:
  """Multiplies consecutive rows with the kernel of their group.

  Args:
    x: [rows, in].
    kernels: [groups, in, out].
    sizes: rows of each group, a multiple of the alignment, int [groups]; their sum is `rows`.
    alignment: rows of a block, which reads the kernel of its group; 1 for the framework's own
      grouped product.

  Returns:
    [rows, out].
  """
  if alignment == 1:
    return jax.lax.ragged_dot(x, kernels, sizes)
  blocks = x.reshape(-1, alignment, x.shape[-1])
  starts = alignment * jnp.arange(len(blocks))
  groups = jnp.sum(starts[:, None] >= jnp.cumsum(sizes), axis=1)
  of_block = jnp.take(kernels, groups, axis=0)  # also of numpy arrays
  return jnp.einsum('bmi,bio->bmo', blocks, of_block).reshape(len(x), -1)


def _alignment(num_assignments: int, num_experts: int) -> int:
  """Returns 1 where `ragged_dot` is faster than blocks, else the size of the blocks."""
  if not is_plain() and _has_ragged_dot(jax.default_backend()):
    return 1
  return block_size(num_assignments, num_experts)


@functools.cache
def _has_ragged_dot(platform: str) -> bool:
  """Whether a compiled `ragged_dot` multiplies each row once, and not with every group's kernel.

  On a CPU it multiplies with every kernel.
  """
  if platform == 'cpu':
    return False
  return _num_products_of_row() < 2


def _num_products_of_row() -> float:
  """How many kernels a compiled `ragged_dot` multiplies a row with, by the compiler's own count."""
  num_rows, dim, num_groups = 256, 64, 8
  shapes = ((num_rows, dim), (num_groups, dim, dim))
  arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes]
  sizes = jax.ShapeDtypeStruct((num_groups,), jnp.int32)
  cost = jax.jit(jax.lax.ragged_dot).lower(*arrays, sizes).compile().cost_analysis()
  return (cost or {}).get('flops', float('inf')) / (2 * num_rows * dim * dim)
