"""What stays uncertain in the costs of steps, however many studies measure them.

The logarithm of a measured cost has three errors:

- within a process, from burst to burst;
- between processes, which are fresh in each study;
- of the place: a part that stays on one host and does not average out over studies.

The first two differ from study to study, and each study has its own cost. So they are in the spread
of study times, which intervals and verdicts take into account. This module is for the third.

In each study a second process of the baseline is timed like any submission. Its true cost is 1.
Its mean over the studies is a draw of what two copies of one algorithm differ by. It has all of the
third error, and what averaging has left of the others. There is one draw for each workload,
framework and host. Their root mean square is `log_sd`. As they are few, quantiles are those of
Student's t, with a degree of freedom for each. So copies exceed `least_effect` at its level,
whichever of the three errors is the largest (`tests/simulations/cost_rates.py`). Of many pairs, a
few differ by more than each alone. So a leaderboard takes the quantile of the largest difference.

Where costs are the step times of trials, this error is not known and in no interval. Captions and
`compare` name such workloads (`not_measured`).

Half of the variance is a submission's, and half the baseline's. The baseline's is common to all
that were measured beside it, and cancels between two of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scoring import student

if TYPE_CHECKING:
  import pandas as pd

  from scoring.result import Result

LEVEL = 0.95
NOT_MEASURED = -1
_NUM_DRAWS = 20_000  # of the largest difference of any pair
_LARGEST_LOG = 20.0  # of an error: the tails of one degree of freedom have no end
_PLACE = ['host', 'framework']


@dataclass(frozen=True, kw_only=True)
class CostErrors:
  """Errors of the logarithms of costs that are common to all studies.

  Attributes:
    log_sd: standard deviation of the difference between two submissions of one place; 0 where
      the baseline was not measured against itself.
    df: degrees of freedom of `log_sd`; 0 where it is not known.
    places: [submission, workload], the number of the framework and host whose baseline is the unit;
      NOT_MEASURED where costs were not measured in turn with the baseline.
    is_unit: [submission, workload], whether the submission is the baseline, whose cost is exact.
  """

  log_sd: float
  df: int
  places: np.ndarray
  is_unit: np.ndarray

  def draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
    """Draws factors by which times may be wrong: [num, submission, workload], around 1.

    All of a draw have one spread, which is itself drawn: it is known with `df` degrees of freedom.
    """
    if not self.df:
      return np.ones((num, *self.places.shape))
    log_sds = self.log_sd * np.sqrt(self.df / rng.chisquare(self.df, size=num))
    return self._factors(rng, log_sds)

  def simulate(self, rng: np.random.Generator) -> tuple[np.ndarray, CostErrors]:
    """Draws another measurement of the same kind, as if `log_sd` were exact.

    Returns:
      The factors [submission, workload] by which its times are wrong, and the errors that would be
      found from it, with another `log_sd`. All factors are 1 where costs were not measured.
    """
    if not self.df:
      return np.ones(self.places.shape), self
    found = self.log_sd * math.sqrt(rng.chisquare(self.df) / self.df)
    return self._factors(rng, np.array([self.log_sd]))[0], replace(self, log_sd=found)

  def _factors(self, rng: np.random.Generator, log_sds: np.ndarray) -> np.ndarray:
    """[num, submission, workload]: factors with each of the standard deviations [num]."""
    return np.exp(np.clip(self._logs(rng, log_sds), -_LARGEST_LOG, _LARGEST_LOG))

  def _logs(self, rng: np.random.Generator, log_sds: np.ndarray) -> np.ndarray:
    """[num, submission, workload]: errors of log costs with each standard deviation [num]."""
    shape = (len(log_sds), *self.places.shape)
    own = rng.standard_normal(shape)
    units = rng.standard_normal((shape[0], self.places.max() + 1, shape[-1]))
    columns = np.arange(shape[-1])
    unit = units[:, np.maximum(self.places, 0), columns]
    exact = self.is_unit | (self.places == NOT_MEASURED)
    return log_sds[:, None, None] / math.sqrt(2) * np.where(exact, 0.0, own - unit)

  def least_effect(
    self, a: int, b: int, workloads: Sequence[int], *, level: float = 1 - LEVEL
  ) -> float:
    """The log ratio beyond which two submissions are not copies, as far as costs are concerned.

    Args:
      a, b: submissions.
      workloads: those whose log ratios the effect is the mean of.
      level: how often copies may exceed it, in either direction.

    Returns:
      A margin of at least 0 for the absolute mean log ratio; 0 where costs were not measured.
    """
    return self.quantile([(a, b)], workloads, level=level) * self.difference_sd(a, b, workloads)

  def difference_sd(self, a: int, b: int, workloads: Sequence[int]) -> float:
    """Standard deviation of the mean log ratio of copies, by `log_sd`; 0 if not measured."""
    return self.log_sd * self._relative_sd(a, b, workloads)

  def quantile(
    self,
    pairs: Sequence[tuple[int, int]],
    workloads: Sequence[int],
    *,
    level: float = 1 - LEVEL,
  ) -> float:
    """How many standard deviations the copies of any pair differ by, at most, but for `level`.

    Pairs have submissions in common, and all have one estimate of `log_sd`. So it is simulated for
    several pairs: the largest difference of any, over an estimate with `df` degrees of freedom.
    """
    if not self.df or not pairs:
      return 0.0
    if len(pairs) == 1:
      return student.quantile(1 - level / 2, self.df)
    rng = np.random.default_rng([len(pairs), self.df])
    means = self._logs(rng, np.ones(_NUM_DRAWS))[..., list(workloads)].mean(axis=-1)
    largest = np.zeros(_NUM_DRAWS)
    for a, b in pairs:
      sd = self._relative_sd(a, b, workloads)
      if sd > 0.0:
        np.maximum(largest, np.abs(means[:, a] - means[:, b]) / sd, out=largest)
    largest /= np.sqrt(rng.chisquare(self.df, size=_NUM_DRAWS) / self.df)
    return float(np.quantile(largest, 1 - level))

  def _relative_sd(self, a: int, b: int, workloads: Sequence[int]) -> float:
    """Standard deviation of the mean log ratio of copies, where `log_sd` is 1."""
    if not self.df or not workloads:
      return 0.0
    num_errors = sum(self._num_errors(a, b, workload) for workload in workloads)
    return math.sqrt(num_errors / 2) / len(workloads)

  def margin(self, log_costs: np.ndarray, level: float = LEVEL) -> float:
    """Half of the interval for the mean log cost of a submission, at a level.

    Args:
      log_costs: [study], of the submission on one workload.

    Returns:
      That of Student for the mean over studies, or what copies differ by, whichever is larger. NaN
      if neither is known.
    """
    margins = []
    if self.df:
      margins.append(student.quantile((1 + level) / 2, self.df) * self.log_sd)
    if len(log_costs) >= 2:
      margins.append(mean_margin(log_costs, level))
    return max(margins, default=math.nan)

  def _num_errors(self, a: int, b: int, workload: int) -> int:
    """How many independent errors the log ratio of two submissions has on a workload.

    A measured cost has two: its own, and that of its unit, which is common to a place.
    """
    places = [
      int(self.places[one, workload])
      for one in (a, b)
      if self.places[one, workload] != NOT_MEASURED and not self.is_unit[one, workload]
    ]
    is_common = len(set(places)) < len(places)
    return len(places) if is_common else 2 * len(places)


def mean_margin(logs: np.ndarray, level: float = LEVEL) -> float:
  """Half of Student's interval for the mean of two or more independent measures."""
  quantile = student.quantile((1 + level) / 2, len(logs) - 1)
  return quantile * float(logs.std(ddof=1)) / math.sqrt(len(logs))


