"""How often intervals hold the truth: on simulated sets that are like the one at hand.

Every cell is taken to be log-normal with misses. The spread is pooled over the cells. A few studies
say little of how often a cell misses. So each simulated set draws that share anew, from what the
studies of the cell leave possible, beside the misses of all cells. The truth of a simulated set is
the median of its distributions, and the score of these medians.

Where costs of steps were measured, all times of a simulated set are also wrong by errors of costs.
How large these are is estimated anew in each set, from as few draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from scoring import profiles
from scoring.cost_errors import CostErrors
from scoring.profiles import Columns
from scoring.time_to_target import medians

LEVEL = 0.95
NUM_SETS = 48
NUM_RESAMPLES = 200
_PRIOR_STUDIES = 1.0  # how many studies the misses of all cells count as in each


@dataclass(frozen=True, kw_only=True)
class Model:
  """What study times are drawn from.

  Attributes:
    centers: [submission, workload], of log times that are no misses; NaN for a cell without runs.
    spread: of log times in all cells.
    num_studies, num_misses: [submission, workload].
  """

  centers: np.ndarray
  spread: float
  num_studies: np.ndarray
  num_misses: np.ndarray

  @classmethod
  def of(cls, study_times: np.ndarray) -> Model:
    """The model of [submission, workload, study] times."""
    with np.errstate(divide='ignore', invalid='ignore'):
      logs = np.where(np.isfinite(study_times), np.log(study_times), np.nan)
    num_studies = np.sum(~np.isnan(study_times), axis=-1)
    centers = np.nan_to_num(medians(logs))
    return cls(
      centers=np.where(num_studies > 0, centers, np.nan),
      spread=pooled_log_spread(study_times),
      num_studies=num_studies,
      num_misses=np.sum(np.isposinf(study_times), axis=-1),
    )

  def draw_miss_shares(self, rng: np.random.Generator) -> np.ndarray:
    """[submission, workload]: how often a study of each cell misses, as far as is known."""
    overall = self.num_misses.sum() / max(1, self.num_studies.sum())
    misses = self.num_misses + _PRIOR_STUDIES * overall
    hits = self.num_studies - self.num_misses + _PRIOR_STUDIES * (1 - overall)
    tiny = np.finfo(float).tiny
    shares = rng.beta(np.maximum(misses, tiny), np.maximum(hits, tiny))
    return np.where(misses == 0, 0.0, np.where(hits == 0, 1.0, shares))

  def true_times(self, miss_shares: np.ndarray) -> np.ndarray:
    """[submission, workload]: medians; inf where half of the studies miss, NaN without runs."""
    quantile = np.vectorize(NormalDist().inv_cdf, otypes=[float])
    often = miss_shares >= 0.5
    shifts = quantile(0.5 / (1 - np.where(often, 0.0, miss_shares)))
    times = np.exp(self.centers + self.spread * shifts)
    return np.where(often & ~np.isnan(times), np.inf, times)

  def draw(self, rng: np.random.Generator, miss_shares: np.ndarray) -> np.ndarray:
    """[submission, workload, study]: times of studies, as many as there are."""
    shape = (*self.centers.shape, int(self.num_studies.max(initial=1)))
    times = np.exp(self.centers[..., None] + self.spread * rng.standard_normal(shape))
    times = np.where(rng.random(shape) < miss_shares[..., None], np.inf, times)
    return np.where(np.arange(shape[-1]) < self.num_studies[..., None], times, np.nan)


def simulated(
  study_times: np.ndarray,
  which: Columns,
  options: Mapping[str, Any],
  seed: int,
  costs: CostErrors,
) -> tuple[np.ndarray, np.ndarray]:
  """The coverage of scores [submission] and of times [submission, workload].

  It is the share of simulated sets whose interval holds the truth. Sets with a true score of 0, or
  a true time that is a miss, do not count there; NaN if none does.

  Args:
    study_times: [submission, workload, study]; inf for a miss, NaN where there is no study.
    options: of `profiles.scores`.
    costs: what is uncertain in costs, of all submissions and workloads.
  """
  rng = np.random.default_rng([seed, 2])
  model = Model.of(study_times)
  scores, times = _Tally(study_times.shape[:1]), _Tally(study_times.shape[:2])
  for _ in range(NUM_SETS):
    shares = model.draw_miss_shares(rng)
    truth = model.true_times(shares)
    true_scores = profiles.scores(truth, which, **options)
    factors, found = costs.simulate(rng)
    drawn = resample_studies(rng, model.draw(rng, shares) * factors[..., None], NUM_RESAMPLES)
    drawn *= found.draw(rng, NUM_RESAMPLES)
    times.add(percentiles(drawn), truth, counts=np.isfinite(truth))
    drawn_scores = profiles.scores(drawn, which, **options)
    scores.add(percentiles(drawn_scores), true_scores, counts=true_scores > 0)
  return scores.shares, times.shares


class _Tally:
  """How often intervals have held the truth where it counts."""

  def __init__(self, shape: tuple[int, ...]):
    self._held, self._known = np.zeros(shape), np.zeros(shape)

  def add(self, bounds: np.ndarray, truth: np.ndarray, *, counts: np.ndarray) -> None:
    self._held += counts & holds(bounds, truth)
    self._known += counts

  @property
  def shares(self) -> np.ndarray:
    known = np.where(self._known > 0, self._known, np.nan)
    return self._held / known


def holds(bounds: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """Whether intervals [..., 2] hold the truth [...]."""
  return (bounds[..., 0] - 1e-12 <= truth) & (truth <= bounds[..., 1] + 1e-12)


def percentiles(values: np.ndarray, level: float = LEVEL) -> np.ndarray:
  """[..., 2]: the interval of values along the first axis, not interpolated: inf takes part."""
  ordered = np.sort(values, axis=0)
  tail = (1.0 - level) / 2.0
  low = int(np.floor(tail * (len(ordered) - 1)))
  return np.stack([ordered[low], ordered[len(ordered) - 1 - low]], axis=-1)


def pooled_log_spread(study_times: np.ndarray) -> float:
  """Standard deviation of log study times within cells, pooled over the cells with two or more."""
  with np.errstate(invalid='ignore', divide='ignore'):
    logs = np.where(np.isfinite(study_times) & (study_times > 0), np.log(study_times), np.nan)
  counts = np.sum(~np.isnan(logs), axis=-1)
  useful = logs[counts >= 2]
  if not len(useful):
    return 0.0
  squares = np.nansum((useful - np.nanmean(useful, axis=-1, keepdims=True)) ** 2)
  return float(np.sqrt(squares / np.sum(counts[counts >= 2] - 1)))


def resample_studies(rng: np.random.Generator, data: np.ndarray, num: int) -> np.ndarray:
  """[num, submission, workload]: medians of studies drawn with replacement within each cell."""
  counts = np.sum(~np.isnan(data), axis=-1)
  most = data.shape[-1]
  shape = (num, *data.shape)
  index = (rng.random(shape, dtype=np.float32) * counts[..., None]).astype(np.int16)
  drawn = np.take_along_axis(np.broadcast_to(data, shape), index.astype(np.intp), axis=-1)
  if (counts != most).any():
    drawn = np.where(np.arange(most) < counts[..., None], drawn, np.nan)
  return medians(drawn)
