"""Chooses what lengths of examples share a packed row, from the numbers of examples by length.

An example has one length, or one for each of its sides, such as source and target of a pair. A row
has the same space for each side.
"""

from __future__ import annotations

import bisect
import math

import numpy as np

Pattern = tuple[int, tuple[tuple[int, int], ...]]  # number of rows; (code, number in each row)

_CODES = np.int64


def codes(lengths: np.ndarray, row_length: int) -> np.ndarray:
  """Returns a number for the lengths of each example, int64 [examples].

  Args:
    lengths: int64 [examples], which are their own codes; or [examples, sides].
    row_length: largest length.
  """
  if lengths.ndim == 1:
    return lengths
  return np.ravel_multi_index(tuple(lengths.T), (row_length + 1,) * lengths.shape[1]).astype(_CODES)


def patterns(histogram: np.ndarray, row_length: int, num_sides: int = 1) -> list[Pattern]:
  """Chooses the lengths that rows hold; examples whose code is 0 are in none.

  Of one side, the longest go first, each into a row with the most space, so rows resemble each
  other. Of several, the one with the longest side goes first, into the row that it fills best:
  there, what is left of one side is lost for all.

  Args:
    histogram: number of examples of each code, int [largest code + 1].
    row_length: space of a row, for each side.
    num_sides: number of sides.
  """
  histogram = histogram.copy()
  histogram[0] = 0
  if num_sides > 1:
    return _of_several_sides(histogram, row_length, num_sides)
  return _of_one_side(histogram, row_length)


def _of_one_side(histogram: np.ndarray, row_length: int) -> list[Pattern]:
  total = int(histogram @ np.arange(len(histogram)))
  rows: dict[int, list[tuple[int, dict[int, int]]]] = {}  # by the space that is left
  spaces: list[int] = []  # their keys, ascending

  def put(space: int, num_rows: int, content: dict[int, int]) -> None:
    if space not in rows:
      rows[space] = []
      bisect.insort(spaces, space)
    rows[space].append((num_rows, content))

  put(row_length, math.ceil(total / row_length), {})
  for length in np.flatnonzero(histogram)[::-1].tolist():
    left = int(histogram[length])
    while left:
      if spaces[-1] < length:
        put(row_length, max(1, left * length // row_length), {})
      space = spaces[-1]
      num_rows, content = rows[space].pop()
      if not rows[space]:
        del rows[space], spaces[-1]
      filled = min(num_rows, left)
      if filled < num_rows:
        put(space, num_rows - filled, content)
      put(space - length, filled, {**content, length: content.get(length, 0) + 1})
      left -= filled
  return [
    (num_rows, tuple(content.items()))
    for space in spaces
    for num_rows, content in rows[space]
    if content
  ]


def _of_several_sides(histogram: np.ndarray, row_length: int, num_sides: int) -> list[Pattern]:
  found = np.flatnonzero(histogram)
  shape = (row_length + 1,) * num_sides
  vectors = np.stack(np.unravel_index(found, shape), axis=1)
  rows = _Rows(num_sides)
  total = histogram[found] @ vectors
  rows.put((row_length,) * num_sides, math.ceil(total.max(initial=0) / row_length), {})
  for place in np.lexsort((vectors.sum(axis=1), vectors.max(axis=1)))[::-1].tolist():
    code, lengths = int(found[place]), vectors[place]
    left = int(histogram[code])
    while left:
      if not rows.fit(lengths):
        rows.put((row_length,) * num_sides, max(1, left * int(lengths.max()) // row_length), {})
      space, num_rows, content = rows.take_fullest(lengths)
      filled = min(num_rows, left)
      if filled < num_rows:
        rows.put(space, num_rows - filled, content)
      after = {**content, code: content.get(code, 0) + 1}
      rows.put(tuple((np.array(space) - lengths).tolist()), filled, after)
      left -= filled
  return rows.patterns()


class _Rows:
  """Groups of rows by the space that is left in them."""

  def __init__(self, num_sides: int):
    self._spaces = np.full((64, num_sides), -1, np.int64)  # -1 in free places
    self._groups: list[list[tuple[int, dict[int, int]]]] = [[] for _ in range(64)]
    self._place_of: dict[tuple[int, ...], int] = {}
    self._free = list(range(64))[::-1]

  def put(self, space: tuple[int, ...], num_rows: int, content: dict[int, int]) -> None:
    if space not in self._place_of:
      if not self._free:
        self._grow()
      place = self._free.pop()
      self._place_of[space] = place
      self._spaces[place] = space
    self._groups[self._place_of[space]].append((num_rows, content))

  def fit(self, lengths: np.ndarray) -> bool:
    """Returns True if an example of these lengths fits into some row."""
    return bool((self._spaces >= lengths).all(axis=1).any())

  def take_fullest(self, lengths: np.ndarray) -> tuple[tuple[int, ...], int, dict[int, int]]:
    """Takes out rows with the least space of those into which an example fits."""
    fits = (self._spaces >= lengths).all(axis=1)
    place = int(np.where(fits, -self._spaces.sum(axis=1), np.iinfo(np.int64).min).argmax())
    space = tuple(self._spaces[place].tolist())
    num_rows, content = self._groups[place].pop()
    if not self._groups[place]:
      del self._place_of[space]
      self._spaces[place] = -1
      self._free.append(place)
    return space, num_rows, content

  def patterns(self) -> list[Pattern]:
    return [
      (num_rows, tuple(content.items()))
      for place in self._place_of.values()
      for num_rows, content in self._groups[place]
      if content
    ]

  def _grow(self) -> None:
    size = len(self._spaces)
    self._spaces = np.concatenate([self._spaces, np.full_like(self._spaces, -1)])
    self._groups += [[] for _ in range(size)]
    self._free = list(range(size, 2 * size))[::-1]
