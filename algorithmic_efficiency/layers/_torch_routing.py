"""Routing of tokens to experts: choice, capacity, order of dispatch, losses and counts.

Shapes: tokens, choices (`top_k` of each token), experts. An assignment is one choice of one token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch.nn import functional as F

from algorithmic_efficiency.layers._torch_norms import has_ranks, sum_over_ranks
from algorithmic_efficiency.layers.configs import ExpertsConfig
from algorithmic_efficiency.layers.slots import num_slots


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

  experts: torch.Tensor
  weights: torch.Tensor
  is_kept: torch.Tensor
  is_token: torch.Tensor
  probabilities: torch.Tensor
  log_sums: torch.Tensor


class Dispatch(NamedTuple):
  """Slots, in which the assignments of one expert follow each other.

  Attributes:
    slots: slot of each assignment, int [tokens, choices]; the number of slots for one without.
    tokens: token of each slot, int [slots]; the number of tokens for an empty slot.
    sizes: slots of each expert, a multiple of the alignment, int [experts]. The last expert also
      has the empty slots that are left.
  """

  slots: torch.Tensor
  tokens: torch.Tensor
  sizes: torch.Tensor


def route(
  logits: torch.Tensor, is_token: torch.Tensor, config: ExpertsConfig, *, train: bool
) -> Routes:
  """Chooses the experts of each token; see `ExpertsConfig`.

  Args:
    logits: of the router, [tokens, experts], float32 or wider.
    is_token: False for padding, bool [tokens].
    train: True drops assignments beyond the capacity.
  """
  log_sums = logits.logsumexp(-1)
  probabilities = (logits - log_sums[:, None]).exp()
  # torch.topk does not say which of equal ones comes first.
  experts = logits.detach().sort(dim=-1, descending=True, stable=True).indices[:, : config.top_k]
  weights = probabilities.gather(-1, experts)
  if config.top_k > 1:
    weights = weights / weights.sum(-1, keepdim=True)
  is_kept = is_token[:, None].expand(experts.shape)
  if train and config.capacity_factor is not None:
    is_kept = is_kept & _is_within_capacity(
      experts, is_kept, config.num_experts, config.capacity_factor
    )
  return Routes(experts, weights, is_kept, is_token, probabilities, log_sums)


def _is_within_capacity(
  experts: torch.Tensor, is_kept: torch.Tensor, num_experts: int, factor: float
) -> torch.Tensor:
  """Whether an assignment is among those that its expert takes, bool [tokens, choices].

  An assignment counts the earlier ones of its expert in the global batch. The first choices of all
  tokens come first, and the tokens of a rank before those of the next.
  """
  by_choice = torch.where(is_kept, experts, num_experts).T
  keys = by_choice.flatten()
  order, ranks, _ = _by_expert(keys, num_experts)
  local = torch.stack([_counts(one, num_experts) for one in by_choice])  # [choices, experts]
  counts = _of_all_ranks(local)
  position = torch.empty_like(keys).scatter_(0, order, ranks)
  if len(counts) > 1:
    total = counts.sum(0)
    earlier_choices = (total - local).cumsum(0) - (total - local)
    earlier_ranks = counts[: dist.get_rank()].sum(0)
    offsets = F.pad(earlier_choices + earlier_ranks, (0, 1))
    position = position + offsets.gather(1, by_choice).flatten()
  capacity = factor * counts.sum() / num_experts
  return (position < capacity).reshape(by_choice.shape).T


def _of_all_ranks(counts: torch.Tensor) -> torch.Tensor:
  """The counts of every rank, [ranks, ...]."""
  if not has_ranks():
    return counts[None]
  found = [torch.empty_like(counts) for _ in range(dist.get_world_size())]
  dist.all_gather(found, counts)
  return torch.stack(found)


def _by_expert(
  keys: torch.Tensor, num_experts: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
  """Sorts assignments by expert, in their order.

  Args:
    keys: expert of each assignment, int [assignments]; `num_experts` for one without.

  Returns:
    The sorted assignments, int [assignments]; for each of them, the number of earlier ones of its
    expert; and the number of assignments of each expert, int [experts].
  """
  sorted_keys, order = keys.sort(stable=True)
  counts = _counts(keys, num_experts)
  ends = counts.cumsum(0)
  starts = torch.cat([ends - counts, ends[-1:]])
  ranks = torch.arange(len(keys), device=keys.device) - starts[sorted_keys]
  return order, ranks, counts


def _counts(keys: torch.Tensor, num_experts: int) -> torch.Tensor:
  counts = torch.zeros(num_experts + 1, dtype=keys.dtype, device=keys.device)
  return counts.scatter_add_(0, keys, torch.ones_like(keys))[:-1]


def dispatch(routes: Routes, alignment: int) -> Dispatch:
  """Returns the slots of the kept assignments.

  Args:
    alignment: the slots of an expert begin at a multiple of it, and empty ones fill the end.
  """
  num_tokens, top_k = routes.experts.shape
  num_experts = routes.probabilities.shape[-1]
  total = num_slots(num_tokens * top_k, num_experts, alignment)
  keys = torch.where(routes.is_kept, routes.experts, num_experts).flatten()
  order, ranks, counts = _by_expert(keys, num_experts)
  sizes = -(-counts // alignment) * alignment
  ends = sizes.cumsum(0)
  starts = F.pad(ends - sizes, (0, 1), value=total)
  sorted_slots = (starts[keys[order]] + ranks).clamp(max=total)
  slots = torch.empty_like(keys).scatter_(0, order, sorted_slots)
  tokens = torch.full((total + 1,), num_tokens, dtype=keys.dtype, device=keys.device)
  tokens = tokens.scatter_(0, sorted_slots, order // top_k)[:-1]
  sizes = torch.cat([sizes[:-1], sizes[-1:] + (total - ends[-1:])])
  return Dispatch(slots.reshape(routes.experts.shape), tokens, sizes)


def router_losses(routes: Sequence[Routes]) -> dict[str, torch.Tensor]:
  """Returns the auxiliary losses of routers, means over layers; padding does not count.

  `balance` sums, over experts, the share of assignments times the mean probability. It multiplies
  the sum by the number of experts, so that an even load has 1 (Fedus et al., 2022, "Switch
  Transformers"). Assignments count before any is dropped. `router_z` is the mean square of the
  logarithm of the sum of exponentials (Zoph et al., 2022, "ST-MoE"). Both are of the global batch,
  on all ranks.

  Args:
    routes: those of each layer.
  """
  top_k, num_experts = routes[0].experts.shape[-1], routes[0].probabilities.shape[-1]
  weights = routes[0].is_token.to(routes[0].probabilities.dtype)
  load = torch.stack([_load(one).sum(0) for one in routes])  # [layers, experts]
  probability = torch.stack([weights @ one.probabilities for one in routes])
  squares = torch.stack([weights @ one.log_sums.square() for one in routes])
  parts = [load.flatten(), probability.flatten(), squares, weights.sum()[None]]
  totals = sum_over_ranks(torch.cat(parts))
  load, probability, squares, num_tokens = totals.split([len(part) for part in parts])
  num_tokens = num_tokens.clamp(min=1)
  products = (load * probability).sum() / (top_k * num_tokens.square()).squeeze()
  return {
    'balance': num_experts * products / len(routes),
    'router_z': (squares / num_tokens).mean(),
  }


def _load(routes: Routes) -> torch.Tensor:
  """Assignments of each token to each expert, [tokens, experts]; 0 in padding."""
  load = torch.zeros_like(routes.probabilities)
  ones = routes.is_token[:, None].expand(routes.experts.shape).to(load.dtype)
  return load.scatter_(-1, routes.experts, ones)


def router_statistics(routes: Sequence[Routes], batch_size: int) -> dict[str, torch.Tensor]:
  """Returns sums over the positions of each row of a batch; padding does not count.

  Args:
    routes: those of each layer; the tokens are the positions of all rows, row by row.
    batch_size: number of rows.

  Returns:
    `load`: assignments to each expert, before any is dropped, [batch, layers, experts].
    `entropy`: entropy of the probabilities in nats, [batch, layers].
    `num_tokens`: positions that are no padding, [batch].
  """

  def by_row(values: torch.Tensor) -> torch.Tensor:
    return values.reshape(batch_size, -1, *values.shape[1:]).sum(1)

  def by_layer(values: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([by_row(one) for one in values], dim=1)

  dtype = routes[0].probabilities.dtype
  with torch.no_grad():
    return {
      'load': by_layer([_load(one) for one in routes]),
      'entropy': by_layer([_entropy(one) for one in routes]),
      'num_tokens': by_row(routes[0].is_token.to(dtype)),
    }


def _entropy(routes: Routes) -> torch.Tensor:
  entropy = torch.special.entr(routes.probabilities).sum(-1)
  return entropy.masked_fill(~routes.is_token, 0)
