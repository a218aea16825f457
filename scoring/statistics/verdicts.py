"""Better, worse or undecided: a randomization test for each pair of submissions.

The quantity is the mean over workloads of the log ratio of study times. A miss counts as the
cut-off ratio times the fastest study of the pair. Under the null hypothesis the two are copies, so
that exchanging them changes nothing. Within a pair of studies of equal seed, the sign of their
difference flips. Without common seeds, the labels of the studies of a workload permute. That is
exact for any distribution and any number of studies; it needs no normality.

A verdict needs p <= 5 % after Holm's correction over all the pairs of the leaderboard. It also
needs an effect of at least `MIN_EFFECT`, below which differences of hosts and timers hide. Where
the cost of a step was measured, the effect must exceed the noise of that cost.
The noise is the largest difference from 1 of the baseline measured against itself in any study,
averaged over workloads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from scoring.result import Result

ALPHA = 0.05
POWER = 0.8
MIN_EFFECT = 0.02
NUM_PERMUTATIONS = 10_000
MAX_MORE_STUDIES = 200
_EXACT_PAIRS = 13  # up to here every pattern of signs is looked at


@dataclass(frozen=True, kw_only=True)
class Verdict:
  """What is known of `a` against `b`.

  Attributes:
    verdict: 'better', 'worse' or 'undecided', of `a`.
    effect: the geometric mean over workloads of b's time over a's; above 1, `a` is faster.
    min_effect: the smallest effect that is more than noise, as a ratio above 1.
    p, adjusted_p: of the randomization test, before and after Holm's correction.
    paired: whether the studies have common seeds.
    more_studies: how many more studies of each would decide with 80 % power, if the effect is as
      measured. None: it is decided, or out of reach.
  """

  a: str
  b: str
  verdict: str
  effect: float
  min_effect: float
  p: float
  adjusted_p: float
  paired: bool
  num_studies: int
  num_workloads: int
  more_studies: int | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
  """The evidence of one pair by workload; differences are positive where `a` is faster."""

  differences: tuple[np.ndarray, ...] | None  # paired: one array a workload
  samples: tuple[tuple[np.ndarray, np.ndarray], ...]  # log times of a and of b a workload
  log_floors: tuple[float, ...] = ()  # noise of the cost of a step; one a workload

  @property
  def min_effect(self) -> float:
    """The smallest log ratio that is more than noise of hosts, timers and costs."""
    floor = float(np.mean(self.log_floors)) if self.log_floors else 0.0
    return max(float(np.log1p(MIN_EFFECT)), floor)

  @property
  def effect(self) -> float:
    if not self.samples:
      return 0.0
    return float(np.mean([b.mean() - a.mean() for a, b in self.samples]))

  @property
  def num_studies(self) -> int:
    return min((min(len(a), len(b)) for a, b in self.samples), default=0)


_Seeds = dict[tuple[int, int], list[int]]
_Floors = dict[tuple[int, int], float]


def all_pairs(result: Result, *, seed: int) -> tuple[Verdict, ...]:
  """The verdict of every pair, corrected for their number."""
  order = result.ranking
  pairs = [(a, b) for i, a in enumerate(order) for b in order[i + 1 :]]
  seeds = study_seeds(result)
  floors = log_floors(result)
  comparisons = [compare(result, a, b, seeds, floors) for a, b in pairs]
  draws = Draws(seed)
  values = [p_value(comparison, draws) for comparison in comparisons]
  adjusted = holm(values)
  return tuple(
    _verdict(result, pair, comparison, p, corrected, len(pairs))
    for pair, comparison, p, corrected in zip(pairs, comparisons, values, adjusted, strict=True)
  )


def one_pair(result: Result, a: str, b: str, *, seed: int) -> Verdict:
  """The verdict of two submissions that were named beforehand: nothing to correct for."""
  pair = (result.submissions.index(a), result.submissions.index(b))
  comparison = compare(result, *pair, study_seeds(result), log_floors(result))
  p = p_value(comparison, Draws(seed))
  return _verdict(result, pair, comparison, p, p, 1)


def compare(result: Result, a: int, b: int, seeds: _Seeds, floors: _Floors) -> Comparison:
  """Gathers the study times of two submissions on the base workloads that both have run."""
  times = result.cells.study_times
  samples, differences, least, paired = [], [], [], True
  for w in result.columns.base:
    found = [times[s, w][~np.isnan(times[s, w])] for s in (a, b)]
    if not all(map(len, found)):
      continue
    logs_a, logs_b = _capped_logs(found[0], found[1], result.rules.suite.max_ratio)
    samples.append((logs_a, logs_b))
    least.append(max(floors.get((a, w), 0.0), floors.get((b, w), 0.0)))
    own, other = seeds.get((a, w)), seeds.get((b, w))
    if own is None or other is None or sorted(own) != sorted(other):
      paired = False
    else:
      differences.append(logs_b[np.argsort(other)] - logs_a[np.argsort(own)])
  return Comparison(
    differences=tuple(differences) if paired and samples else None,
    samples=tuple(samples),
    log_floors=tuple(least),
  )


def _capped_logs(a: np.ndarray, b: np.ndarray, max_ratio: float) -> tuple[np.ndarray, np.ndarray]:
  finite = np.concatenate([a, b])
  finite = finite[np.isfinite(finite) & (finite > 0)]
  if not len(finite):
    return np.zeros(len(a)), np.zeros(len(b))  # both miss everywhere: no difference is known
  cap = max_ratio * finite.min()
  low = finite.min()
  return np.log(np.clip(a, low, cap)), np.log(np.clip(b, low, cap))


def study_seeds(result: Result) -> _Seeds:
  """The seeds of the studies of each cell, in the order of `cells`; only where all are known."""
  table = result.outcomes[result.outcomes.seed.notna()]
  if table.empty:
    return {}
  by_study = table.groupby(['submission', 'workload', 'study']).seed.agg(set).to_dict()
  found: _Seeds = {}
  for (submission, workload), studies in result.cells.studies.items():
    sets = [by_study.get((submission, workload, study), set()) for study in studies]
    seeds = [int(min(one)) for one in sets if len(one) == 1]
    if len(seeds) == len(studies) == len(set(seeds)):
      key = (result.submissions.index(submission), result.workloads.index(workload))
      found[key] = seeds
  return found


def log_floors(result: Result) -> _Floors:
  """The noise of the cost of a step in each cell where it was measured."""
  found = result.outcomes.groupby(['submission', 'workload']).log_floor.max().dropna()
  return {
    (result.submissions.index(submission), result.workloads.index(workload)): floor
    for (submission, workload), floor in found.items()
  }


class Draws:
  """Random signs and labels, drawn once for each shape and shared by all pairs."""

  def __init__(self, seed: int):
    self._seed = seed
    self._signs: dict[int, np.ndarray] = {}
    self._labels: dict[tuple[int, int, int], np.ndarray] = {}

  def signs(self, num_pairs: int) -> np.ndarray:
    """[draw, pair] of -1 and 1; all patterns where they are few."""
    if num_pairs not in self._signs:
      if num_pairs <= _EXACT_PAIRS:
        patterns = np.arange(2**num_pairs)[:, None] >> np.arange(num_pairs) & 1
      else:
        rng = np.random.default_rng([self._seed, 3, num_pairs])
        patterns = rng.integers(2, size=(NUM_PERMUTATIONS, num_pairs), dtype=np.int8)
      self._signs[num_pairs] = (2 * patterns - 1).astype(np.float32)
    return self._signs[num_pairs]

  def labels(self, index: int, num_a: int, num_b: int) -> np.ndarray:
    """[draw, study]: weights 1/num_b of those that play b and -1/num_a of those that play a."""
    key = (index, num_a, num_b)
    if key not in self._labels:
      rng = np.random.default_rng([self._seed, 4, *key])
      order = rng.random((NUM_PERMUTATIONS, num_a + num_b), dtype=np.float32).argsort(axis=1)
      self._labels[key] = np.where(order < num_a, -1.0 / num_a, 1.0 / num_b).astype(np.float32)
    return self._labels[key]


def p_value(comparison: Comparison, draws: Draws | None = None, seed: int = 0) -> float:
  """Two-sided, of the hypothesis that the two are copies of one algorithm."""
  draws = draws or Draws(seed)
  if not comparison.samples:
    return 1.0
  if comparison.differences is not None:
    weights = [found / len(found) for found in comparison.differences]
    flat = np.concatenate(weights).astype(np.float32)
    signs = draws.signs(len(flat))
    statistics, exact = signs @ flat, len(flat) <= _EXACT_PAIRS
    observed = float(flat.sum())
  else:
    statistics, exact, observed = np.zeros(NUM_PERMUTATIONS, dtype=np.float32), False, 0.0
    for index, (a, b) in enumerate(comparison.samples):
      pooled = np.concatenate([a, b]).astype(np.float32)
      statistics = statistics + draws.labels(index, len(a), len(b)) @ (pooled - pooled.mean())
      observed += float(b.mean() - a.mean())
  extreme = int((np.abs(statistics) >= abs(observed) - 1e-6 * max(1.0, abs(observed))).sum())
  return extreme / len(statistics) if exact else (1 + extreme) / (1 + len(statistics))


def holm(values: Sequence[float]) -> list[float]:
  """Holm's step-down correction: the chance of any false verdict among all stays within ALPHA."""
  order = np.argsort(values, kind='stable')
  adjusted = np.zeros(len(values))
  highest = 0.0
  for rank, index in enumerate(order):
    highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
    adjusted[index] = highest
  return adjusted.tolist()


