"""Where one more run of the same point is expected, going by the runs that there are.

At each step the band is Student's prediction interval of 99 % for one further run: mean
± t * s * sqrt(1 + 1/n), with n logs and t at n - 1 degrees of freedom. Its s is the root mean
square over the step and its two neighbours, for that of so few runs is often small by chance alone;
it is never less than a thousandth of the way that the mean goes over the run, so that one example
more or less does not count. A run reproduces a metric if it is inside at nine steps of ten.

Both were chosen on AlgoPerf's published logs, as `tests/benchmarks/bench_reproduce.py` shows.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from algorithmic_efficiency.experiments.reproduction.reference_logs import Log

MIN_LOGS = 3
SHARE_INSIDE = 0.9
_FLOOR = 1e-3
_NEIGHBOURS = 1
# Two-sided 99 % points of Student's t by degrees of freedom; between two the wider one is taken.
_STUDENT = {2: 9.925, 3: 5.841, 4: 4.604, 5: 4.032, 6: 3.707, 7: 3.499, 8: 3.355, 9: 3.250}
_STUDENT |= {10: 3.169, 12: 3.055, 15: 2.947, 20: 2.845, 30: 2.750, 60: 2.660, 120: 2.617}


@dataclass(frozen=True, kw_only=True)
class Band:
  """The band of one metric: `low` to `high` at each of `steps`, by `num_logs` logs there."""

  steps: np.ndarray
  low: np.ndarray
  high: np.ndarray
  num_logs: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Agreement:
  """How the metric of a run lies in its band.

  Attributes:
    num_logs: by how many logs, where there are fewest.
    step, value, low, high: where it is furthest from the middle of the band, for the band's width.
  """

  metric: str
  num_logs: int
  num_steps: int
  num_inside: int
  step: int
  value: float
  low: float
  high: float

  @property
  def is_inside(self) -> bool:
    return self.num_inside >= SHARE_INSIDE * self.num_steps


def bands(logs: Sequence[Log], steps: np.ndarray) -> dict[str, Band]:
  """The band of each metric, at those of the steps for which there are `MIN_LOGS` logs; a metric
  without any is left out."""
  found = {}
  for name in sorted({name for log in logs for name in log.curves}):
    values = np.array([log.at(name, steps) for log in logs])
    values[~np.isfinite(values)] = np.nan
    known = np.isfinite(values).sum(axis=0) >= MIN_LOGS
    if known.any():
      found[name] = _band(values[:, known], steps[known])
  return found


def _band(values: np.ndarray, steps: np.ndarray) -> Band:
  """The band of [logs, steps], NaN where a log has no value."""
  num_logs = np.isfinite(values).sum(axis=0)
  mean = np.nanmean(values, axis=0)
  variance = np.nanvar(values, axis=0, ddof=1)
  spread = np.array(
    [
      math.sqrt(variance[max(0, i - _NEIGHBOURS) : i + _NEIGHBOURS + 1].mean())
      for i in range(len(steps))
    ]
  )
  spread = np.maximum(spread, _FLOOR * (mean.max() - mean.min()))
  quantiles = np.array([student(int(number) - 1) for number in num_logs])
  half = quantiles * spread * np.sqrt(1 + 1 / num_logs)
  return Band(steps=steps, low=mean - half, high=mean + half, num_logs=num_logs)


def student(degrees: int) -> float:
  """The two-sided 99 % point of Student's t; never less than it is."""
  listed = sorted(_STUDENT)
  return _STUDENT[listed[bisect.bisect_right(listed, degrees) - 1]]


def agreements(run: Log, expected: Mapping[str, Band]) -> list[Agreement]:
  """How each metric that a run has lies in its band, as far as the run got. What is not finite is
  outside."""
  found = []
  for name, band in expected.items():
    reached = band.steps <= run.steps[-1]
    if name not in run.curves or not reached.any():
      continue
    values, low, high = run.at(name, band.steps)[reached], band.low[reached], band.high[reached]
    inside = (low <= values) & (values <= high)
    distance = np.abs(values - (low + high) / 2) / np.maximum(high - low, np.finfo(float).tiny)
    worst = int(np.argmax(np.where(np.isfinite(distance), distance, np.inf)))
    found.append(
      Agreement(
        metric=name,
        num_logs=int(band.num_logs[reached].min()),
        num_steps=int(reached.sum()),
        num_inside=int(inside.sum()),
        step=int(band.steps[reached][worst]),
        value=float(values[worst]),
        low=float(low[worst]),
        high=float(high[worst]),
      )
    )
  return found
