"""Sources of examples, and loaders that make batches of them.

A task has one of two kinds. `Arrays`, or a loader of its own, copies a whole batch with vectorized
calls. A `Source` gives one example at a time; `Mapped` transforms each example and joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from algorithmic_efficiency import errors
from algorithmic_efficiency.data import random_numbers, trees
from algorithmic_efficiency.data.pipeline import Batch, ShardRows
from algorithmic_efficiency.data.random_numbers import ExampleRandom

Example = Mapping[str, Any]
Transform = Callable[[Example, ExampleRandom | None], Example]
Collate = Callable[[list[Example]], Batch]


class Source(Protocol):
  """Random access to examples by position.

  It must be picklable, by path and not by content, because worker processes read it.
  """

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Example: ...


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


class Mapped:
  """A loader that transforms each example and joins the results.

  Args:
    sources: the sources of a mixture, or a single source.
    transform: called with an example and its random numbers, or None in evaluation. They depend
      only on seed, epoch and position.
    collate: joins the transformed examples of a batch; None stacks them.
    seed: seed of the random numbers; None in evaluation.
    name: name of task and split, for messages.
  """

  def __init__(
    self,
    sources: Sequence[Source],
    transform: Transform,
    collate: Collate | None,
    *,
    seed: int | None,
    name: str,
  ):
    self._sources = tuple(sources)
    self._transform = transform
    self._collate = collate or trees.stack
    self._seed = seed
    self._name = name

  def __call__(self, rows: ShardRows) -> Batch:
    """Returns the batch of some rows.

    Raises:
      UserError: an example is no tree of arrays, or examples differ in structure.
    """
    examples = []
    parts = [0] * len(rows.indices) if rows.parts is None else rows.parts.tolist()
    for part, index, random in zip(parts, rows.indices.tolist(), self._random(rows), strict=True):
      example = self._transform(self._sources[part][index], random)
      self._check(example, part, index)
      examples.append(example)
    try:
      return self._collate(examples)
    except trees.TreeError as error:
      numbers = ', '.join(map(str, rows.indices[:3]))
      raise errors.UserError(
        f'{self._name}: the examples {numbers}, ... do not make a batch: {error}'
      ) from None

  def _check(self, example: Any, part: int, index: int) -> None:
    try:
      for _ in trees.leaves(example):
        pass
    except trees.TreeError as error:
      source = f' of source {part}' if len(self._sources) > 1 else ''
      raise errors.UserError(f'{self._name}, example {index}{source}: {error}') from None

  def _random(self, rows: ShardRows) -> list[ExampleRandom | None]:
    if self._seed is None:
      return [None] * len(rows.indices)
    # Equal positions of different sources are different examples.
    numbers = rows.indices if rows.parts is None else rows.indices + (rows.parts << 40)
    keys = random_numbers.keys(self._seed, rows.epochs, numbers)
    return [ExampleRandom(key) for key in keys.tolist()]
