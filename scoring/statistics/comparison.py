"""The evidence on a pair of submissions: log times of matched studies on each workload.

The cells are those of the score. A workload that one of the two never ran is a miss in every study,
as is one whose held-out variant it missed. A workload that neither ran is left out. A miss counts
as the cut-off ratio times the fastest study of the pair on the workload, and so does a slower time.

Studies are matched by seed, and in their order where seeds differ or are unknown. A study without a
partner is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scoring import cost_errors, profiles
from scoring.cost_errors import CostErrors
from scoring.profiles import Columns
from scoring.result import Result

MIN_EFFECT = 0.02  # below it, differences of hosts and timers hide

_Cell = tuple[int, int]  # submission, workload
Bound = Literal['exact', 'at least', 'at most', 'about']


@dataclass(frozen=True, kw_only=True)
class Evidence:
  """What verdicts rest on, for all submissions.

  Attributes:
    times: [submission, base workload, study], in the unit of the axis; inf for a miss, NaN where
      there is no study.
    seeds: of the studies of a cell, in the order of `times`; only where all are known.
    base: the positions of the base workloads among all.
    costs: what is uncertain in the costs of steps.
    cost_quantile: standard deviations of that error that copies may differ by, of all pairs tested.
  """

  times: np.ndarray
  seeds: Mapping[_Cell, Sequence[int]]
  base: Sequence[int]
  costs: CostErrors
  cost_quantile: float
  max_ratio: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
  """The evidence of one pair.

  Attributes:
    logs: [submission, workload, study] of the two, after the cut-off; NaN where there is no study.
    misses, capped: of the same shape: whether a study is a miss; whether the cut-off shortens it.
    paired: whether all studies have common seeds, where both have run.
    cost_noise: the log ratio up to which the costs of steps of copies may differ.
  """

  logs: np.ndarray
  misses: np.ndarray
  capped: np.ndarray
  paired: bool
  cost_noise: float

  @property
  def differences(self) -> np.ndarray:
    """[workload, study], positive where the first is faster; NaN where there is no study."""
    return self.logs[1] - self.logs[0]

  @property
  def weighted(self) -> np.ndarray:
    """[workload, study]: differences that sum to the effect; 0 where there is no study."""
    share = np.maximum(self.counts, 1)[:, None] * max(1, self.num_workloads)
    return np.nan_to_num(self.differences) / share

  @property
  def effect(self) -> float:
    """The mean over workloads of the mean log ratio of times."""
    return float(self.weighted.sum())

  @property
  def bound(self) -> Bound:
    """What the cut-off makes of the first's speed-up: studies that both miss count as equal."""
    first, second = ((self.capped & ~self.capped[::-1]).any(axis=(1, 2))).tolist()
    if first and second:
      return 'about'
    return 'at most' if first else 'at least' if second else 'exact'

  @property
  def num_misses(self) -> tuple[int, int]:
    """The studies of either that are misses, of those that were matched."""
    first, second = self.misses.sum(axis=(1, 2)).tolist()
    return first, second

  @property
  def min_effect(self) -> float:
    """The smallest log ratio that is more than noise of hosts, timers and costs."""
    return max(float(np.log1p(MIN_EFFECT)), self.cost_noise)

  @property
  def counts(self) -> np.ndarray:
    """[workload]: the number of matched studies."""
    return np.sum(~np.isnan(self.differences), axis=1)

  @property
  def num_workloads(self) -> int:
    return int(np.sum(self.counts > 0))

  @property
  def num_studies(self) -> int:
    """Of the workload that has the fewest."""
    return int(min(self.counts[self.counts > 0], default=0))

  @property
  def num_blocks(self) -> int:
    return int(self.counts.sum())

  @property
  def is_same(self) -> bool:
    """Whether the two took the same time in every study, and not by missing all of them."""
    known = ~np.isnan(self.differences)
    all_equal = bool(np.all(np.abs(self.differences[known]) < 1e-9))
    return known.sum() > 1 and all_equal and not self.misses[0][known].all()


def gather(result: Result, pairs: Sequence[tuple[int, int]]) -> Evidence:
  """Gathers what verdicts rest on, for pairs of submissions that are tested together."""
  costs = cost_errors.of(result)
  return Evidence(
    times=_scored_times(result),
    seeds=study_seeds(result),
    base=result.columns.base,
    costs=costs,
    cost_quantile=costs.quantile(pairs, result.columns.base),
    max_ratio=result.rules.suite.max_ratio,
  )


