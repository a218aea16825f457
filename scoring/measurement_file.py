"""The columns that scoring needs, out of a table or a log of evaluations, or the reason why not."""

from __future__ import annotations

import functools
import math
import operator
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

from algorithmic_efficiency.results import csv_table

TIME = 'submission_time_sec'
# Our name: the names in the file, the first that is there; and whether scoring can do without.
_COLUMNS: dict[str, tuple[tuple[str, ...], bool]] = {
  'global_step': (('global_step',), True),
  TIME: (('score', 'accumulated_submission_time'), True),
  'charged_steps': (('charged_steps',), False),
  'eval_sec': (('accumulated_eval_time',), False),
  'logging_sec': (('accumulated_logging_time',), False),
}
SPLITS = ('train', 'validation', 'test')
NUMERIC = (*_COLUMNS, *SPLITS)
_NEEDED = ('validation',)


class Damaged(Exception):
  """The file cannot be scored: the kind of the note and what was found."""

  def __init__(self, kind: str, detail: str):
    super().__init__(detail)
    self.kind = kind
    self.detail = detail


@dataclass(frozen=True, kw_only=True)
class Evaluations:
  """The columns of a file, by the names of NUMERIC, and the first damage found in their values."""

  columns: Mapping[str, Sequence[float]]
  damage: Damaged | None = None

  @property
  def num_rows(self) -> int:
    return len(self.columns['global_step'])

  def packed(self) -> Evaluations:
    """The same in a quarter of the memory: numbers without an object for each."""
    return replace(self, columns={name: array('d', one) for name, one in self.columns.items()})


NOTHING = Evaluations(columns={name: [] for name in NUMERIC})


def parse(content: bytes, metric: str) -> Evaluations:
  """The columns of a table whose target is on `metric`.

  A last line that may be cut is left out and reported as damage. Values that break a rule are kept
  and reported as damage. Steps must increase, and times must be numbers that do not decrease.

  Raises:
    Damaged: there are no columns to be had.
  """
  if not content.strip():
    raise Damaged('no_data', 'an empty file')
  try:
    table = csv_table.parse(content)
  except ValueError as error:
    raise Damaged('damaged', str(error)) from None
  if not table.header:
    raise Damaged('truncated', table.cut)
  header, rows = table.header, table.rows
  damage = Damaged('truncated', table.cut) if table.cut else None
  indices = _indices(header, metric)
  wanted = [index for index in indices.values() if index is not None]
  values = dict(zip(wanted, zip(*map(itemgetter(*wanted), rows), strict=True), strict=False))
  missing = [math.nan] * len(rows)
  columns = {
    name: missing if index is None else _floats(values.get(index, ()), header[index])
    for name, index in indices.items()
  }
  return Evaluations(columns=columns, damage=damage or _broken_rule(columns, missing))


def of_rows(rows: Sequence[Mapping[str, float]], metric: str) -> Evaluations:
  """The same columns out of the evaluations of a log.

  Raises:
    Damaged: a column that scoring needs is in no row.
  """
  if not rows:
    return NOTHING
  header = tuple(sorted(set().union(*rows)))
  missing = [math.nan] * len(rows)
  columns = {
    name: missing if index is None else [float(row.get(header[index], math.nan)) for row in rows]
    for name, index in _indices(header, metric).items()
  }
  return Evaluations(columns=columns, damage=_broken_rule(columns, missing))


@functools.lru_cache(maxsize=256)
def _indices(header: tuple[str, ...], metric: str) -> dict[str, int | None]:
  """Where each of NUMERIC stands in a row; None for a column that is not there and not needed."""
  if len(set(header)) != len(header):
    raise Damaged('damaged', 'a column name stands twice')
  indices: dict[str, int | None] = {}
  sources = {**_COLUMNS, **{split: ((f'{split}/{metric}',), split in _NEEDED) for split in SPLITS}}
  for name, (candidates, needed) in sources.items():
    source = next((one for one in candidates if one in header), None)
    if source is None and needed:
      raise Damaged('missing_column', f'no column {candidates[0]!r}')
    indices[name] = None if source is None else header.index(source)
  return indices


def _floats(texts: tuple[str, ...], column: str) -> list[float]:
  if not any('_' in text for text in texts):  # which Python takes in a number, and no file means
    try:
      return list(map(float, texts))
    except ValueError:
      pass
  values = []
  for index, text in enumerate(texts):
    try:
      values.append(float(text.replace('_', '?')) if text.strip() else math.nan)
    except ValueError:
      raise Damaged('damaged', f'row {index + 1}: {column} is {text[:20]!r}, no number') from None
  return values


def _broken_rule(columns: Mapping[str, list[float]], missing: list[float]) -> Damaged | None:
  steps, times, charged = columns['global_step'], columns[TIME], columns['charged_steps']
  if not _increases(steps, operator.lt) or not _whole(steps):
    return Damaged('bad_steps', _first_offender(steps, operator.lt))
  if charged is not missing and not _increases(charged, operator.le):
    return Damaged('bad_steps', f'charged_steps: {_first_offender(charged, operator.le)}')
  if any(map(operator.lt, charged, steps)) or (charged is not missing and not _whole(charged)):
    return Damaged('bad_steps', 'charged_steps are fewer than the steps, or no whole numbers')
  if not _increases(times, operator.le):
    return Damaged('bad_times', _first_offender(times, operator.le))
  for name in ('eval_sec', 'logging_sec'):
    values = columns[name]
    if values is not missing and any(value < 0 or value == math.inf for value in values):
      return Damaged('bad_times', f'{name} is negative or infinite')
  return None


def _whole(values: list[float]) -> bool:
  return all(map(float.is_integer, values))


_Order = Callable[[float, float], bool]


def _increases(values: list[float], order: _Order) -> bool:
  """Whether the values are finite, not negative, and each in `order` with the next."""
  if not values:
    return True
  return values[0] >= 0 and values[-1] < math.inf and all(map(order, values, values[1:]))


def _first_offender(values: list[float], order: _Order) -> str:
  for index, value in enumerate(values):
    if not _increases(values[: index + 1], order) or not math.isfinite(value):
      before = f' after {values[index - 1]:g}' if index else ''
      return f'row {index + 1}: {value:g}{before}'
  return 'a step that is no whole number'
