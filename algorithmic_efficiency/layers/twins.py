"""Maps the weights of a flax model to those of the same model in PyTorch and back, in numpy.

The `parity.py` of a task lists the pairs. Names on the flax side are paths that begin with the
collection, as in 'params/Dense_0/kernel' or 'batch_stats/BatchNorm_0/mean'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Pair:
  """One PyTorch array and the flax arrays that it consists of.

  A pair without flax names exists only in PyTorch: an integer scalar that is 0. Two pairs with the
  same flax name are an array that is tied in PyTorch, under both names.

  Attributes:
    torch: name in the state dict.
    jax: names of flax arrays of one shape, which PyTorch stacks along its first axis.
    axes: transposition from flax to PyTorch; None if there is none.
    heads: number of heads of flax arrays [in, heads, head_dim], which are first reshaped to
      [in, heads * head_dim]; None without heads.
  """

  jax: tuple[str, ...]
  torch: str
  axes: tuple[int, ...] | None = None
  heads: int | None = None

  def to_torch(self, arrays: list[np.ndarray]) -> np.ndarray:
    if not arrays:
      return np.zeros((), np.int64)
    if self.heads is not None:
      arrays = [array.reshape(len(array), -1) for array in arrays]
    if self.axes is not None:
      arrays = [array.transpose(self.axes) for array in arrays]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

  def to_jax(self, array: np.ndarray) -> list[np.ndarray]:
    arrays = np.split(array, len(self.jax)) if len(self.jax) > 1 else [array] * len(self.jax)
    if self.axes is not None:
      arrays = [array.transpose(np.argsort(self.axes)) for array in arrays]
    if self.heads is not None:
      arrays = [array.reshape(len(array), self.heads, -1) for array in arrays]
    return arrays


def same(jax: str, torch: str) -> Pair:
  """Returns the pair of a parameter that is equal in both frameworks."""
  return Pair((f'params/{jax}',), torch)


def projections(jax: Iterable[str], torch: str, *, heads: int) -> Pair:
  """Returns the pair of several nn.DenseGeneral [in, heads, head_dim] and one nn.Linear [out, in].

  The layers have no bias.
  """
  return Pair(tuple(f'params/{name}/kernel' for name in jax), f'{torch}.weight', (1, 0), heads)


def dense(jax: str, torch: str, *, bias: bool = True) -> list[Pair]:
  """Returns the pairs of nn.Dense [in, out] and nn.Linear [out, in]."""
  return _weights(jax, torch, (1, 0), bias)


def conv2d(jax: str, torch: str, *, bias: bool = True) -> list[Pair]:
  """Returns the pairs of nn.Conv [height, width, in, out], nn.Conv2d [out, in, height, width]."""
  return _weights(jax, torch, (3, 2, 0, 1), bias)


def batch_norm(jax: str, torch: str) -> list[Pair]:
  """Returns the pairs of nn.BatchNorm and nn.BatchNorm1d or nn.BatchNorm2d."""
  return [
    same(f'{jax}/scale', f'{torch}.weight'),
    same(f'{jax}/bias', f'{torch}.bias'),
    Pair((f'batch_stats/{jax}/mean',), f'{torch}.running_mean'),
    Pair((f'batch_stats/{jax}/var',), f'{torch}.running_var'),
    Pair((), f'{torch}.num_batches_tracked'),
  ]


def _weights(jax: str, torch: str, axes: tuple[int, ...], bias: bool) -> list[Pair]:
  pairs = [Pair((f'params/{jax}/kernel',), f'{torch}.weight', axes)]
  return [*pairs, same(f'{jax}/bias', f'{torch}.bias')] if bias else pairs


def to_torch(
  pairs: Sequence[Pair], params: Mapping[str, Any], model_state: Mapping[str, Any] | None
) -> dict[str, np.ndarray]:
  """Converts flax variables to a PyTorch state dict.

  Raises:
    ValueError: an array has no pair, or a pair has no array.
  """
  arrays = dict(_flat({'params': params, **(model_state or {})}))
  _check('flax', {name for pair in pairs for name in pair.jax}, set(arrays))
  return {pair.torch: pair.to_torch([np.asarray(arrays[n]) for n in pair.jax]) for pair in pairs}


def to_jax(
  pairs: Sequence[Pair], state_dict: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Converts a PyTorch state dict to flax `(params, model_state)`; a stateless model has {}.

  Raises:
    ValueError: an array has no pair, a pair has no array, or a tied array has two values.
  """
  _check('PyTorch', {pair.torch for pair in pairs}, set(state_dict))
  arrays: dict[str, np.ndarray] = {}
  for pair in pairs:
    for name, array in zip(pair.jax, pair.to_jax(np.asarray(state_dict[pair.torch])), strict=True):
      if not np.array_equal(array, arrays.setdefault(name, array), equal_nan=True):
        raise ValueError(f'A tied array has one value; {pair.torch} differs from its twin.')
  tree: dict[str, Any] = {'params': {}}
  for path, array in arrays.items():
    *parents, leaf = path.split('/')
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


def _check(side: str, paired: set[str], found: set[str]) -> None:
  if paired != found:
    raise ValueError(
      f'Every array has one pair. Without a pair on the {side} side: '
      f'{sorted(found - paired) or "none"}; without an array: {sorted(paired - found) or "none"}.'
    )
