"""Maps the weights of a flax model to those of the same model in PyTorch and back, in numpy.

The `parity.py` of a task lists the pairs. Names on the flax side are paths that begin with the
collection, as in 'params/Dense_0/kernel' or 'batch_stats/BatchNorm_0/mean'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from algorithmic_efficiency.layers.configs import (
  AttentionConfig,
  AttentionNames,
  BlockConfig,
  BlockNames,
  ExpertsConfig,
  FeedForwardConfig,
  FeedForwardNames,
)


@dataclass(frozen=True)
class Pair:
  """One PyTorch array and the flax arrays that it consists of.

  A pair without flax names exists only in PyTorch: an integer scalar that is 0. Two pairs with the
  same flax name are an array that is tied in PyTorch, under both names.

  Attributes:
    torch: name in the state dict.
    jax: names of flax arrays, which PyTorch stacks along its first axis.
    axes: transposition from flax to PyTorch, after heads are merged; None if there is none.
    heads: number of heads of each flax array, whose two axes of heads [..., heads, head_dim, ...]
      are merged in PyTorch. Empty without heads; several arrays are then of one shape.
    heads_axis: first of these two axes.
  """

  jax: tuple[str, ...]
  torch: str
  axes: tuple[int, ...] | None = None
  heads: tuple[int, ...] = ()
  heads_axis: int = 0

  def to_torch(self, arrays: list[np.ndarray]) -> np.ndarray:
    if not arrays:
      return np.zeros((), np.int64)
    if self.heads:
      arrays = [self._merged(array) for array in arrays]
    if self.axes is not None:
      arrays = [array.transpose(self.axes) for array in arrays]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

  def to_jax(self, array: np.ndarray) -> list[np.ndarray]:
    arrays = self._parts(array) if len(self.jax) > 1 else [array] * len(self.jax)
    if self.axes is not None:
      arrays = [array.transpose(np.argsort(self.axes)) for array in arrays]
    if self.heads:
      arrays = [self._by_heads(*one) for one in zip(arrays, self.heads, strict=True)]
    return arrays

  def _merged(self, array: np.ndarray) -> np.ndarray:
    before, after = array.shape[: self.heads_axis], array.shape[self.heads_axis + 2 :]
    return array.reshape(*before, -1, *after)

  def _by_heads(self, array: np.ndarray, heads: int) -> np.ndarray:
    before, after = array.shape[: self.heads_axis], array.shape[self.heads_axis + 1 :]
    return array.reshape(*before, heads, -1, *after)

  def _parts(self, array: np.ndarray) -> list[np.ndarray]:
    if not self.heads:
      return np.split(array, len(self.jax))
    ends = np.cumsum(self.heads) * (len(array) // sum(self.heads))
    return np.split(array, ends[:-1])


def same(jax: str, torch: str) -> Pair:
  """Returns the pair of a parameter that is equal in both frameworks."""
  return Pair((f'params/{jax}',), torch)


def projections(
  jax: Sequence[str], torch: str, *, heads: int | Sequence[int], bias: bool = False
) -> list[Pair]:
  """Returns the pairs of several nn.DenseGeneral [in, heads, head_dim] and one nn.Linear [out, in].

  Args:
    heads: number of heads of all layers, or of each.
  """
  heads = (heads,) * len(jax) if isinstance(heads, int) else tuple(heads)
  kernels, biases = ([f'params/{name}/{leaf}' for name in jax] for leaf in ('kernel', 'bias'))
  pairs = [Pair(tuple(kernels), f'{torch}.weight', (1, 0), heads, heads_axis=1)]
  return [*pairs, Pair(tuple(biases), f'{torch}.bias', None, heads)] if bias else pairs


def merged_heads(jax: str, torch: str, *, heads: int, bias: bool = False) -> list[Pair]:
  """Returns the pairs of nn.DenseGeneral [heads, head_dim, out] and nn.Linear [out, in]."""
  pairs = [Pair((f'params/{jax}/kernel',), f'{torch}.weight', (1, 0), (heads,))]
  return [*pairs, same(f'{jax}/bias', f'{torch}.bias')] if bias else pairs


def attention(
  jax: str,
  torch: str,
  config: AttentionConfig,
  *,
  jax_names: AttentionNames,
  torch_names: AttentionNames,
) -> list[Pair]:
  """Returns the pairs of `MultiHeadAttention`, whose projections PyTorch may share."""
  bias, pairs = config.use_bias, []
  heads = {'query': config.num_heads, 'key': config.kv_heads, 'value': config.kv_heads}
  for name, parts in torch_names.layers.items():
    names = [f'{jax}/{getattr(jax_names, part)}' for part in parts]
    counts = [heads[part] for part in parts]
    pairs += projections(names, f'{torch}.{name}', heads=counts, bias=bias)
  out = f'{jax}/{jax_names.out}', f'{torch}.{torch_names.out}'
  if config.out_by_heads:
    pairs += merged_heads(*out, heads=config.num_heads, bias=bias)
  else:
    pairs += dense(*out, bias=bias)
  if config.query_key_norm is not None:
    pairs.append(same(f'{jax}/{jax_names.scale}', f'{torch}.{torch_names.scale}'))
  return pairs


def feed_forward(
  jax: str, torch: str, config: FeedForwardConfig, *, names: FeedForwardNames
) -> list[Pair]:
  """Returns the pairs of `FeedForward`; the names are those of PyTorch."""
  layers = [names.first, *([] if config.gate == 'none' else [names.gate]), names.last]
  return [
    pair
    for index, name in enumerate(layers)
    for pair in dense(f'{jax}/Dense_{index}', f'{torch}.{name}', bias=config.use_bias)
  ]


def experts(jax: str, torch: str, config: ExpertsConfig) -> list[Pair]:
  """Returns the pairs of `Experts`, whose kernels are [experts, in, out] and [experts, out, in]."""
  jax, torch = (f'{jax}/' if jax else ''), (f'{torch}.' if torch else '')
  names = ['first', *([] if config.expert.gate == 'none' else ['gate']), 'last']
  return [
    *dense(f'{jax}router', f'{torch}router', bias=False),
    *(
      Pair((f'params/{jax}experts/{name}',), f'{torch}experts.{name}', (0, 2, 1)) for name in names
    ),
  ]


def block(
  jax: str,
  torch: str,
  config: BlockConfig,
  *,
  jax_names: BlockNames,
  torch_names: BlockNames,
) -> list[Pair]:
  """Returns the pairs of `Block`."""

  def both(part: str) -> tuple[str, str]:
    return f'{jax}/{getattr(jax_names, part)}', f'{torch}.{getattr(torch_names, part)}'.rstrip('.')

  norm = layer_norm if config.norm == 'layer' else rms_norm
  pairs = [
    pair
    for names in zip(jax_names.norms, torch_names.norms, strict=True)
    for pair in norm(f'{jax}/{names[0]}', f'{torch}.{names[1]}')
  ]
  pairs += attention(
    *both('self_attention'),
    config.self_attention,
    jax_names=jax_names.self_projections,
    torch_names=torch_names.self_projections,
  )
  if config.cross_attention is not None:
    pairs += attention(
      *both('cross_attention'),
      config.cross_attention,
      jax_names=jax_names.cross_projections,
      torch_names=torch_names.cross_projections,
    )
  names = torch_names.feed_forward_layers
  return pairs + feed_forward(*both('feed_forward'), config.feed_forward, names=names)


def dense(jax: str, torch: str, *, bias: bool = True) -> list[Pair]:
  """Returns the pairs of nn.Dense [in, out] and nn.Linear [out, in]."""
  return _weights(jax, torch, (1, 0), bias)


def conv1d(jax: str, torch: str, *, bias: bool = True) -> list[Pair]:
  """Returns the pairs of nn.Conv [length, in, out] and nn.Conv1d [out, in, length]."""
  return _weights(jax, torch, (2, 1, 0), bias)


def conv2d(jax: str, torch: str, *, bias: bool = True) -> list[Pair]:
  """Returns the pairs of nn.Conv [height, width, in, out], nn.Conv2d [out, in, height, width]."""
  return _weights(jax, torch, (3, 2, 0, 1), bias)


def layer_norm(jax: str, torch: str) -> list[Pair]:
  """Returns the pairs of both frameworks' LayerNorm."""
  return [same(f'{jax}/scale', f'{torch}.weight'), same(f'{jax}/bias', f'{torch}.bias')]


def rms_norm(jax: str, torch: str) -> list[Pair]:
  """Returns the pairs of both frameworks' RMSNorm."""
  return [same(f'{jax}/scale', f'{torch}.weight')]


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
