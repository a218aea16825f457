"""The input pipeline of both frameworks: order, load, pad and make ahead, with a position to save.

A batch is a pure function of its number. An order determines the examples of batch k, and a loader
turns them into arrays. Global batches are therefore bit-equal for any number of shards and worker
processes, and a position is a single number.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import numpy as np

from algorithmic_efficiency import errors, seeds
from algorithmic_efficiency.data.workers import Workers

AHEAD_PER_WORKER = 2  # batches that are made ahead, for each worker process

Batch = dict[str, Any]  # a tree of numpy arrays with the same leading dimension
Shard = tuple[int, int]  # (index, count): the index-th of `count` contiguous parts of a batch


class ShardRows(NamedTuple):
  """The examples of one shard of a batch, in order.

  Attributes:
    indices: int64 [examples], positions in the split, or in their source of a mixture.
    epochs: int64 [examples], number of complete passes over the split before the example.
    weights: float32 [examples], 1 for an example and 0 for padding; None in training, which has no
      padding.
    parts: int64 [examples], index of the source in the mixture; None without a mixture.
    edges: int64 [rows + 1]; packed row r holds the examples from edges[r] to edges[r + 1]. None
      where each example is a row.
    keys: uint64 [examples], for `random_numbers.draws`: augmentation by a loader. None in
      evaluation, and where a transform draws.
    of_batch: all rows of an evaluated batch, of which these are a part; else None.
  """

  indices: np.ndarray
  epochs: np.ndarray
  weights: np.ndarray | None
  parts: np.ndarray | None = None
  edges: np.ndarray | None = None
  keys: np.ndarray | None = None
  of_batch: ShardRows | None = None

  @property
  def whole(self) -> ShardRows:
    """All rows of an evaluated batch: its shards must have one shape."""
    return self if self.of_batch is None else self.of_batch

  @property
  def num_rows(self) -> int:
    """The leading dimension of the batch."""
    return len(self.indices) if self.edges is None else len(self.edges) - 1


class Order(Protocol):
  """Determines the examples of batch k; `num_batches` is None for an endless order."""

  num_batches: int | None

  def rows(self, batch: int) -> ShardRows:
    """Returns the rows of this shard in a batch."""
    ...

  def identity(self) -> dict[str, int]:
    """Returns the parameters under which a saved position means the same examples."""
    ...


class Endless(Order, Protocol):
  """An endless order, which gives the examples of any positions."""

  num_examples: int

  def examples(self, first: int, number: int) -> ShardRows:
    """Returns the examples of the positions from `first` on."""
    ...


Load = Callable[[ShardRows], Batch]  # returns new arrays in each call; picklable for workers
Finish = Callable[[int, Batch], Batch]  # called with the number of a batch; picklable for workers


class Stream(Protocol):
  """An iterator of batches, as the `train_stream` and `eval_stream` of a task return it."""

  def __iter__(self) -> Iterator[Batch]: ...

  def __next__(self) -> Batch: ...

  def state(self) -> dict[str, Any]:
    """Returns the position after the last batch taken; batches made ahead do not count."""
    ...

  def restore(self, state: dict[str, Any]) -> None:
    """Continues from a position that `state` returned.

    Raises:
      ValueError: the position belongs to a stream of another order.
    """
    ...

  def pause(self) -> None:
    """Drops batches made ahead, and waits until no worker process runs; the position stays."""
    ...

  def close(self) -> None:
    """Ends the worker processes. Idempotent."""
    ...


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
    self.num_examples = num_examples
    self._batch_size = batch_size
    self._seed = seed
    self._shard = shard
    self._passes = Passes(num_examples, seed)

  def rows(self, batch: int) -> ShardRows:
    start, stop = bounds(batch, self._batch_size, self._shard)
    return self.examples(start, stop - start)

  def examples(self, first: int, number: int) -> ShardRows:
    return ShardRows(*self._passes.examples(first, number), None)

  def identity(self) -> dict[str, int]:
    return {
      'num_examples': self.num_examples,
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
    positions = np.arange(*bounds(batch, self._batch_size, (0, 1)), dtype=np.int64)
    weights = (positions < self._num_examples).astype(np.float32)
    indices = np.minimum(positions, self._num_examples - 1)
    return shard_of(ShardRows(indices, np.zeros_like(indices), weights), self._shard)

  def identity(self) -> dict[str, int]:
    return {'num_examples': self._num_examples, 'batch_size': self._batch_size}


class Maker:
  """Makes batch k of an order. It is picklable if its loader is, and what finishes its batches."""

  def __init__(self, order: Order, load: Load, finish: Finish | None = None):
    self._order = order
    self._load = load
    self._finish = finish

  def __call__(self, batch: int) -> Batch:
    rows = self._order.rows(batch)
    loaded = self._load(rows)
    if self._finish is not None:
      loaded = self._finish(batch, loaded)
    if rows.weights is None:
      return loaded
    return {**loaded, 'weights': _masked(loaded.get('weights'), rows.weights)}


class Batches:
  """A stream of the batches of an order.

  With workers, `AHEAD_PER_WORKER` batches for each are made ahead of the last batch taken, and no
  more. So what is made while a clock stands is bounded, and the same for all submissions.

  Args:
    order: determines the examples of each batch.
    load: turns the examples of a batch into arrays.
    finish: changes a batch that was loaded, such as `BatchMix`.
    workers: make the batches, also those of other streams; None makes them on demand here. Who
      made them closes them.
    num_ahead: number of batches that workers make ahead; by default as above.
    name: of task and split, for messages.
  """

  def __init__(
    self,
    order: Order,
    load: Load,
    *,
    finish: Finish | None = None,
    workers: Workers | None = None,
    num_ahead: int | None = None,
    name: str = 'the stream',
  ):
    self._order = order
    self._position = 0
    self._closed = False
    self._make = Maker(order, load, finish)
    self._workers = workers
    if num_ahead is None and workers is not None:
      num_ahead = AHEAD_PER_WORKER * workers.num_workers
    self._num_ahead = num_ahead or 0
    self._name = name
    self._stream: int | None = None  # its number among those of the workers
    self._ahead: collections.deque[Future[Batch]] = collections.deque()

  def __iter__(self) -> Batches:
    return self

  def __next__(self) -> Batch:
    if self._closed or self._is_past_end(self._position):
      self.close()
      raise StopIteration
    batch = self._make(self._position) if self._workers is None else self._receive(self._workers)
    self._position += 1
    return batch

  @property
  def num_ahead(self) -> int:
    """The number of batches that are made ahead, or are being made."""
    return len(self._ahead)

  def make_ahead(self, number: int) -> None:
    """Has workers make batches, until `number` are ahead."""
    if self._workers is None:
      return
    if self._stream is None:
      self._stream = self._workers.add(self._make, self._name)
    while len(self._ahead) < number and not self._is_past_end(self._position + len(self._ahead)):
      self._ahead.append(self._workers.submit(self._stream, self._position + len(self._ahead)))

  def state(self) -> dict[str, Any]:
    return {'num_batches': self._position, **self._order.identity()}

  def restore(self, state: dict[str, Any]) -> None:
    expected = self._order.identity()
    found = {name: state.get(name) for name in expected}
    if found != expected:
      raise ValueError(
        f'A stream continues only from a position of the same order: the stream has {expected}, '
        f'the position has {found}.'
      )
    self._drop()
    self._position = state['num_batches']

  def pause(self) -> None:
    futures.wait(self._drop())

  def close(self) -> None:
    self._closed = True
    self._drop()

  def _receive(self, workers: Workers) -> Batch:
    """Takes the next batch from the workers.

    Raises:
      WorkerError: a worker has died, whatever it was making.
    """
    self.make_ahead(self._num_ahead + 1)
    batch = self._ahead[0].result()
    self._ahead.popleft()
    return batch

  def _drop(self) -> list[Future[Batch]]:
    """Drops the batches made ahead; returns those that are being made."""
    dropped = [future for future in self._ahead if not future.cancel()]
    self._ahead.clear()
    return dropped

  def _is_past_end(self, position: int) -> bool:
    return self._order.num_batches is not None and position >= self._order.num_batches


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


def shard_of(rows: ShardRows, shard: Shard) -> ShardRows:
  """Returns a shard of the rows of an evaluated batch."""
  if shard == (0, 1):
    return rows
  own = slice(*bounds(0, rows.num_rows, shard))
  return ShardRows(
    rows.indices[own],
    rows.epochs[own],
    None if rows.weights is None else rows.weights[own],
    None if rows.parts is None else rows.parts[own],
    of_batch=rows,
  )


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
