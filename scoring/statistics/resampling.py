"""Intervals by resampling studies and trials as the ruleset draws them.

A study is a set of trials, of which the best counts. All studies of a cell may have the same points
of the search space: a list of points, or a seeded quasi-random set. Then a resampled study takes
for each point the trial of a random study: points are fixed, seeds are drawn. Otherwise a resampled
study is a random study with its trials drawn with replacement.

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
from scoring.time_to_target import medians

MIN_STUDIES = 2  # one study says nothing of the spread between studies


@dataclass(frozen=True, kw_only=True)
class Design:
  """How the studies of one cell are redrawn.

  values: [group, member], the trials in the order of the rules as ranks; a resampled study takes
  `num_slots` draws. With fixed points a group is a point and each slot has its own group; otherwise
  a group is a study, and one is drawn for all slots.
  """

  times: np.ndarray  # [rank], sorted by preference
  ranks: np.ndarray  # [group, member]
  counts: np.ndarray  # [group], members that exist
  fixed_points: bool
  num_studies: int

  def draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
    """[num, study]: the times of `num` resampled sets of studies."""
    shape = (num, self.num_studies)
    num_groups = len(self.counts)
    best = np.full(shape, len(self.times), dtype=np.int32)
    chosen = np.zeros(shape, dtype=np.int64)
    if not self.fixed_points:
      chosen = rng.integers(num_groups, size=shape)
    for slot in range(num_groups if self.fixed_points else int(self.counts.max())):
      if self.fixed_points:
        members = (rng.random(shape, dtype=np.float32) * self.counts[slot]).astype(np.int32)
        drawn = self.ranks[slot][members]
      else:
        members = (rng.random(shape, dtype=np.float32) * self.counts[chosen]).astype(np.int32)
        drawn = np.where(slot < self.counts[chosen], self.ranks[chosen, members], len(self.times))
      best = np.minimum(best, drawn)
    return self.times[best]


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
  num_trials: int
  shared_points: bool
  resampled_times: np.ndarray


def median_coverage(num_studies: int) -> float:
  """The most that the range of `num_studies` independent studies covers the median: exact."""
  return 1.0 - 2.0 * 0.5**num_studies


def intervals(result: Result, *, num_resamples: int, seed: int) -> Intervals:
  """Resamples every cell and scores the tables; vectorized over the resamples."""
  rng = np.random.default_rng([seed, 1])
  designs = cell_designs(result)
  shape = result.times.shape
  drawn = _draw_tables(designs, shape, rng, num_resamples)
  costs = cost_errors.of(result)
  drawn = drawn * costs.draw(rng, num_resamples)
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
    num_trials=int(result.cells.num_trials.max(initial=0)),
    shared_points=result.rules.ruleset == 'external'
    and any(design.fixed_points for design in designs.values())
    and bool((result.outcomes.hyperparameters != '').any()),
    resampled_times=drawn,
  )


def cell_designs(result: Result) -> dict[tuple[int, int], Design]:
  """The design of every cell that has runs, by submission and workload index."""
  table = result.outcomes.sort_values(
    ['row', 'submission_time_sec', 'trial'], na_position='last', kind='stable'
  )
  submission_of = {name: index for index, name in enumerate(result.submissions)}
  workload_of = {name: index for index, name in enumerate(result.workloads)}
  designs = {}
  for (submission, workload), group in table.groupby(['submission', 'workload'], sort=True):
    points = _fixed_points(group.study.tolist(), group.hyperparameters.tolist())
    labels = group.study.tolist() if points is None else points
    designs[submission_of[submission], workload_of[workload]] = _design(
      group.time.to_numpy(), labels, points is not None, group.study.nunique()
    )
  return designs


def _fixed_points(studies: Sequence[str], points: Sequence[str]) -> list[str] | None:
  """The points if every study has the same set of them, each once; None otherwise."""
  by_study: dict[str, list[str]] = {}
  for study, point in zip(studies, points, strict=True):
    by_study.setdefault(study, []).append(point)
  sets = {tuple(sorted(found)) for found in by_study.values()}
  if len(sets) != 1:
    return None
  only = next(iter(sets))
  one_trial_without_points = only == ('',)  # self tuning
  known = '' not in only and len(set(only)) == len(only)
  return list(points) if known or one_trial_without_points else None


def _design(
  times: np.ndarray, labels: Sequence[str], fixed_points: bool, num_studies: int
) -> Design:
  groups: dict[str, list[int]] = {}
  for rank, label in enumerate(labels):
    groups.setdefault(label, []).append(rank)
  ordered = [groups[label] for label in sorted(groups)]
  counts = np.array([len(group) for group in ordered])
  ranks = np.zeros((len(ordered), counts.max()), dtype=np.int32)
  for index, group in enumerate(ordered):
    ranks[index, : len(group)] = group
  return Design(
    times=np.append(times, np.inf),
    ranks=ranks,
    counts=counts,
    fixed_points=fixed_points,
    num_studies=num_studies,
  )


def _draw_tables(
  designs: dict[tuple[int, int], Design],
  shape: tuple[int, ...],
  rng: np.random.Generator,
  num: int,
) -> np.ndarray:
  tables = np.full((num, *shape), np.nan)
  for (submission, workload), design in designs.items():
    tables[:, submission, workload] = medians(design.draw(rng, num))
  return tables


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
