"""From times to scores: the rules that turn times into misses, profiles and their integral.

Every function works on arrays whose last two axes are [submission, workload], so that a thousand
resampled tables cost one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from algorithmic_efficiency.benchmark.suites import Integral

NUM_POINTS = 100


@dataclass(frozen=True, kw_only=True)
class Columns:
  """Which columns of a table of times are scored, and which hold their held-out variants.

  held_out_base[i] is the position, in `base`, of the workload whose variant column held_out[i] is.
  num_counted is the number of workloads that a score is a mean over.
  """

  base: tuple[int, ...]
  held_out: tuple[int, ...]
  held_out_base: tuple[int, ...]
  num_counted: int


def columns(workloads: Sequence[str], base_of: dict[str, str], num_counted: int) -> Columns:
  """base_of names the base of each held-out workload; all others are base workloads."""
  position = {name: index for index, name in enumerate(workloads)}
  base = [name for name in workloads if name not in base_of]
  held_out = [name for name in workloads if name in base_of]
  return Columns(
    base=tuple(position[name] for name in base),
    held_out=tuple(position[name] for name in held_out),
    held_out_base=tuple(base.index(base_of[name]) for name in held_out),
    num_counted=num_counted,
  )


def _limited(times: np.ndarray, max_ratio: float) -> np.ndarray:
  fastest = times.min(axis=-2, keepdims=True)
  return np.where(times > max_ratio * fastest, np.inf, times)


def surviving(times: np.ndarray, which: Columns, max_ratio: float) -> np.ndarray:
  """[..., submission, base workload]: the times that count; everything else is inf.

  Three rules apply in this order. A held-out time counts only with a hit on its base. A time above
  `max_ratio` times the column's fastest is a miss. A base time counts only with a hit on its
  held-out variants.
  """
  times = np.where(np.isnan(times), np.inf, times)
  base = times[..., list(which.base)]
  if not which.held_out:
    return _limited(base, max_ratio)
  owner = list(which.held_out_base)
  held_out = np.where(np.isinf(base[..., owner]), np.inf, times[..., list(which.held_out)])
  base, held_out = _limited(base, max_ratio), _limited(held_out, max_ratio)
  base = base.copy()
  for index, position in enumerate(owner):
    base[..., position] = np.where(np.isinf(held_out[..., index]), np.inf, base[..., position])
  return base


def ratios(times: np.ndarray, reference: int | None = None) -> np.ndarray:
  """Each time over the fastest of its column, or over a reference submission's; misses are inf."""
  if reference is None:
    unit = times.min(axis=-2, keepdims=True)
  else:
    unit = times[..., reference : reference + 1, :]
  with np.errstate(invalid='ignore', divide='ignore'):
    found = np.where(times == unit, 1.0, times / unit)
  return np.where(np.isinf(times) | np.isinf(unit), np.inf, found)


def utility(found: np.ndarray, max_ratio: float, integral: Integral) -> np.ndarray:
  """What a ratio contributes to the score: 1 for the fastest, 0 from `max_ratio` on.

  The integral of the step function 1[ratio <= tau] over tau in [1, max_ratio], divided by the
  range: its area, or the trapezoid sum on 100 points.
  """
  if integral == 'exact':
    return np.clip((max_ratio - np.maximum(found, 1.0)) / (max_ratio - 1.0), 0.0, 1.0)
  points = np.linspace(1.0, max_ratio, NUM_POINTS)
  width = np.diff(points)
  weights = (np.append(width, 0.0) + np.append(0.0, width)) / 2
  above = np.append(np.cumsum(weights[::-1])[::-1], 0.0) / (max_ratio - 1.0)
  return above[np.searchsorted(points, found, 'left')]


def profile(found: np.ndarray, num_counted: int, max_ratio: float) -> np.ndarray:
  """[submission, point]: the share of workloads with a ratio of at most tau, on 100 points."""
  points = np.linspace(1.0, max_ratio, NUM_POINTS)
  return (found[:, :, None] <= points).sum(axis=1) / num_counted


def scores(
  times: np.ndarray,
  which: Columns,
  *,
  max_ratio: float,
  integral: Integral,
  reference: int | None = None,
) -> np.ndarray:
  """[..., submission]: the score of every submission in tables of times, in [0, 1]."""
  found = ratios(surviving(times, which, max_ratio), reference)
  return utility(found, max_ratio, integral).sum(axis=-1) / which.num_counted
