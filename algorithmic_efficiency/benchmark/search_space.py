"""Search spaces of external tuning, and the points that are tried.

A search space is a JSON file in one of AlgoPerf's two forms. A dictionary has a range or a choice
for each hyperparameter, from which quasi-random points are drawn:

    {"learning_rate": {"min": 1e-4, "max": 1e-2, "scaling": "log"},
     "num_steps": {"min": 1, "max": 5, "scaling": "linear", "type": "int"},
     "dropout_rate": {"feasible_points": [0.0, 0.1]}}

A list has points, which are taken in order. Points of a dictionary are drawn from a Halton sequence
with permuted digits. For a given space and number of trials, AlgoPerf draws the same *set* of
points; their order here depends on our seed. `"type": "int"` is our addition: whole numbers, both
bounds included.
"""

from __future__ import annotations

import collections
import json
import keyword
import logging
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import text_file

Point = dict[str, Any]  # names to JSON scalars

_MAX_BASE = 1000
_NUM_SKIPPED = 100  # the first points of a Halton sequence in many dimensions are correlated
_SCALINGS = ('linear', 'log')
_TYPES = ('float', 'int')
_MAX_WHOLE = 2**53  # up to here the floats that are drawn tell whole numbers apart

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Range:
  """Values from `low` to `high`, evenly spread, or evenly in their logarithm."""

  low: float
  high: float
  scaling: Literal['linear', 'log']

  def at(self, fraction: float) -> float:
    if self.scaling == 'log':
      value = self.low * math.exp(fraction * math.log(self.high / self.low))
    else:
      value = self.low + fraction * (self.high - self.low)
    return min(max(value, self.low), self.high)  # rounding must not leave the bounds


@dataclass(frozen=True, kw_only=True)
class WholeRange:
  """Whole numbers from `low` to `high`, both included, equally likely or likely as 1/n."""

  low: int
  high: int
  scaling: Literal['linear', 'log']

  def at(self, fraction: float) -> int:
    if self.scaling == 'log':
      value = self.low * math.exp(fraction * math.log((self.high + 1) / self.low))
    else:
      value = self.low + fraction * (self.high + 1 - self.low)
    return min(max(math.floor(value), self.low), self.high)


@dataclass(frozen=True, kw_only=True)
class Choice:
  """One of a list of values."""

  values: tuple[Any, ...]

  def at(self, fraction: float) -> Any:
    return self.values[int(fraction * len(self.values))]


@dataclass(frozen=True)
class DrawnSpace:
  """The dictionary form: one dimension for each hyperparameter, in the order of the file."""

  dimensions: Mapping[str, Range | WholeRange | Choice]

  @property
  def names(self) -> tuple[str, ...]:
    return tuple(self.dimensions)


@dataclass(frozen=True)
class ListedSpace:
  """The list form: points that are taken as they are, in order."""

  listed: tuple[Point, ...]

  @property
  def names(self) -> tuple[str, ...]:
    return tuple(self.listed[0])


SearchSpace = DrawnSpace | ListedSpace


def load(path: Path | str) -> SearchSpace:
  """Reads and checks a search space.

  Raises:
    UserError: the file is missing, is not JSON, or is no search space.
  """
  path = Path(path)
  text = text_file.read(path, 'The search space')
  try:
    content = json.loads(text, object_pairs_hook=_without_repeats)
  except json.JSONDecodeError as error:
    where = f'line {error.lineno}, column {error.colno}'
    raise errors.UserError(
      f'A search space must be JSON; {path} is not: {error.msg} ({where}).'
    ) from None
  except _RepeatedNameError as error:
    raise errors.UserError(f'{path} names {error} twice in the same place; keep one.') from None
  except (ValueError, RecursionError):
    raise errors.UserError(
      f'A search space is flat and its numbers have few digits; {path} is nested too deep, or has '
      'a number of thousands of digits.'
    ) from None
  return parse(content, path)


def parse(content: Any, path: Path | str) -> SearchSpace:
  """Checks the content of a search space, which messages call by its path.

  Raises:
    UserError: it is no search space.
  """
  if not isinstance(content, (dict, list)) or not content:
    found = 'is empty' if content in ({}, []) else f'holds a {type(content).__name__}'
    raise errors.UserError(
      f'A search space must be a JSON dictionary of ranges or a list of points; {path} {found}.'
    )
  return _listed_space(content, path) if isinstance(content, list) else _drawn_space(content, path)


