"""Reads one `eval_measurements.csv`: the columns that scoring needs, or the reason why not."""

from __future__ import annotations

import csv
import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter

EVAL_FILE = 'eval_measurements.csv'

TIME = 'submission_sec'
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

  columns: dict[str, list[float]]
  damage: Damaged | None

  @property
  def num_rows(self) -> int:
    return len(self.columns['global_step'])


def parse(content: bytes, metric: str) -> Evaluations:
  """The columns of a file whose target is on `metric`.

  Values that break a rule (steps that do not increase, times that are negative, decrease or are no
  numbers) are kept, so that they can be looked at, and reported as damage.

  Raises:
    Damaged: there are no columns to be had.
  """
  header, rows = _table(content)
  indices = _indices(header, metric)
  wanted = [index for index in indices.values() if index is not None]
  values = dict(zip(wanted, zip(*map(itemgetter(*wanted), rows), strict=True), strict=False))
  missing = [math.nan] * len(rows)
  columns = {
    name: missing if index is None else _floats(values.get(index, ()), header[index])
    for name, index in indices.items()
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


def _table(content: bytes) -> tuple[tuple[str, ...], list[list[str]]]:
  if not content.strip():
    raise Damaged('no_data', 'an empty file')
  try:
    lines = content.decode('ascii').splitlines()
    header, *rows = csv.reader(lines, strict=True)
  except (UnicodeDecodeError, csv.Error, ValueError) as error:
    raise Damaged('damaged', f'not a CSV file ({error})') from None
  width = len(header)
  if not content.endswith(b'\n'):
    raise Damaged('truncated', f'the last of {len(rows)} rows has no end')
  if rows and set(map(len, rows)) != {width}:
    index = next(index for index, row in enumerate(rows) if len(row) != width)
    cut = index == len(rows) - 1 and len(rows[index]) < width
    found = f'row {index + 1} has {len(rows[index])} of {width} fields'
    raise Damaged('truncated' if cut else 'damaged', found)
  return tuple(header), rows


def _floats(texts: tuple[str, ...], column: str) -> list[float]:
  try:
    return list(map(float, texts))
  except ValueError:
    pass
  values = []
  for index, text in enumerate(texts):
    try:
      values.append(float(text) if text.strip() else math.nan)
    except ValueError:
      raise Damaged('damaged', f'row {index + 1}: {column} is {text[:20]!r}, no number') from None
  return values


def _broken_rule(columns: dict[str, list[float]], missing: list[float]) -> Damaged | None:
  steps, times = columns['global_step'], columns[TIME]
  if not _increases(steps, operator.lt) or not all(map(float.is_integer, steps)):
    return Damaged('bad_steps', _first_offender(steps, operator.lt))
  if not _increases(times, operator.le):
    return Damaged('bad_times', _first_offender(times, operator.le))
  for name in ('charged_steps', 'eval_sec', 'logging_sec'):
    values = columns[name]
    if values is not missing and any(value < 0 or value == math.inf for value in values):
      return Damaged('bad_times', f'{name} is negative or infinite')
  return None


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
