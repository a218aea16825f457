"""Mixtures: several sources, sampled in given proportions.

Systematic sampling (Madow, 1949) assigns a source to each position, in blocks of 256 positions. In
a block, a source of weight w comes 256 w times, rounded up or down at random. The seed sets the
order within a block. Proportions therefore hold throughout, and the example at a position is a pure
function of the position.
"""

from __future__ import annotations

import hashlib
import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from algorithmic_efficiency import errors, seeds
from algorithmic_efficiency.data import random_numbers
from algorithmic_efficiency.data.pipeline import (
  Passes,
  Shard,
  ShardRows,
  bounds,
  check_sizes,
  shard_of,
)
from algorithmic_efficiency.data.sources import Source, is_source

_BLOCK = 256
_MAX_WEIGHT = 1e300  # so that their sum is a number
_CHUNK = 1024  # blocks whose counts are summed at a time


class Mixture:
  """Sources by name, with their weights.

  Args:
    sources: sources by name, in the order of evaluation.
    weights: positive weight of each source; their sum need not be 1.
    name: name of task and split, for messages.

  Raises:
    UserError: a weight is not a positive number, weights and sources have different names, or a
      source is none or has no examples.
  """

  def __init__(self, sources: Mapping[str, Source], weights: Mapping[str, float], *, name: str):
    if not isinstance(sources, Mapping) or not isinstance(weights, Mapping):
      raise errors.UserError(f'{name}: a mixture needs its sources and its weights by name.')
    if weights.keys() != sources.keys() or not sources:
      raise errors.UserError(
        f'{name}: a mixture has a weight for each of its sources; the sources are '
        f'{", ".join(sources) or "none"}, and the weights those of {", ".join(weights) or "none"}.'
      )
    for source, weight in weights.items():
      if not _is_weight(weight):
        raise errors.UserError(
          f'{name}: the weight of a source must be a positive number; that of {source} is '
          f'{weight!r}.'
        )
    for source, found in sources.items():
      if not is_source(found) or not len(found):
        raise errors.UserError(
          f'{name}: each source of a mixture must give examples by their position, and have one at '
          f'least; {source} does not. Correct it or leave it out.'
        )
    self.sources = dict(sources)
    total = math.fsum(weights.values())
    self.weights = {source: float(weights[source]) / total for source in sources}

  def __len__(self) -> int:
    return sum(map(len, self.sources.values()))


def _is_weight(weight: Any) -> bool:
  return isinstance(weight, numbers.Real) and 0 < float(weight) < _MAX_WEIGHT


