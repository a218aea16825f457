"""Mixtures of experts in plain numpy: a token, a choice, an expert at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import layer_twin
import numpy as np

from algorithmic_efficiency.layers.configs import ExpertsConfig


def assignments(logits, is_token, config: ExpertsConfig) -> list[tuple[int, int, int]]:
  """(token, choice, expert) of every assignment; the first choices of all tokens come first."""
  found = []
  for choice in range(config.top_k):
    for token in np.flatnonzero(is_token):
      by_likelihood = sorted(range(config.num_experts), key=lambda e: (-logits[token, e], e))
      found.append((int(token), choice, by_likelihood[choice]))
  return found


def kept(found: list[tuple[int, int, int]], config: ExpertsConfig) -> list[tuple[int, int, int]]:
  """What is left where an expert takes no more than its capacity."""
  if config.capacity_factor is None:
    return found
  capacity = config.capacity_factor * len(found) / config.num_experts
  loads = [0] * config.num_experts
  left = []
  for token, choice, expert in found:
    if loads[expert] < capacity:
      left.append((token, choice, expert))
    loads[expert] += 1
  return left


def probabilities(logits):
  exponentials = np.exp(logits - logits.max(-1, keepdims=True))
  return exponentials / exponentials.sum(-1, keepdims=True)


def weight(of_token, chosen: list[int], expert: int) -> float:
  """The weight of a chosen expert in the output of a token."""
  return of_token[expert] / of_token[chosen].sum() if len(chosen) > 1 else of_token[expert]


def experts(config: ExpertsConfig, params: Mapping[str, Any], x, is_token, *, train: bool):
  """x [tokens, dim]; the parameters are those of flax."""
  logits = x @ params['router']['kernel']
  of_tokens = probabilities(logits)
  found = assignments(logits, is_token, config)
  chosen = {token: [one[2] for one in found if one[0] == token] for token, _, _ in found}
  out = np.zeros_like(x)
  for token, _, expert in kept(found, config) if train else found:
    share = weight(of_tokens[token], chosen[token], expert)
    out[token] += share * one_expert(config, params['experts'], expert, x[token])
  return out


def one_expert(config: ExpertsConfig, kernels: Mapping[str, Any], expert: int, x):
  hidden = layer_twin.activation(config.expert.activation, x @ kernels['first'][expert])
  if config.expert.gate != 'none':
    gated = x if config.expert.gate == 'input' else hidden
    hidden = hidden * (gated @ kernels['gate'][expert])
  return hidden @ kernels['last'][expert]


def losses(config: ExpertsConfig, logits_of_layers, is_token) -> dict[str, float]:
  """The auxiliary losses: means over the layers, sums over experts and tokens one by one."""
  balance, router_z = [], []
  num_tokens = is_token.sum()
  for logits in logits_of_layers:
    found = assignments(logits, is_token, config)
    of_tokens = probabilities(logits)
    share = [sum(one[2] == e for one in found) / len(found) for e in range(config.num_experts)]
    mean = [of_tokens[is_token, e].sum() / num_tokens for e in range(config.num_experts)]
    balance.append(config.num_experts * sum(f * p for f, p in zip(share, mean, strict=True)))
    router_z.append((np.log(np.exp(logits[is_token]).sum(-1)) ** 2).sum() / num_tokens)
  return {'balance': float(np.mean(balance)), 'router_z': float(np.mean(router_z))}
