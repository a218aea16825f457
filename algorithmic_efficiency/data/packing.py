"""Packing: several examples of different lengths share a row of a batch.

Rows are planned for a pass: as many examples as the source or mixture has, in its order. For a
single source, a pass is an epoch. Every example of a pass is in exactly one of its rows.

Only the numbers of examples by length decide what lengths a row holds, as in Krell et al. (2021);
see `row_patterns`. Which example of a length goes where, and the order of the rows, are random. The
rows of a pass are a pure function of seed and pass, so positions are exact.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from algorithmic_efficiency import errors, seeds
from algorithmic_efficiency.data import trees
from algorithmic_efficiency.data.mixture import Mixture
from algorithmic_efficiency.data.pipeline import (
  Endless,
  Load,
  Shard,
  ShardRows,
  bounds,
  check_sizes,
)
from algorithmic_efficiency.data.row_patterns import Pattern, codes, patterns
from algorithmic_efficiency.data.sources import Example, Source

Join = Callable[..., Example]  # called with the examples of a row, and `row_length=`

_KEPT_PLANS = 2  # a batch may need the current pass and the next


def concatenated(examples: list[Example], row_length: int) -> Example:
  """Joins examples along the first axis of their leaves, and pads the row with zeros.

  Returns:
    The leaves as [row_length, ...]; `segments` int32 [row_length], the number of the example in its
    row from 1, 0 in padding; `positions` int32 [row_length], the position within the example.

  Raises:
    TreeError: the examples differ in structure, the leaves of one differ in length, or the examples
      are longer than the row.
  """
  lengths = []
  for row, example in enumerate(examples):
    found = {leaf.shape[:1] for _, leaf in trees.leaves(example)}
    if len(found) != 1 or found == {()}:
      raise trees.TreeError('the leaves of a packed example must have one length.', row)
    if not example.keys().isdisjoint(('segments', 'positions')):
      raise trees.TreeError(
        'packing adds `segments` and `positions`; the example has such a leaf.', row
      )
    lengths.append(found.pop()[0])
  if sum(lengths) > row_length:
    raise trees.TreeError(
      f'it and the other examples of its row must have {row_length} entries at most; they have '
      f'{sum(lengths)}, so the stored lengths are wrong.',
      0,
    )
  trees.require_same(examples, first_axis=False)
  numbers = np.arange(1, len(lengths) + 1, dtype=np.int32)
  starts = np.cumsum([0, *lengths[:-1]])
  tree = {
    'examples': trees.map_leaves(lambda *arrays: np.concatenate(arrays), *examples),
    'segments': np.repeat(numbers, lengths),
    'positions': (np.arange(sum(lengths)) - np.repeat(starts, lengths)).astype(np.int32),
  }
  padded = trees.map_leaves(lambda leaf: _padded(leaf, row_length), tree)
  return {**padded.pop('examples'), **padded}


def _padded(leaf: np.ndarray, row_length: int) -> np.ndarray:
  row = np.zeros((row_length, *leaf.shape[1:]), leaf.dtype)
  row[: len(leaf)] = leaf
  return row


@dataclass(frozen=True)
class Packed:
  """A source, mixture or loader whose training examples are packed; evaluation never packs.

  Attributes:
    source: gives the examples; a loader has a length and makes whole batches of packed rows.
    lengths: the length of each example as `prepare` stored it, int [num_examples]; or that of each
      of its sides, int [num_examples, sides]. Those of a mixture are by the name of the source.
    row_length: largest sum of the lengths of a row, for each side.
    join: joins the transformed examples of a row; called with them and `row_length=`. A loader does
      that itself.
    leave_out_empty: True if examples of length 0, or with a side of that, are in no row.
  """

  source: Source | Mixture | Load
  lengths: np.ndarray | Mapping[str, np.ndarray]
  row_length: int
  join: Join = concatenated
  leave_out_empty: bool = False

  def checked_lengths(self, name: str) -> dict[str, np.ndarray]:
    """Returns the lengths of each source by its name; '' without a mixture.

    Args:
      name: of task and split, for messages.

    Returns:
      int64 [num_examples] or [num_examples, sides]; 0 in examples that are left out.

    Raises:
      UserError: there is no length for each example, one is not between 1 and the row length, or
        row length or join are of another kind.
    """
    _check_kinds(self.row_length, self.join, name)
    sources: Mapping[str, Any]
    if isinstance(self.source, Mixture):
      sources, lengths = self.source.sources, self.lengths
    else:
      sources, lengths = {'': self.source}, {'': self.lengths}  # type: ignore[dict-item]
      if not hasattr(self.source, '__len__'):
        raise errors.UserError(
          f'{name}: a loader whose examples are packed must have a length; it has none.'
        )
    if not isinstance(lengths, Mapping) or lengths.keys() != sources.keys():
      raise errors.UserError(
        f'{name}: packing a mixture needs lengths for each of its sources: {", ".join(sources)}.'
      )
    checked = {
      one: self._checked(lengths[one], len(source), name, f' of source {one}' * bool(one))
      for one, source in sources.items()
    }
    if len({found.shape[1:] for found in checked.values()}) > 1:
      raise errors.UserError(f'{name}: packed sources of a mixture must have equally many sides.')
    return checked

  def _checked(self, lengths: Any, expected: int, name: str, where: str) -> np.ndarray:
    lengths = np.asarray(lengths)
    has_sides = lengths.ndim == 2 and lengths.shape[1] > 1
    if lengths.shape[:1] != (expected,) or lengths.ndim != 1 + has_sides:
      raise _no_lengths(lengths, expected, name, where)
    if lengths.dtype.kind not in 'iu':
      raise _no_lengths(lengths, expected, name, where)
    by_side = lengths.astype(np.int64).reshape(expected, -1)
    is_empty = (by_side == 0).any(axis=1) & self.leave_out_empty
    outside = ((by_side < 1) | (by_side > self.row_length)).any(axis=1) & ~is_empty
    wrong = np.flatnonzero(outside)
    if len(wrong):
      raise errors.UserError(
        f'{name}, example {wrong[0]}{where}: a packed example must have a length from 1 to '
        f'{self.row_length}, the length of a row; it has '
        f'{" and ".join(map(str, by_side[wrong[0]].tolist()))}. Cut or leave out such examples '
        'when preparing.'
      )
    if is_empty.all():
      raise errors.UserError(
        f'{name}: packing needs an example{where} of length 1 at least; all are left out.'
      )
    return np.where(is_empty[:, None], 0, by_side).reshape(lengths.shape)


def _check_kinds(row_length: Any, join: Any, name: str) -> None:
  """
  Raises:
    UserError: they are no whole number and no function.
  """
  if not isinstance(row_length, (int, np.integer)):
    raise errors.UserError(
      f'{name}: the row length of packed rows must be a whole number; it is {row_length!r}.'
    )
  if not callable(join):
    raise errors.UserError(f'{name}: join must be a function; it is {errors.shown(join)}.')


def _no_lengths(found: np.ndarray, expected: int, name: str, where: str) -> errors.UserError:
  return errors.UserError(
    f'{name}: packing needs a whole number for each example{where}, of which there are {expected}, '
    f'or one for each of its sides; the lengths are {found.dtype}{list(found.shape)}.'
  )


class _Plan(NamedTuple):
  """The examples of a pass, row after row, and where rows begin: int64 [rows + 1]."""

  examples: ShardRows
  edges: np.ndarray


class PackedRows:
  """The endless order of packed rows.

  A position is a number of rows, so it depends on how many rows each earlier pass has. These counts
  are found without planning the rows, and kept. A single source needs one, as its passes have the
  same lengths. A mixture needs the lengths of each earlier pass once.

  Args:
    order: of the examples, for one shard.
    lengths: of the examples of each source, as `Packed.checked_lengths` returns them.
    seed: seed of what goes where.
  """

  num_batches: int | None = None

  def __init__(
    self,
    order: Endless,
    lengths: Sequence[np.ndarray],
    row_length: int,
    *,
    batch_size: int,
    seed: int,
    shard: Shard = (0, 1),
  ):
    check_sizes(order.num_examples, batch_size, shard)
    self._order = order
    joined = np.concatenate(lengths)
    self._num_sides = 1 if joined.ndim == 1 else joined.shape[1]
    self._lengths = joined
    self._codes = codes(joined, row_length)
    self._offsets = np.cumsum([0, *map(len, lengths)])[:-1]
    self._row_length = row_length
    self._batch_size = batch_size
    self._seed = seed
    self._shard = shard
    self._patterns: dict[bytes, list[Pattern]] = {}
    self._rows_before = [0]  # of each pass
    self._plans: dict[int, _Plan] = {}

  def rows(self, batch: int) -> ShardRows:
    row, stop = bounds(batch, self._batch_size, self._shard)
    pieces: list[ShardRows] = []
    sizes: list[np.ndarray] = []
    while row < stop:
      number = self._pass_of(row)
      examples, edges = self._plan(number)
      first = row - self._rows_before[number]
      last = min(first + stop - row, len(edges) - 1)
      pieces.append(_slice(examples, edges[first], edges[last]))
      sizes.append(np.diff(edges[first : last + 1]))
      row += last - first
    indices, epochs, _, parts, *_ = zip(*pieces, strict=True)
    return ShardRows(
      np.concatenate(indices),
      np.concatenate(epochs),
      None,
      None if parts[0] is None else np.concatenate(parts),
      np.concatenate([[0], np.cumsum(np.concatenate(sizes))]),
    )

  def num_rows(self, number: int) -> int:
    """Returns the number of rows of a pass."""
    is_single = len(self._offsets) == 1
    own = self._codes if is_single else self._codes_of(self._examples(number))
    return sum(count for count, _ in self._patterns_of(own))

  def identity(self) -> dict[str, int]:
    content = hashlib.sha256(self._lengths.tobytes())
    content.update(repr((self._row_length, self._offsets.tolist())).encode())
    return {**self._order.identity(), 'packing': int.from_bytes(content.digest()[:6], 'little')}

  def _pass_of(self, row: int) -> int:
    while self._rows_before[-1] <= row:
      number = len(self._rows_before) - 1
      self._rows_before.append(self._rows_before[-1] + self.num_rows(number))
    return bisect.bisect_right(self._rows_before, row) - 1

  def _codes_of(self, examples: ShardRows) -> np.ndarray:
    if examples.parts is None:
      return self._codes[examples.indices]
    return self._codes[self._offsets[examples.parts] + examples.indices]

  def _examples(self, number: int) -> ShardRows:
    size = self._order.num_examples
    return self._order.examples(number * size, size)

  def _patterns_of(self, own: np.ndarray) -> list[Pattern]:
    histogram = np.bincount(own)
    key = histogram.tobytes()
    if key not in self._patterns:
      self._patterns.clear()
      self._patterns[key] = patterns(histogram, self._row_length, self._num_sides)
    return self._patterns[key]

  def _plan(self, number: int) -> _Plan:
    if number not in self._plans:
      if len(self._plans) == _KEPT_PLANS:
        del self._plans[min(self._plans)]
      examples = self._examples(number)
      own = self._codes_of(examples)
      random = seeds.generator(self._seed, 'packing', number)
      order, edges = planned(own, self._patterns_of(own), random)
      parts = None if examples.parts is None else examples.parts[order]
      self._plans[number] = _Plan(
        ShardRows(examples.indices[order], examples.epochs[order], None, parts), edges
      )
    return self._plans[number]


def planned(
  own: np.ndarray, of_rows: Sequence[Pattern], random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Fills rows with the examples of a pass.

  Args:
    own: codes of the examples, int64 [examples], in an order that is random already.
    of_rows: the patterns of these codes.
    random: sets the order of the rows.

  Returns:
    The positions of the examples, row after row, int64 [examples], in each row ascending; and where
    rows begin, int64 [rows + 1].
  """
  by_code = np.argsort(own, kind='stable')
  used = np.concatenate([[0], np.cumsum(np.bincount(own))]).tolist()
  chosen, in_row = [], []
  num_rows = 0
  for number, content in of_rows:
    numbers = np.arange(num_rows, num_rows + number)
    for code, each in content:
      first, used[code] = used[code], used[code] + number * each
      chosen.append(by_code[first : used[code]])
      in_row.append(np.repeat(numbers, each))
    num_rows += number
  positions, rows = np.concatenate(chosen), random.permutation(num_rows)[np.concatenate(in_row)]
  order = np.lexsort((positions, rows))
  edges = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=num_rows))])
  return positions[order], edges


def _slice(examples: ShardRows, first: int, last: int) -> ShardRows:
  parts = None if examples.parts is None else examples.parts[first:last]
  return ShardRows(examples.indices[first:last], examples.epochs[first:last], None, parts)
