"""Routing of tokens to experts: choice, capacity, order of dispatch, losses and counts.

Shapes: tokens, choices (`top_k` of each token), experts. An assignment is one choice of one token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from algorithmic_efficiency.layers.configs import ExpertsConfig
from algorithmic_efficiency.layers.slots import num_slots

# Of products of the router: the default rounds float32 to fewer bits on GPUs and TPUs.
PRECISION = jax.lax.Precision.HIGHEST


class Routes(NamedTuple):
  """What a router decided.

  Attributes:
    experts: the chosen experts, the likeliest first, int [tokens, choices].
    weights: their weights in the output, [tokens, choices].
    is_kept: False for assignments of padding and for dropped ones, bool [tokens, choices].
    is_token: False for padding, bool [tokens].
    probabilities: of all experts, [tokens, experts].
    log_sums: logarithm of the sum of the exponentials of the router's logits, [tokens].
  """

  experts: jax.Array
  weights: jax.Array
  is_kept: jax.Array
  is_token: jax.Array
  probabilities: jax.Array
  log_sums: jax.Array


class Dispatch(NamedTuple):
  """Slots, in which the assignments of one expert follow each other.

  Attributes:
    slots: slot of each assignment, int [tokens, choices]; the number of slots for one without.
    tokens: token of each slot, int [slots]; the number of tokens for an empty slot.
    sizes: slots of each expert, a multiple of the alignment, int [experts]. The last expert also
      has the empty slots that are left.
  """

  slots: jax.Array
  tokens: jax.Array
  sizes: jax.Array


def route(logits: jax.Array, is_token: jax.Array, config: ExpertsConfig, *, train: bool) -> Routes:
  """Chooses the experts of each token; see `ExpertsConfig`.

  Args:
    logits: of the router, [tokens, experts], float32 or wider.
    is_token: False for padding, bool [tokens].
    train: True drops assignments beyond the capacity.
  """
  log_sums = jax.nn.logsumexp(logits, axis=-1)
  probabilities = jnp.exp(logits - log_sums[:, None])
  _, experts = jax.lax.top_k(logits, config.top_k)  # of equal ones, the first comes first
  weights = jnp.take_along_axis(probabilities, experts, axis=-1)
  if config.top_k > 1:
    weights /= jnp.sum(weights, axis=-1, keepdims=True)
  is_kept = jnp.broadcast_to(is_token[:, None], experts.shape)
  if train and config.capacity_factor is not None:
    is_kept &= _is_within_capacity(experts, is_kept, config.num_experts, config.capacity_factor)
  return Routes(experts, weights, is_kept, is_token, probabilities, log_sums)


def _is_within_capacity(
  experts: jax.Array, is_kept: jax.Array, num_experts: int, factor: float
) -> jax.Array:
  """Whether an assignment is among those that its expert takes, bool [tokens, choices].

  An assignment counts the earlier ones of its expert. The first choices of all tokens come first.
  """
  keys = jnp.where(is_kept, experts, num_experts).T.ravel()
  order, ranks, counts = _by_expert(keys, num_experts)
  capacity = factor * jnp.sum(counts) / num_experts
  is_within = jnp.zeros(len(keys), bool).at[order].set(ranks < capacity)
  return is_within.reshape(experts.shape[::-1]).T


def _by_expert(keys: jax.Array, num_experts: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Sorts assignments by expert, in their order.

  Args:
    keys: expert of each assignment, int [assignments]; `num_experts` for one without.

  Returns:
    The sorted assignments, int [assignments]; for each of them, the number of earlier ones of its
    expert; and the number of assignments of each expert, int [experts].
  """
  order = jnp.argsort(keys, stable=True)
  counts = jnp.sum(keys[:, None] == jnp.arange(num_experts), axis=0, dtype=keys.dtype)
  ends = jnp.cumsum(counts)
  starts = jnp.concatenate([ends - counts, ends[-1:]])
  ranks = jnp.arange(len(keys), dtype=keys.dtype) - starts[keys[order]]
  return order, ranks, counts