def _scored_times(result: Result) -> np.ndarray:
  """The study times of base workloads; misses where the held-out variant was missed."""
  which = result.columns
  limit = result.rules.suite.max_ratio
  base_only = Columns(base=which.base, held_out=(), held_out_base=(), num_counted=which.num_counted)
  alone = profiles.surviving(result.times, base_only, limit)
  both = profiles.surviving(result.times, which, limit)
  missed_held_out = np.isfinite(alone) & np.isinf(both)
  times = result.cells.study_times[:, list(which.base)]
  return np.where(missed_held_out[..., None] & ~np.isnan(times), np.inf, times)


def study_seeds(result: Result) -> dict[_Cell, list[int]]:
  """The seeds of the studies of base cells, in the order of `cells`; only where all are known."""
  table = result.outcomes[result.outcomes.seed.notna()]
  if table.empty:
    return {}
  by_study = table.groupby(['submission', 'workload', 'study']).seed.agg(set).to_dict()
  column = {result.workloads[w]: index for index, w in enumerate(result.columns.base)}
  found: dict[_Cell, list[int]] = {}
  for (submission, workload), studies in result.cells.studies.items():
    sets = [by_study.get((submission, workload, study), set()) for study in studies]
    seeds = [int(min(one)) for one in sets if len(one) == 1]
    if workload in column and len(seeds) == len(studies) == len(set(seeds)):
      found[result.submissions.index(submission), column[workload]] = seeds
  return found


def compare(evidence: Evidence, a: int, b: int) -> Comparison:
  """Matches the studies of two submissions on each base workload."""
  times = np.full((2, *evidence.times.shape[1:]), np.nan)
  ran, paired = [], True
  for w in range(times.shape[1]):
    found = [one[~np.isnan(one)] for one in (evidence.times[a, w], evidence.times[b, w])]
    most = max(map(len, found))
    if not most:
      continue
    is_absent = not all(map(len, found))
    found = [one if len(one) else np.full(most, np.inf) for one in found]
    seeds = [evidence.seeds.get((one, w)) for one in (a, b)]
    own, other, by_seed = _matched(seeds, found)
    times[:, w, : len(own)] = found[0][own], found[1][other]
    paired = paired and (by_seed or is_absent)
    ran.append(evidence.base[w])
  logs = capped_logs(times, evidence.max_ratio)
  fastest = np.exp(np.where(np.isnan(logs), np.inf, logs).min(axis=(0, 2), keepdims=True))
  return Comparison(
    logs=logs,
    misses=np.isinf(times),
    capped=times > fastest * evidence.max_ratio * (1 + 1e-9),
    paired=paired and bool(ran),
    cost_noise=evidence.cost_quantile * evidence.costs.difference_sd(a, b, ran),
  )


def _matched(
  seeds: Sequence[Sequence[int] | None], times: Sequence[np.ndarray]
) -> tuple[list[int], list[int], bool]:
  """Positions of the matched studies of both, and whether all of them have common seeds."""
  matched: list[tuple[int, int]] = []
  own, other = seeds
  if own is not None and other is not None:
    common = sorted(set(own) & set(other))
    matched = [(own.index(seed), other.index(seed)) for seed in common]
  by_seed = bool(matched) and all(len(matched) == len(one) for one in times)
  rest = [
    [position for position in range(len(one)) if position not in {pair[side] for pair in matched}]
    for side, one in enumerate(times)
  ]
  matched += zip(*rest, strict=False)
  return [one for one, _ in matched], [one for _, one in matched], by_seed


def capped_logs(times: np.ndarray, max_ratio: float) -> np.ndarray:
  """Log times of pairs, none above the cut-off of its workload; NaN stays.

  Where both miss everywhere they are 0: no difference is known.

  Args:
    times: [2, ..., study]; inf for a miss, NaN where there is no study.
  """
  hits = np.where(np.isfinite(times) & (times > 0), times, np.inf)
  lowest = hits.min(axis=(0, -1), keepdims=True)
  lowest = np.where(np.isfinite(lowest), lowest, 1.0)
  return np.log(np.clip(times, lowest, max_ratio * lowest))
