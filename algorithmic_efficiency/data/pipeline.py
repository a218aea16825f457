"""The input pipeline of both frameworks: order, load, pad and prefetch, with a position to save.

A batch is a pure function of its number. An order determines the examples of batch k, and a loader
turns them into arrays. Global batches are therefore bit-equal for any number of shards and worker
processes, and a position is a single number.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from algorithmic_efficiency import errors, seeds
from algorithmic_efficiency.data.prefetch import Ahead
from algorithmic_efficiency.data.workers import Workers

Batch = dict[str, Any]  # numpy arrays with the same leading dimension, or tuples of them
Shard = tuple[int, int]  # (index, count): the index-th of `count` contiguous parts of a batch


class ShardRows(NamedTuple):
  """The examples of one shard of a batch, in order.

  Attributes:
    indices: int64 [rows], positions in the split.
    epochs: int64 [rows], number of complete passes over the split before the row.
    weights: float32 [rows], 1 for an example and 0 for padding; None in training, which has no
      padding.
    parts: int64 [rows], index of the source in the mixture; None without a mixture.
  """

  indices: np.ndarray
  epochs: np.ndarray
  weights: np.ndarray | None
  parts: np.ndarray | None = None


class Order(Protocol):
  """Determines the examples of batch k; `num_batches` is None for an endless order."""

  num_batches: int | None

  def rows(self, batch: int) -> ShardRows:
    """Returns the rows of this shard in a batch."""
    ...

  def identity(self) -> dict[str, int]:
    """Returns the parameters under which a saved position means the same examples."""
    ...


Load = Callable[[ShardRows], Batch]  # returns new arrays in each call; picklable for workers


class Stream(Protocol):
  """An iterator of batches, as the `train_stream` and `eval_stream` of a task return it."""

  def __iter__(self) -> Iterator[Batch]: ...

  def __next__(self) -> Batch: ...

  def state(self) -> dict[str, int]:
    """Returns the position after the last batch taken; prefetched batches do not count."""
    ...

  def restore(self, state: dict[str, int]) -> None:
    """Continues from a position that `state` returned.

    Raises:
      ValueError: the position belongs to a stream of another order.
    """
    ...

  def close(self) -> None: ...


class Passes:
  """Endless epochs over `num_examples`, each in a random order that depends on the seed."""

  def __init__(self, num_examples: int, seed: int):
    self._num_examples = num_examples
    self._seed = seed
    self._permutations: dict[int, np.ndarray] = {}

  def examples(self, first: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns indices and epochs, int64 [number], of the positions from `first` on."""
    indices, epochs = np.empty(number, np.int64), np.empty(number, np.int64)
    filled = 0
    while filled < number:
      epoch, offset = divmod(first + filled, self._num_examples)
      piece = self._permutation(epoch)[offset : offset + number - filled]
      indices[filled : filled + len(piece)] = piece
      epochs[filled : filled + len(piece)] = epoch
      filled += len(piece)
    return indices, epochs

  def _permutation(self, epoch: int) -> np.ndarray:
    if epoch not in self._permutations:
      if len(self._permutations) == 2:  # a batch may need the current epoch and the next
        del self._permutations[min(self._permutations)]
      random = seeds.generator(self._seed, 'shuffle', epoch)
      self._permutations[epoch] = random.permutation(self._num_examples)
    return self._permutations[epoch]


class Shuffled:
  """The order of `Passes` over one source.

  A batch may hold the end of one epoch and the start of the next, so every example comes exactly
  once an epoch.

  Raises:
    UserError: the batch size is not positive or not divisible by the number of shards.
    ValueError: there are no examples, or the shard is invalid.
  """

  num_batches: int | None = None

  def __init__(self, *, num_examples: int, batch_size: int, seed: int, shard: Shard = (0, 1)):
    check_sizes(num_examples, batch_size, shard)
    self._num_examples = num_examples
    self._batch_size = batch_size
    self._seed = seed
    self._shard = shard
    self._passes = Passes(num_examples, seed)

  def rows(self, batch: int) -> ShardRows:
    start, stop = bounds(batch, self._batch_size, self._shard)
    return ShardRows(*self._passes.examples(start, stop - start), None)

  def identity(self) -> dict[str, int]:
    return {
      'num_examples': self._num_examples,
      'batch_size': self._batch_size,
      'seed': self._seed,
    }


class InOrder:
  """One pass over `num_examples` in order; the last batch is padded to full size.

  Padding repeats the last example with weight 0, so that models get valid inputs.

  Raises:
    UserError: the batch size is not positive or not divisible by the number of shards.
    ValueError: there are no examples, or the shard is invalid.
  """

  def __init__(self, *, num_examples: int, batch_size: int, shard: Shard = (0, 1)):
    check_sizes(num_examples, batch_size, shard)
    self.num_batches: int | None = math.ceil(num_examples / batch_size)
    self._num_examples = num_examples
    self._batch_size = batch_size
    self._shard = shard

  def rows(self, batch: int) -> ShardRows:
    positions = np.arange(*bounds(batch, self._batch_size, self._shard), dtype=np.int64)
    weights = (positions < self._num_examples).astype(np.float32)
    indices = np.minimum(positions, self._num_examples - 1)
    return ShardRows(indices, np.zeros_like(indices), weights)

  def identity(self) -> dict[str, int]:
    return {'num_examples': self._num_examples, 'batch_size': self._batch_size}


