"""Intervals by resampling whole studies, with the trials that they have.

A study is a set of trials, of which the best counts. Studies are independent of each other, and
trials of one study are not: they share its seed, and may be points of one quasi-random set. So a
resample draws studies of each cell with replacement, and counts each as it is. The same draws give
the coverage. Where all studies have the same points, an interval is of these points alone.

Where costs of steps were measured, each resample also draws what stays uncertain in them.

Few studies cannot give a nominal interval: the range of 3 covers the median at most 75 % of the
time. So the coverage that these intervals reach is simulated, for data like those at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scoring import cost_errors, profiles
from scoring.result import Result
from scoring.statistics import coverage
from scoring.statistics.coverage import LEVEL, percentiles

MIN_STUDIES = 2  # one study says nothing of the spread between studies


@dataclass(frozen=True, kw_only=True)
class Intervals:
  """Percentile intervals at LEVEL and the coverage that they reach on simulated sets like this one.

  Attributes:
    scores: [submission, 2]; NaN with fewer than MIN_STUDIES studies.
    times: [submission, workload, 2]; NaN with fewer than MIN_STUDIES studies.
    score_coverage, time_coverage: share of simulated intervals that hold the truth.
    score_coverages: [submission], the share over those with equally many studies; NaN if none of
      them ever has a finite truth.
    shared_points: whether all studies of a submission have the same points of its search space.
    time_coverages: [submission, workload], likewise.
    num_simulated: number of simulated sets.
    resampled_times: [resample, submission, workload].
  """

  level: float
  num_resamples: int
  scores: np.ndarray
  times: np.ndarray
  score_coverage: float
  time_coverage: float
  score_coverages: np.ndarray
  time_coverages: np.ndarray
  num_simulated: int
  num_studies: int
  shared_points: bool
  resampled_times: np.ndarray


def median_coverage(num_studies: int) -> float:
  """The most that the range of `num_studies` independent studies covers the median: exact."""
  return 1.0 - 2.0 * 0.5**num_studies


def intervals(result: Result, *, num_resamples: int, seed: int) -> Intervals:
  """Resamples every cell and scores the tables; vectorized over the resamples."""
  rng = np.random.default_rng([seed, 1])
  costs = cost_errors.of(result)
  drawn = coverage.resample_studies(rng, result.cells.study_times, num_resamples)
  drawn *= costs.draw(rng, num_resamples)
  scores = profiles.scores(drawn, result.columns, **result.score_options())
  score_held, time_held = coverage.simulated(
    result.cells.study_times, result.columns, result.score_options(), seed, costs
  )
  num_studies = result.cells.num_studies
  usual = usual_num_studies(num_studies)
  score_held[usual < MIN_STUDIES] = np.nan
  time_held[num_studies < MIN_STUDIES] = np.nan
  return Intervals(
    level=LEVEL,
    num_resamples=num_resamples,
    scores=np.where((usual < MIN_STUDIES)[:, None], np.nan, percentiles(scores)),
    times=np.where((num_studies < MIN_STUDIES)[..., None], np.nan, percentiles(drawn)),
    score_coverage=_mean(score_held),
    time_coverage=_mean(time_held),
    score_coverages=_means_by(usual, score_held),
    time_coverages=_means_by(num_studies, time_held),
    num_simulated=coverage.NUM_SETS,
    num_studies=int(num_studies.max(initial=0)),
    shared_points=result.rules.ruleset == 'external' and _share_points(result),
    resampled_times=drawn,
  )


def _share_points(result: Result) -> bool:
  """Whether there are cells whose studies all have the same known points, each once."""
  cells = result.outcomes.groupby(['submission', 'workload'])
  return any(_have_one_set(rows.study.tolist(), rows.hyperparameters.tolist()) for _, rows in cells)


def _have_one_set(studies: Sequence[str], points: Sequence[str]) -> bool:
  by_study: dict[str, list[str]] = {}
  for study, point in zip(studies, points, strict=True):
    by_study.setdefault(study, []).append(point)
  first, *others = (sorted(found) for found in by_study.values())
  known = '' not in first and len(set(first)) == len(first)
  return known and all(one == first for one in others)


def usual_num_studies(num_studies: np.ndarray) -> np.ndarray:
  """[submission]: the median number of studies over the workloads that a submission ran."""
  ran = [counts[counts > 0] for counts in num_studies]
  return np.array([int(np.median(counts)) if len(counts) else 0 for counts in ran])


def _mean(values: np.ndarray) -> float:
  known = values[~np.isnan(values)]
  return float(known.mean()) if len(known) else float('nan')


def _means_by(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
  """For every entry the mean of the known values with the same label; NaN without runs (0)."""
  means = np.full(values.shape, np.nan)
  for label in np.unique(labels[labels > 0]):
    means[labels == label] = _mean(values[labels == label])
  return means
