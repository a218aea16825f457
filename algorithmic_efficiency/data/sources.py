"""Sources of examples, and loaders that make batches of them.

A task has one of two kinds. `Arrays`, or a loader of its own, copies a whole batch with vectorized
calls. A `Source` gives one example at a time; `Mapped` transforms each example and joins them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.data import random_numbers, trees
from algorithmic_efficiency.data.pipeline import Batch, Load, ShardRows
from algorithmic_efficiency.data.random_numbers import ExampleRandom

Example = Mapping[str, Any]
Transform = Callable[[Example, ExampleRandom | None], Example]
Collate = Callable[[list[Example]], Batch]

_NUM_NAMED = 3  # examples of a batch that a message names


class TaskError(RuntimeError):
  """Code of a task failed; the message names task, split, and the examples or the function."""


class Source(Protocol):
  """Random access to examples by position.

  It must be picklable, by path and not by content, because worker processes read it.
  """

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Example: ...


def is_source(thing: Any) -> bool:
  return hasattr(thing, '__len__') and hasattr(thing, '__getitem__')


class Arrays:
  """Examples in memory or memory-mapped: a tree of arrays [num_examples, ...].

  As a loader, it copies the rows of a batch with one vectorized call a leaf.

  Raises:
    ValueError: the leaves differ in length.
  """

  def __init__(self, fields: Mapping[str, Any]):
    lengths = {len(array) for _, array in trees.leaves(dict(fields))}
    if len(lengths) != 1:
      raise ValueError(f'The fields of a source must have one length; they have {sorted(lengths)}.')
    self._fields = dict(fields)
    self._length = lengths.pop()

  def __len__(self) -> int:
    return self._length

  def __call__(self, rows: ShardRows) -> Batch:
    return trees.gather(self._fields, rows.indices)


class Loaded:
  """A loader of a task, whose mistakes are told with task, split and examples.

  Args:
    load: the loader.
    name: name of task and split, for messages.
    seed: seed of the random numbers, whose keys the loader gets; None in evaluation.
  """

  def __init__(self, load: Load, name: str, *, seed: int | None = None):
    self._load = load
    self._name = name
    self._seed = seed

  def __call__(self, rows: ShardRows) -> Batch:
    """Returns the batch of some rows.

    Raises:
      UserError: it is no tree of arrays with a row for each of `rows`.
      TaskError: the loader failed.
    """
    if self._seed is not None:
      rows = rows._replace(keys=random_numbers.keys(self._seed, rows.epochs, rows.indices))
    try:
      batch = self._load(rows)
    except Exception as error:
      fail(_examples(self._name, rows), error)
    return checked(batch, rows.num_rows, lambda: _examples(self._name, rows))


class Mapped:
  """A loader that transforms each example and joins the results.

  Args:
    sources: the sources of a mixture by name, or a single source under the name ''.
    transform: called with an example and its random numbers, or None in evaluation. They depend
      only on seed, epoch and position.
    collate: joins the transformed examples, or packed rows, of a batch; None stacks them.
      One with `for_longest(length)`, which makes rows as long as the longest example needs, gets
      the length of that of the global batch; sources then have `lengths`, int [num_examples].
    seed: seed of the random numbers; None in evaluation.
    name: name of task and split, for messages.
    join: joins the examples of a packed row.
  """

  def __init__(
    self,
    sources: Mapping[str, Source],
    transform: Transform,
    collate: Collate | None,
    *,
    seed: int | None,
    name: str,
    join: Callable[[list[Example]], Example] | None = None,
  ):
    self._sources = tuple(sources.items())
    self._transform = transform
    self._collate = collate or trees.stack
    self._seed = seed
    self._name = name
    self._join = join

  def __call__(self, rows: ShardRows) -> Batch:
    """Returns the batch of some rows.

    Raises:
      UserError: an example is no tree of arrays, examples differ in structure, or the batch has not
        a row for each of `rows`.
      TaskError: the source or a function of the task failed.
    """
    num_examples = len(rows.indices)
    parts = [0] * num_examples if rows.parts is None else rows.parts.tolist()
    places = list(zip(parts, rows.indices.tolist(), strict=True))
    examples = [
      self._example(*place, random)
      for place, random in zip(places, self._random(rows), strict=True)
    ]
    if rows.edges is not None:
      edges = rows.edges.tolist()
      examples = [
        self._row(examples[first:last], places[first:last])
        for first, last in itertools.pairwise(edges)
      ]
      places = [places[first] for first in edges[:-1]]
    try:
      batch = self._collate_for(rows)(examples)
    except Exception as error:
      self._fail(error, places, rows)
    return checked(batch, rows.num_rows, lambda: _examples(self._name, rows))

  def _collate_for(self, rows: ShardRows) -> Collate:
    """What joins the rows of a shard of an evaluated batch knows the longest of the whole batch."""
    if rows.of_batch is None or not hasattr(self._collate, 'for_longest'):
      return self._collate
    indices, parts = rows.whole.indices, rows.whole.parts
    if parts is None:
      parts = np.zeros_like(indices)
    longest = max(
      int(self._sources[part][1].lengths[indices[parts == part]].max()) for part in np.unique(parts)
    )
    return self._collate.for_longest(longest)

  def _example(self, part: int, index: int, random: ExampleRandom | None) -> Example:
    try:
      example = self._transform(self._sources[part][1][index], random)
      for _ in trees.leaves(example):
        pass
    except Exception as error:
      fail(self._place(part, index), error)
    return example

  def _row(self, examples: list[Example], places: list[tuple[int, int]]) -> Example:
    assert self._join is not None, 'only packed rows have edges'
    try:
      return self._join(examples)
    except Exception as error:
      row = getattr(error, 'row', None) or 0
      fail(f'{self._place(*places[row])}, in a packed row', error)

  def _fail(self, error: Exception, places: list[tuple[int, int]], rows: ShardRows) -> NoReturn:
    row = getattr(error, 'row', None)
    where = _examples(self._name, rows) if row is None else self._place(*places[row])
    fail(where, error)

  def _place(self, part: int, index: int) -> str:
    source = self._sources[part][0]
    return f'{self._name}, example {index}{f" of source {source}" if source else ""}'

  def _random(self, rows: ShardRows) -> Sequence[ExampleRandom | None]:
    if self._seed is None:
      return [None] * len(rows.indices)
    # Equal positions of different sources are different examples.
    numbers = rows.indices if rows.parts is None else rows.indices + (rows.parts << 40)
    keys = random_numbers.keys(self._seed, rows.epochs, numbers)
    return [ExampleRandom(key) for key in keys.tolist()]


def checked(batch: Any, num_rows: int, where: Callable[[], str]) -> Batch:
  """Returns a batch that code of a task has made, if it is one.

  Args:
    num_rows: how many rows it must have.
    where: says where it was made, for messages.

  Raises:
    UserError: it is no tree of arrays with this many rows.
  """
  try:
    if not isinstance(batch, dict) or not batch:
      found = type(batch).__name__ if batch or batch is None else 'empty'
      raise trees.TreeError(f'a batch must be a dict of arrays; it is {found}.')
    if isinstance(batch.get('weights'), (dict, tuple)):
      raise trees.TreeError('weights must be one array; it is a tree.')
    for path, leaf in trees.leaves(batch):
      if leaf.shape[:1] != (num_rows,):
        raise trees.TreeError(
          f'the first axis of each array must be that of the batch, of {num_rows} rows; the '
          f'shape of {path} is {list(leaf.shape)}.'
        )
  except trees.TreeError as error:
    fail(where(), error)
  return batch


def _examples(name: str, rows: ShardRows) -> str:
  shown = ', '.join(map(str, rows.indices[:_NUM_NAMED].tolist()))
  more = ', ...' if len(rows.indices) > _NUM_NAMED else ''
  return f'{name}, the batch of the examples {shown}{more}'


def fail(where: str, error: Exception) -> NoReturn:
  """Raises an exception of a task's code again, with the place where it was raised.

  Raises:
    UserError, MemoryError: as they are.
    UserError: examples are no trees of arrays of one structure.
    TaskError: any other.
  """
  if isinstance(error, (errors.UserError, MemoryError)):
    raise error
  if isinstance(error, trees.TreeError):
    raise errors.UserError(f'{where}: {error}') from None
  raise TaskError(f'{where}: {type(error).__name__}: {error}') from error
