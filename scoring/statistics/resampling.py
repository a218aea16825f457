"""Intervals by resampling studies and trials as the ruleset draws them.

A study is a set of trials, of which the best counts. All studies of a cell may have the same points
of the search space: a list of points, or a seeded quasi-random set. Then a resampled study takes
for each point the trial of a random study: points are fixed, seeds are drawn. Otherwise a resampled
study is a random study with its trials drawn with replacement.

Few studies cannot give a nominal interval: the range of 3 covers the median at most 75 % of the
time. So the coverage that these intervals reach is simulated, for data like those at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scoring import profiles
from scoring.result import Result
from scoring.time_to_target import medians

LEVEL = 0.95
MIN_STUDIES = 2  # one study says nothing of the spread between studies
NUM_SIMULATED_SETS = 48
NUM_SIMULATED_RESAMPLES = 200


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
      them has a finite truth.
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
  scores = profiles.scores(drawn, result.columns, **result.score_options())
  score_held, time_held = _simulated_coverage(result, designs, seed)
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
    num_simulated=NUM_SIMULATED_SETS,
    num_studies=int(num_studies.max(initial=0)),
    num_trials=int(result.cells.num_trials.max(initial=0)),
    resampled_times=drawn,
  )


def percentiles(values: np.ndarray, level: float = LEVEL) -> np.ndarray:
  """[..., 2]: the interval of values along the first axis, not interpolated: inf takes part."""
  ordered = np.sort(values, axis=0)
  tail = (1.0 - level) / 2.0
  low = int(np.floor(tail * (len(ordered) - 1)))
  return np.stack([ordered[low], ordered[len(ordered) - 1 - low]], axis=-1)


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


def _simulated_coverage(
  result: Result, designs: dict[tuple[int, int], Design], seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Coverage of scores and of times on simulated sets with the spread and misses of the data.

  Returns [submission] and [submission, workload]: the share of sets whose interval holds the truth.
  It is NaN for a true score of zero and for a true time that is a miss. Every cell is taken to be
  log-normal with its own median and its own share of misses. The spread is pooled over the cells.
  The truth is the median of that distribution, and the score of these medians.
  """
  from statistics import NormalDist

  rng = np.random.default_rng([seed, 2])
  study_times = result.cells.study_times
  keys = sorted(designs)
  num_studies = np.array([designs[key].num_studies for key in keys])
  model = [_cell_model(study_times[key]) for key in keys]
  spread = pooled_log_spread(study_times)
  normal = NormalDist()
  truth = np.full(result.times.shape, np.nan)
  for key, (center, misses) in zip(keys, model, strict=True):
    share = 0.5 / (1.0 - misses) if misses < 0.5 else 1.0
    truth[key] = np.exp(center + spread * normal.inv_cdf(share)) if share < 1.0 else np.inf
  options = result.score_options()
  true_scores = profiles.scores(truth, result.columns, **options)
  most = int(num_studies.max())
  score_hits, time_hits = np.zeros(true_scores.shape), np.zeros(truth.shape)
  for _ in range(NUM_SIMULATED_SETS):
    data = _simulated_set(rng, keys, model, spread, num_studies, (*truth.shape, most))
    drawn = _resample_studies(rng, data, NUM_SIMULATED_RESAMPLES)
    low, high = np.moveaxis(percentiles(drawn), -1, 0)
    time_hits += (low <= truth) & (truth <= high)
    scores = profiles.scores(drawn, result.columns, **options)
    low, high = np.moveaxis(percentiles(scores), -1, 0)
    score_hits += (low - 1e-12 <= true_scores) & (true_scores <= high + 1e-12)
  return (
    np.where(true_scores > 0, score_hits / NUM_SIMULATED_SETS, np.nan),
    np.where(np.isfinite(truth), time_hits / NUM_SIMULATED_SETS, np.nan),
  )


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


def _cell_model(times: np.ndarray) -> tuple[float, float]:
  """The center of the finite log times and the share of misses of one cell."""
  present = times[~np.isnan(times)]
  finite = present[np.isfinite(present)]
  center = float(np.median(np.log(finite))) if len(finite) else 0.0
  return center, 1.0 - len(finite) / len(present)


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


def _simulated_set(
  rng: np.random.Generator,
  keys: Sequence[tuple[int, int]],
  model: Sequence[tuple[float, float]],
  spread: float,
  num_studies: np.ndarray,
  shape: tuple[int, ...],
) -> np.ndarray:
  data = np.full(shape, np.nan)
  for key, (center, misses), count in zip(keys, model, num_studies, strict=True):
    times = np.exp(center + spread * rng.standard_normal(count))
    data[(*key, slice(count))] = np.where(rng.random(count) < misses, np.inf, times)
  return data


def _resample_studies(rng: np.random.Generator, data: np.ndarray, num: int) -> np.ndarray:
  """[num, submission, workload]: medians of studies drawn with replacement within each cell."""
  counts = np.sum(~np.isnan(data), axis=-1)
  most = data.shape[-1]
  shape = (num, *data.shape)
  index = (rng.random(shape, dtype=np.float32) * counts[..., None]).astype(np.int16)
  drawn = np.take_along_axis(np.broadcast_to(data, shape), index.astype(np.intp), axis=-1)
  if (counts != most).any():
    drawn = np.where(np.arange(most) < counts[..., None], drawn, np.nan)
  return medians(drawn)