class Mixed:
  """The endless order of a mixture; each source has shuffled epochs of its own."""

  num_batches: int | None = None

  def __init__(self, mixture: Mixture, *, batch_size: int, seed: int, shard: Shard = (0, 1)):
    sizes = [len(source) for source in mixture.sources.values()]
    check_sizes(min(sizes), batch_size, shard)
    self.num_examples = sum(sizes)
    self._batch_size = batch_size
    self._seed = seed
    self._shard = shard
    self._edges = np.cumsum(list(mixture.weights.values()))
    self._edges[-1] = 1.0
    self._passes = [
      Passes(size, seeds.derive(seed, 'source', name))
      for name, size in zip(mixture.sources, sizes, strict=True)
    ]
    self._before_chunks: list[np.ndarray] = [np.zeros(len(sizes), np.int64)]
    self._chunk: tuple[int, np.ndarray] = (
      -1,
      np.empty(0),
    )  # the present one, summed block by block
    self._hash = _hash(mixture)

  def rows(self, batch: int) -> ShardRows:
    start, stop = bounds(batch, self._batch_size, self._shard)
    return self.examples(start, stop - start)

  def examples(self, first: int, number: int) -> ShardRows:
    parts, drawn = self._parts(first, first + number)
    indices, epochs = np.empty(number, np.int64), np.empty(number, np.int64)
    by_part = np.argsort(parts, kind='stable')
    present, starts = np.unique(parts[by_part], return_index=True)
    for part, chosen in zip(present.tolist(), np.split(by_part, starts[1:]), strict=True):
      found = self._passes[part].examples(int(drawn[part]), len(chosen))
      indices[chosen], epochs[chosen] = found
    return ShardRows(indices, epochs, None, parts)

  def identity(self) -> dict[str, int]:
    return {'mixture': self._hash, 'batch_size': self._batch_size, 'seed': self._seed}

  def _parts(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the source of each position, int64 [positions], and each source's earlier count."""
    first, last = start // _BLOCK, (stop - 1) // _BLOCK
    parts = np.concatenate([self._block(block) for block in range(first, last + 1)])
    skipped = start - first * _BLOCK
    before = self._drawn_before(first)
    before += np.bincount(parts[:skipped], minlength=len(before))
    return parts[skipped : skipped + stop - start], before

  def _block(self, block: int) -> np.ndarray:
    ends = self._ends(np.array([block]))[0]
    where, of_order = np.array([block]), np.array([1])
    order = np.argsort(
      random_numbers.uniform(self._seed, where, of_order, _BLOCK)[0], kind='stable'
    )
    return np.searchsorted(ends, order, side='right').astype(np.int64)

  def _ends(self, blocks: np.ndarray) -> np.ndarray:
    """Returns the end of each source's share in the grid of each block, int64 [blocks, sources]."""
    offsets = random_numbers.uniform(self._seed, blocks, np.zeros_like(blocks), 1)
    return np.ceil(_BLOCK * self._edges - offsets).astype(np.int64)

  def _drawn_before(self, block: int) -> np.ndarray:
    """Returns the number of examples of each source before a block, int64 [sources]."""
    chunk, rest = divmod(block, _CHUNK)
    while len(self._before_chunks) <= chunk:
      last = self._before_chunks[-1]
      self._before_chunks.append(last + self._counts(len(self._before_chunks) - 1).sum(axis=0))
    if self._chunk[0] != chunk:
      counts = np.cumsum(self._counts(chunk), axis=0)
      self._chunk = (chunk, np.concatenate([np.zeros((1, counts.shape[1]), np.int64), counts]))
    return self._before_chunks[chunk] + self._chunk[1][rest]

  def _counts(self, chunk: int) -> np.ndarray:
    """Returns the count of each source in the blocks of a chunk, int64 [_CHUNK, sources]."""
    blocks = np.arange(chunk * _CHUNK, (chunk + 1) * _CHUNK)
    return np.diff(self._ends(blocks), axis=1, prepend=0)


class OneAfterTheOther:
  """One pass over the sources of a mixture in order; the last batch is padded.

  The first batch is a fair sample of all examples, evenly spaced, since a partial evaluation looks
  at it alone.

  Args:
    num_examples: fewer examples than there are come from evenly spaced positions.
  """

  def __init__(
    self, mixture: Mixture, num_examples: int, *, batch_size: int, shard: Shard = (0, 1)
  ):
    check_sizes(num_examples, batch_size, shard)
    self.num_batches: int | None = math.ceil(num_examples / batch_size)
    self._num_examples = num_examples
    self._ends = np.cumsum([len(source) for source in mixture.sources.values()])
    self._batch_size = batch_size
    self._shard = shard
    self._hash = _hash(mixture)
    num_sampled = min(batch_size, num_examples)
    sample = (2 * np.arange(num_sampled) + 1) * num_examples // (2 * num_sampled)
    self._order = np.concatenate([sample, np.delete(np.arange(num_examples), sample)])

  def rows(self, batch: int) -> ShardRows:
    positions = np.arange(*bounds(batch, self._batch_size, (0, 1)), dtype=np.int64)
    weights = (positions < self._num_examples).astype(np.float32)
    positions = self._order[np.minimum(positions, self._num_examples - 1)]
    positions = positions * int(self._ends[-1]) // self._num_examples
    parts = np.searchsorted(self._ends, positions, side='right').astype(np.int64)
    starts = np.concatenate([[0], self._ends[:-1]])
    indices = positions - starts[parts]
    rows = ShardRows(indices, np.zeros_like(indices), weights, parts)
    return shard_of(rows, self._shard)

  def identity(self) -> dict[str, int]:
    return {
      'mixture': self._hash,
      'num_examples': self._num_examples,
      'batch_size': self._batch_size,
    }


def _hash(mixture: Mixture) -> int:
  """Returns a hash of names, sizes and weights, on which the meaning of a position depends."""
  facts = [(name, len(mixture.sources[name]), mixture.weights[name]) for name in mixture.sources]
  return int.from_bytes(hashlib.sha256(repr(facts).encode()).digest()[:6], 'little')