def points(space: SearchSpace, num_trials: int, seed: int) -> list[Point]:
  """The hyperparameter points of a study, in the order of its trials.

  A list of points that is shorter than `num_trials` gives all that it has, and a warning is logged.

  Args:
    seed: gives the order of drawn points; a list keeps its own.
  """
  if isinstance(space, ListedSpace):
    if len(space.listed) < num_trials:
      _log.warning(
        'The search space lists %d points, fewer than the %d trials asked for: %d trials are run.',
        len(space.listed),
        num_trials,
        len(space.listed),
      )
    return [dict(point) for point in space.listed[:num_trials]]
  fractions = halton(num_trials, len(space.dimensions))
  order = np.random.default_rng(seed).permutation(num_trials)
  return [
    {
      name: dimension.at(float(fraction))
      for (name, dimension), fraction in zip(space.dimensions.items(), fractions[i], strict=True)
    }
    for i in order
  ]


def as_object(point: Mapping[str, Any] | None) -> Any:
  """A point as submissions see it: a named tuple; None, which self tuning has, stays None."""
  if point is None:
    return None
  return collections.namedtuple('Hyperparameters', point)(**point)


def halton(num_points: int, num_dimensions: int) -> np.ndarray:
  """AlgoPerf's Halton points, [num_points, num_dimensions] in [0, 1).

  The bases are the largest primes under 1000 but for the very largest, ascending. In each dimension
  the digits are permuted and the sequence is shifted, both by `RandomState(base)`.
  """
  bases = _primes(_MAX_BASE)[1:-1][-num_dimensions:]
  if len(bases) < num_dimensions:
    raise errors.UserError(
      f'A search space may have at most {len(bases)} hyperparameters; it has {num_dimensions}.'
    )
  columns = [_halton_column(num_points, base) for base in bases]
  return np.stack(columns, axis=1)


def _halton_column(num_points: int, base: int) -> np.ndarray:
  random = np.random.RandomState(base)
  digits = np.concatenate([[0], random.permutation(np.arange(1, base))])
  shift = random.uniform()
  indices = np.arange(_NUM_SKIPPED + 1, _NUM_SKIPPED + 1 + num_points)
  return (radical_inverse(indices, base, digits) + shift) % 1.0


def radical_inverse(indices: np.ndarray, base: int, digits: np.ndarray) -> np.ndarray:
  """Van der Corput numbers: the digits of each index in `base`, mirrored at the point.

  Args:
    indices: whole numbers, [n].
    digits: what each digit becomes, [base]; `np.arange(base)` leaves them. 0 must become 0.
  """
  rest = np.array(indices)
  result = np.zeros(len(rest))
  scale = 1.0
  while rest.any():
    rest, digit = np.divmod(rest, base)
    scale /= base
    result += scale * digits[digit]
  return result


def _primes(below: int) -> list[int]:
  return [n for n in range(2, below) if all(n % d for d in range(2, math.isqrt(n) + 1))]


class _RepeatedNameError(ValueError):
  pass


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  content = dict(pairs)
  if len(content) < len(pairs):
    names = [name for name, _ in pairs]
    raise _RepeatedNameError(next(repr(name) for name in names if names.count(name) > 1))
  return content


def _listed_space(content: list[Any], path: Path | str) -> ListedSpace:
  for number, point in enumerate(content, 1):
    if not isinstance(point, dict):
      raise errors.UserError(
        f'A list of points must hold dictionaries of values; point {number} of {path} is '
        f'{errors.shown(point)}.'
      )
    if set(point) != set(content[0]):
      odd = ', '.join(sorted(set(point) ^ set(content[0])))
      raise errors.UserError(
        f'All points must name the same hyperparameters; point {number} of {path} differs from the '
        f'first in: {odd}.'
      )
    for name, value in point.items():
      _check_name(name, path)
      if isinstance(value, (dict, list)):
        raise errors.UserError(
          f'The values of a point must be numbers, strings, booleans or null; {name} of point '
          f'{number} of {path} is {errors.shown(value)}. (Ranges belong into a dictionary, not '
          'into a list.)'
        )
      _check_finite(value, f'{name} of point {number} of {path}')
  return ListedSpace(tuple(content))