def decide(comparison: Comparison, adjusted_p: float) -> str:
  effect = comparison.effect
  if adjusted_p > ALPHA or abs(effect) < comparison.min_effect:
    return 'undecided'
  return 'better' if effect > 0 else 'worse'


def _verdict(
  result: Result,
  pair: tuple[int, int],
  comparison: Comparison,
  p: float,
  adjusted: float,
  num_pairs: int,
) -> Verdict:
  verdict = Verdict(
    a=result.submissions[pair[0]],
    b=result.submissions[pair[1]],
    verdict=decide(comparison, adjusted),
    effect=float(np.exp(comparison.effect)),
    min_effect=float(np.exp(comparison.min_effect)),
    p=p,
    adjusted_p=adjusted,
    paired=comparison.differences is not None,
    num_studies=comparison.num_studies,
    num_workloads=len(comparison.samples),
    more_studies=None,
  )
  if verdict.verdict != 'undecided':
    return verdict
  return replace(verdict, more_studies=_more_studies(comparison, num_pairs))


def _more_studies(comparison: Comparison, num_pairs: int) -> int | None:
  """By the normal approximation, and at least as many as can reach the level at all."""
  effect = abs(comparison.effect)
  if effect < comparison.min_effect or comparison.num_studies < 2:
    return None
  error = _standard_error(comparison)
  alpha = ALPHA / num_pairs
  reach = NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(POWER)
  needed = int(np.ceil(comparison.num_studies * (reach * error / effect) ** 2))
  if comparison.differences is not None:
    for_level = np.log2(2 / alpha) / max(1, len(comparison.samples))
    needed = max(needed, int(np.ceil(for_level)))
  more = max(1, needed - comparison.num_studies)
  return more if more <= MAX_MORE_STUDIES else None


def _standard_error(comparison: Comparison) -> float:
  """Of the effect, from the spread within workloads."""
  if comparison.differences is not None:
    parts = [found.var(ddof=1) / len(found) for found in comparison.differences]
  else:
    parts = [
      a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b)
      for a, b in comparison.samples
      if len(a) > 1 and len(b) > 1
    ]
  return float(np.sqrt(np.sum(parts)) / max(1, len(parts)))
