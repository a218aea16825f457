"""Maps between the weights of a flax model and of its PyTorch twin, as numpy arrays.

A task's `parity.py` lists the pairs of its models; names on the flax side are paths that begin with
the collection, as in 'params/Dense_0/kernel' or 'batch_stats/BatchNorm_0/mean'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Pair:
  """One array under its two names.

  `axes` is the transposition that makes PyTorch's array of flax's. A pair whose flax name is None
  exists in PyTorch alone: an integer scalar that is 0.
  """

  jax: str | None
  torch: str
  axes: tuple[int, ...] | None = None


def dense(jax: str, torch: str, *, bias: bool = True) -> list[Pair]:
  """nn.Dense [in, out] and nn.Linear [out, in]."""
  return _weights(jax, torch, (1, 0), bias)


def conv2d(jax: str, torch: str, *, bias: bool = True) -> list[Pair]:
  """nn.Conv [height, width, in, out] and nn.Conv2d [out, in, height, width]."""
  return _weights(jax, torch, (3, 2, 0, 1), bias)


def batch_norm(jax: str, torch: str) -> list[Pair]:
  return [
    Pair(f'params/{jax}/scale', f'{torch}.weight'),
    Pair(f'params/{jax}/bias', f'{torch}.bias'),
    Pair(f'batch_stats/{jax}/mean', f'{torch}.running_mean'),
    Pair(f'batch_stats/{jax}/var', f'{torch}.running_var'),
    Pair(None, f'{torch}.num_batches_tracked'),
  ]


def _weights(jax: str, torch: str, axes: tuple[int, ...], bias: bool) -> list[Pair]:
  pairs = [Pair(f'params/{jax}/kernel', f'{torch}.weight', axes)]
  return [*pairs, Pair(f'params/{jax}/bias', f'{torch}.bias')] if bias else pairs


def to_torch(
  pairs: Iterable[Pair], params: Mapping[str, Any], model_state: Mapping[str, Any] | None
) -> dict[str, np.ndarray]:
  """The state dict of the PyTorch twin.

  Raises:
    ValueError: an array has no pair, or a pair has no array.
  """
  arrays = dict(_flat({'params': params, **(model_state or {})}))
  result = {}
  for pair in _matching(pairs, 'flax', {pair.jax for pair in pairs} - {None}, set(arrays)):
    if pair.jax is None:
      result[pair.torch] = np.zeros((), np.int64)
    else:
      array = np.asarray(arrays[pair.jax])
      result[pair.torch] = array if pair.axes is None else array.transpose(pair.axes)
  return result


def to_jax(
  pairs: Iterable[Pair], state_dict: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """The flax twin's `(params, model_state)`; the state is empty for a model without one.

  Raises:
    ValueError: an array has no pair, or a pair has no array.
  """
  tree: dict[str, Any] = {'params': {}}
  for pair in _matching(pairs, 'PyTorch', {pair.torch for pair in pairs}, set(state_dict)):
    if pair.jax is None:
      continue
    array = np.asarray(state_dict[pair.torch])
    if pair.axes is not None:
      array = array.transpose(np.argsort(pair.axes))
    *parents, leaf = pair.jax.split('/')
    node = tree
    for name in parents:
      node = node.setdefault(name, {})
    node[leaf] = array
  params = tree.pop('params')
  return params, tree


def _flat(tree: Mapping[str, Any], prefix: str = '') -> Iterable[tuple[str, Any]]:
  for name, value in tree.items():
    if isinstance(value, Mapping):
      yield from _flat(value, f'{prefix}{name}/')
    else:
      yield f'{prefix}{name}', value


def _matching(
  pairs: Iterable[Pair], side: str, paired: set[Any], found: set[str]
) -> Iterable[Pair]:
  if paired != found:
    raise ValueError(
      f'Every array has one pair. Without a pair on the {side} side: '
      f'{sorted(found - paired) or "none"}; without an array: {sorted(paired - found) or "none"}.'
    )
  return pairs