def _drawn_space(content: dict[str, Any], path: Path | str) -> DrawnSpace:
  return DrawnSpace({name: _dimension(name, entry, path) for name, entry in content.items()})


def _dimension(name: str, entry: Any, path: Path | str) -> Range | WholeRange | Choice:
  _check_name(name, path)
  where = f'{name} in {path}'
  if isinstance(entry, dict) and set(entry) == {'feasible_points'}:
    values = entry['feasible_points']
    if not isinstance(values, list) or not values:
      raise errors.UserError(
        f'feasible_points must be a list of at least one value; that of {where} is '
        f'{errors.shown(values)}.'
      )
    for value in values:
      _check_finite(value, f'a feasible point of {where}')
    return Choice(values=tuple(values))
  if isinstance(entry, dict) and {*entry, 'type'} == {'min', 'max', 'scaling', 'type'}:
    return _range(entry, where)
  found = ', '.join(entry) or 'nothing' if isinstance(entry, dict) else errors.shown(entry)
  raise errors.UserError(
    'A hyperparameter must have min, max, scaling and perhaps type, or feasible_points; '
    f'{where} has {found}.'
  )


def _range(entry: dict[str, Any], where: str) -> Range | WholeRange:
  low, high, scaling, kind = entry['min'], entry['max'], entry['scaling'], entry.get('type')
  if kind is not None and kind not in _TYPES:
    raise errors.UserError(f'{where}: {errors.unknown("type", str(kind), _TYPES)}')
  for bound in (low, high):
    if not _is_finite(bound):
      raise errors.UserError(
        f'min and max must be finite numbers; {where} has min {errors.shown(low)} and max '
        f'{errors.shown(high)}.'
      )
  if not isinstance(scaling, str) or scaling not in _SCALINGS:
    raise errors.UserError(f'{where}: {errors.unknown("scaling", str(scaling), _SCALINGS)}')
  if low > high:
    raise errors.UserError(f'min must not exceed max; {where} has min {low} and max {high}.')
  if scaling == 'log' and low <= 0:
    raise errors.UserError(
      f'A logarithmic range must have positive bounds; {where} has min {low}. Use linear scaling.'
    )
  if kind == 'int':
    return _whole_range(low, high, scaling, where)
  if not math.isfinite(high / low if scaling == 'log' else float(high) - float(low)):
    raise errors.UserError(
      f'The bounds of a range lie too far apart for its points to differ; {where} has min {low} '
      f'and max {high}.'
    )
  return Range(low=low, high=high, scaling=scaling)  # type: ignore[arg-type]


def _whole_range(low: float, high: float, scaling: Any, where: str) -> WholeRange:
  for bound in (low, high):
    if bound != int(bound) or abs(bound) > _MAX_WHOLE:
      raise errors.UserError(
        'min and max of the type int must be whole numbers between -2^53 and 2^53; '
        f'{where} has min {low} and max {high}.'
      )
  return WholeRange(low=int(low), high=int(high), scaling=scaling)


def _is_finite(value: Any) -> bool:
  """True for a number that a float can hold."""
  try:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
  except OverflowError:
    return False


def _check_finite(value: Any, where: str) -> None:
  number = isinstance(value, (int, float)) and not isinstance(value, bool)
  if number and not _is_finite(value):
    raise errors.UserError(
      f'A hyperparameter that is a number must be finite; {where} is {errors.shown(value)}.'
    )


def _check_name(name: str, path: Path | str) -> None:
  if not name.isidentifier() or keyword.iskeyword(name) or name.startswith('_'):
    raise errors.UserError(
      'The name of a hyperparameter must be a Python name without a leading underscore; '
      f'{path} has {errors.shown(name)}.'
    )
  plain = unicodedata.normalize('NFKC', name)
  if name != plain:
    raise errors.UserError(f'Python reads the name {name!r} as {plain!r}; write it so in {path}.')