def dispatch(routes: Routes, alignment: int) -> Dispatch:
  """Returns the slots of the kept assignments.

  Args:
    alignment: the slots of an expert begin at a multiple of it, and empty ones fill the end.
  """
  num_tokens, top_k = routes.experts.shape
  num_experts = routes.probabilities.shape[-1]
  total = num_slots(num_tokens * top_k, num_experts, alignment)
  keys = jnp.where(routes.is_kept, routes.experts, num_experts).ravel()
  order, ranks, counts = _by_expert(keys, num_experts)
  sizes = -(-counts // alignment) * alignment
  starts = jnp.append(jnp.cumsum(sizes) - sizes, total)
  sorted_slots = jnp.minimum(starts[keys[order]] + ranks, total)
  slots = jnp.zeros_like(keys).at[order].set(sorted_slots, unique_indices=True)
  tokens = jnp.full(total, num_tokens, keys.dtype)
  tokens = tokens.at[sorted_slots].set((order // top_k).astype(keys.dtype), mode='drop')
  sizes = sizes.at[-1].add(total - jnp.sum(sizes, dtype=sizes.dtype))
  return Dispatch(slots.reshape(routes.experts.shape), tokens, sizes)


def router_losses(routes: Sequence[Routes]) -> dict[str, jax.Array]:
  """Returns the auxiliary losses of routers, means over layers; padding does not count.

  `balance` sums, over experts, the share of assignments times the mean probability. It multiplies
  the sum by the number of experts, so that an even load has 1 (Fedus et al., 2022, "Switch
  Transformers"). Assignments count before any is dropped. `router_z` is the mean square of the
  logarithm of the sum of exponentials (Zoph et al., 2022, "ST-MoE"). Both are of the global batch.

  Args:
    routes: those of each layer.
  """
  losses = [_losses(one) for one in routes]
  return {
    name: jnp.mean(jnp.stack([one[name] for one in losses])) for name in ('balance', 'router_z')
  }


def _losses(routes: Routes) -> dict[str, jax.Array]:
  num_experts = routes.probabilities.shape[-1]
  weights = routes.is_token.astype(routes.probabilities.dtype)
  num_tokens = jnp.maximum(jnp.sum(weights), 1)
  load = jnp.sum(_load(routes), axis=0)
  probability = jnp.matmul(weights, routes.probabilities, precision=PRECISION)
  share = load / (routes.experts.shape[-1] * num_tokens)
  return {
    'balance': num_experts * jnp.sum(share * probability) / num_tokens,
    'router_z': jnp.sum(weights * jnp.square(routes.log_sums)) / num_tokens,
  }


def _load(routes: Routes) -> jax.Array:
  """Assignments of each token to each expert, [tokens, experts]; 0 in padding."""
  num_experts = routes.probabilities.shape[-1]
  is_chosen = jnp.any(routes.experts[..., None] == jnp.arange(num_experts), axis=-2)
  return (is_chosen & routes.is_token[:, None]).astype(routes.probabilities.dtype)


def router_statistics(routes: Sequence[Routes], batch_size: int) -> dict[str, jax.Array]:
  """Returns sums over the positions of each row of a batch; padding does not count.

  Args:
    routes: those of each layer; the tokens are the positions of all rows, row by row.
    batch_size: number of rows.

  Returns:
    `load`: assignments to each expert, before any is dropped, [batch, layers, experts].
    `entropy`: entropy of the probabilities in nats, [batch, layers].
    `num_tokens`: positions that are no padding, [batch].
  """

  def by_row(values: jax.Array) -> jax.Array:
    return jnp.sum(values.reshape(batch_size, -1, *values.shape[1:]), axis=1)

  def by_layer(values: list[jax.Array]) -> jax.Array:
    return jnp.stack([by_row(one) for one in values], axis=1)

  dtype = routes[0].probabilities.dtype
  return {
    'load': by_layer([_load(one) for one in routes]),
    'entropy': by_layer([_entropy(one) for one in routes]),
    'num_tokens': by_row(routes[0].is_token.astype(dtype)),
  }


def _entropy(routes: Routes) -> jax.Array:
  entropy = jnp.sum(jax.scipy.special.entr(routes.probabilities), axis=-1)
  return jnp.where(routes.is_token, entropy, 0)