def of(result: Result) -> CostErrors:
  """Finds the errors of a result from its columns `log_bias`, `unit` and `cost_basis`."""
  table = result.outcomes[result.outcomes.cost_basis == 'rounds']
  numbers = {key: number for number, key in enumerate(sorted(set(_keys(table))))}
  shape = (len(result.submissions), len(result.workloads))
  places, is_unit = np.full(shape, NOT_MEASURED), np.zeros(shape, dtype=bool)
  for row, key in zip(table.itertuples(), _keys(table), strict=True):
    cell = result.submissions.index(row.submission), result.workloads.index(row.workload)
    places[cell], is_unit[cell] = numbers[key], row.entry == row.unit
  biases = table.groupby(['workload', *_PLACE], observed=True).log_bias.first().dropna()
  return CostErrors(
    log_sd=float(np.sqrt(np.mean(np.square(biases)))) if len(biases) else 0.0,
    df=len(biases),
    places=places,
    is_unit=is_unit,
  )


def not_measured(result: Result) -> tuple[str, ...]:
  """The workloads whose costs have errors of the place that nobody measured.

  There, costs are the step times of trials, or the baseline was not timed against itself. Their
  spread over studies counts, and what studies have in common does not.
  """
  table = result.outcomes
  is_timed_twice = (table.cost_basis == 'rounds') & table.log_bias.notna()
  is_exact = table.cost_basis.isin(('', 'plain'))
  return tuple(sorted(set(table.workload[~(is_timed_twice | is_exact)])))


def _keys(table: pd.DataFrame) -> list[tuple[str, str]]:
  return list(table[_PLACE].itertuples(index=False, name=None))
