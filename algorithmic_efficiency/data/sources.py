"""Sources of examples: arrays, gathered by batch, and records, mapped one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from algorithmic_efficiency import seeds
from algorithmic_efficiency.data.pipeline import Batch, ShardRows

Example = Mapping[str, Any]
MapExample = Callable[[Example, np.random.Generator | None], Example]


class Arrays:
  """Examples in memory or memory-mapped: fields [num_examples, ...], or tuples of such, by name.

  As a loader, it copies the rows of a batch with one vectorized call a field.

  Raises:
    ValueError: the fields differ in length.
  """

  def __init__(self, fields: Mapping[str, Any]):
    lengths = {len(array) for value in fields.values() for array in _leaves(value)}
    if len(lengths) != 1:
      raise ValueError(f'The fields of a source must have one length; they have {sorted(lengths)}.')
    self._fields = dict(fields)
    self._length = lengths.pop()

  def __len__(self) -> int:
    return self._length

  def __call__(self, rows: ShardRows) -> Batch:
    return {name: _gather(value, rows.indices) for name, value in self._fields.items()}


class RecordSource(Protocol):
  """Random access to examples by position.

  If worker processes read it, it must be picklable, by path and not by content.
  """

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Example: ...


class MappedRecords:
  """A loader that applies a function to each example and stacks the results.

  Args:
    source: the examples.
    function: called with an example and its random generator; returns arrays of the same shapes
      for all examples of a batch. The generator depends only on seed, epoch and position.
    seed: seed of the generators; None in evaluation, where the function gets no generator.
  """

  def __init__(self, source: RecordSource, function: MapExample, *, seed: int | None):
    self._source = source
    self._function = function
    self._seed = seed

  def __call__(self, rows: ShardRows) -> Batch:
    examples = [
      self._function(self._source[index], self._random(epoch, index))
      for index, epoch in zip(rows.indices.tolist(), rows.epochs.tolist(), strict=True)
    ]
    return {name: _stack([example[name] for example in examples]) for name in examples[0]}

  def _random(self, epoch: int, index: int) -> np.random.Generator | None:
    if self._seed is None:
      return None
    return seeds.generator(self._seed, 'augmentation', epoch, index)


def _leaves(value: Any) -> tuple[np.ndarray, ...]:
  return value if isinstance(value, tuple) else (value,)


def _gather(value: Any, indices: np.ndarray) -> Any:
  if isinstance(value, tuple):
    return tuple(_gather(part, indices) for part in value)
  return np.take(value, indices, axis=0)


def _stack(values: list[Any]) -> Any:
  if isinstance(values[0], tuple):
    return tuple(_stack(list(parts)) for parts in zip(*values, strict=True))
  return np.stack(values)
