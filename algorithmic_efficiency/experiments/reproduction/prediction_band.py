"""Predicts the metrics of one more run of a point from earlier runs of it.

At each step the band is Student's 99 % prediction interval for one more run: mean
± t * s * sqrt(1 + 1/n), with n logs and n - 1 degrees of freedom. The standard deviation s of a few
runs is often small by chance, so s is the root mean square over a step and its two neighbors. It is
at least a thousandth of the range of the mean over the run, so that single examples do not matter.
A run reproduces a metric if it is inside the band at nine of ten steps.

Both rules were chosen on AlgoPerf's published logs; see `tests/benchmarks/bench_reproduce.py`.
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
FLOOR = 1e-3
_NEIGHBORS = 1
# Two-sided 99 % points of Student's t by degrees of freedom; values in between use the wider one.
_STUDENT = {2: 9.925, 3: 5.841, 4: 4.604, 5: 4.032, 6: 3.707, 7: 3.499, 8: 3.355, 9: 3.250}
_STUDENT |= {10: 3.169, 12: 3.055, 15: 2.947, 20: 2.845, 30: 2.750, 60: 2.660, 120: 2.617}


@dataclass(frozen=True, kw_only=True)
class Band:
  """The band of one metric: `low` to `high` at each of `steps`, from `num_logs` logs there."""

  steps: np.ndarray
  low: np.ndarray
  high: np.ndarray
  num_logs: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Agreement:
  """The position of a run's metric in its band.

  Attributes:
    num_logs: smallest number of logs at any step.
    step, value, low, high: step, value and band at the largest distance from the middle of the
      band, relative to its width.
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


def bands(logs: Sequence[Log], steps: np.ndarray, *, floor: float = FLOOR) -> dict[str, Band]:
  """Returns the band of each metric, at the steps that have `MIN_LOGS` logs or more.

  A metric without such steps is left out.

  Args:
    floor: the smallest standard deviation, as a part of the range of the mean over the run.
  """
  found = {}
  for name in sorted({name for log in logs for name in log.curves}):
    values = np.array([log.at(name, steps) for log in logs])
    values[~np.isfinite(values)] = np.nan
    known = np.isfinite(values).sum(axis=0) >= MIN_LOGS
    if known.any():
      found[name] = _band(values[:, known], steps[known], floor)
  return found


def _band(values: np.ndarray, steps: np.ndarray, floor: float) -> Band:
  """Returns the band of values [logs, steps], with NaN where a log has no value."""
  num_logs = np.isfinite(values).sum(axis=0)
  mean = np.nanmean(values, axis=0)
  variance = np.nanvar(values, axis=0, ddof=1)
  spread = np.array(
    [
      math.sqrt(variance[max(0, i - _NEIGHBORS) : i + _NEIGHBORS + 1].mean())
      for i in range(len(steps))
    ]
  )
  spread = np.maximum(spread, floor * (mean.max() - mean.min()))
  quantiles = np.array([student(int(number) - 1) for number in num_logs])
  half = quantiles * spread * np.sqrt(1 + 1 / num_logs)
  return Band(steps=steps, low=mean - half, high=mean + half, num_logs=num_logs)


def student(degrees: int) -> float:
  """Returns the two-sided 99 % point of Student's t, or an upper bound of it."""
  listed = sorted(_STUDENT)
  return _STUDENT[listed[bisect.bisect_right(listed, degrees) - 1]]


def agreements(run: Log, expected: Mapping[str, Band]) -> list[Agreement]:
  """Returns the position of each metric of a run in its band, up to the run's last step.

  A value that is not finite is outside.
  """
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