class Maker:
  """Makes batch k of an order. It is picklable if its loader is."""

  def __init__(self, order: Order, load: Load):
    self._order = order
    self._load = load

  def __call__(self, batch: int) -> Batch:
    rows = self._order.rows(batch)
    loaded = self._load(rows)
    if rows.weights is None:
      return loaded
    return {**loaded, 'weights': _masked(loaded.get('weights'), rows.weights)}


class Batches:
  """A stream of the batches of an order.

  Args:
    order: determines the examples of each batch.
    load: turns the examples of a batch into arrays.
    prefetch: number of batches that a background thread makes ahead; 0 makes each on demand.
    num_workers: number of worker processes that make batches; 0 makes them in this process. Each
      worker implies a prefetch of at least 2.
  """

  def __init__(self, order: Order, load: Load, *, prefetch: int = 0, num_workers: int = 0):
    self._order = order
    self._position = 0
    self._closed = False
    self._make = Maker(order, load)
    self._depth = max(prefetch, 2 * num_workers)
    self._ahead: Ahead | None = None
    self._workers = Workers(self._make, num_workers) if num_workers else None

  def __iter__(self) -> Batches:
    return self

  def __next__(self) -> Batch:
    if self._closed:
      raise StopIteration
    if self._order.num_batches is not None and self._position >= self._order.num_batches:
      self.close()
      raise StopIteration
    batch = self._take() if self._depth else self._make(self._position)
    self._position += 1
    return batch

  def state(self) -> dict[str, int]:
    return {'num_batches': self._position, **self._order.identity()}

  def restore(self, state: dict[str, int]) -> None:
    expected = self._order.identity()
    found = {name: state.get(name) for name in expected}
    if found != expected:
      raise ValueError(
        f'A stream continues only from a position of the same order: the stream has {expected}, '
        f'the position has {found}.'
      )
    self._stop_ahead()
    self._position = state['num_batches']

  def close(self) -> None:
    """Ends the background thread and the worker processes. Idempotent."""
    self._closed = True
    if self._workers is not None:
      self._workers.close()
    self._stop_ahead()

  def __del__(self) -> None:
    # Daemon threads cannot be joined while the interpreter exits.
    if hasattr(self, '_workers') and not sys.is_finalizing():
      self.close()

  def _take(self) -> Batch:
    if self._ahead is None:
      self._ahead = Ahead(self._batches_from(self._position), self._depth)
    try:
      return self._ahead.take()
    except BaseException:
      self._stop_ahead()
      raise

  def _batches_from(self, first: int) -> Iterator[Batch]:
    if self._workers is not None:
      return self._workers.results(first, self._order.num_batches)
    return _made(self._make, first, self._order.num_batches)

  def _stop_ahead(self) -> None:
    if self._ahead is not None:
      self._ahead.close()
      self._ahead = None


def _made(make: Maker, first: int, stop: int | None) -> Iterator[Batch]:
  batch = first
  while stop is None or batch < stop:
    yield make(batch)
    batch += 1


def _masked(weights: np.ndarray | None, mask: np.ndarray) -> np.ndarray:
  """Returns the weights of an evaluation batch, [batch, ...]: those of examples, 0 in padding."""
  if weights is None:
    return mask
  return weights * mask.reshape(-1, *[1] * (weights.ndim - 1))


def bounds(batch: int, batch_size: int, shard: Shard) -> tuple[int, int]:
  """Returns the first and one past the last position of a shard in batch k."""
  index, count = shard
  num_rows = batch_size // count
  start = batch * batch_size + index * num_rows
  return start, start + num_rows


def check_sizes(num_examples: int, batch_size: int, shard: Shard) -> None:
  """Checks the sizes of a stream.

  Raises:
    UserError: the batch size is not positive or not divisible by the number of shards.
    ValueError: there are no examples, or the shard is invalid.
  """
  index, count = shard
  if num_examples <= 0:
    raise ValueError(f'A stream must have examples; it has {num_examples}.')
  if batch_size <= 0:
    raise errors.UserError(f'A batch size must be positive; it is {batch_size}.')
  if not 0 <= index < count:
    raise ValueError(f'A shard must be (index, count) with 0 <= index < count; it is {shard}.')
  if batch_size % count:
    raise errors.UserError(
      f'The global batch size must be divisible by the number of processes; {batch_size} is not '
      f'divisible by {count}.'
    )
