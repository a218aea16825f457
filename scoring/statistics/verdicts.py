"""Better, worse, the same or undecided: what the runs say of each pair of submissions.

The quantity is the *speed-up*: the geometric mean over workloads and studies of the time of one
over that of the other. A verdict needs a small p of the randomization test of all pairs. It also
needs an *effect* (a speed-up in either direction) of at least `MIN_EFFECT`. Where the cost of a
step was measured, the effect must exceed what the noise of costs makes of copies, of all pairs.

Few studies on few workloads decide nothing, whatever their times: there are too few patterns of
signs for a small p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from scoring.result import Result
from scoring.statistics import randomization
from scoring.statistics.comparison import Bound, Comparison, compare, gather
from scoring.statistics.randomization import LEVEL, Signs

POWER = 0.8
MAX_MORE_STUDIES = 200


@dataclass(frozen=True, kw_only=True)
class Verdict:
  """What is known of `a` against `b`.

  Attributes:
    verdict: 'better', 'worse', 'same' or 'undecided', of `a`.
    speedup: the geometric mean over workloads and studies of b's time over a's; above 1, `a` is
      faster.
    bound: what the speed-up is: exact, or at least or at most so much as studies count as the
      cut-off; 'about' if there are such of both.
    min_effect: the smallest speed-up that is more than noise, as a ratio above 1.
    statistic: of the randomization test.
    p, adjusted_p: of the pair alone, and for all pairs of the leaderboard.
    paired: whether the studies have common seeds.
    num_misses_a, num_misses_b: studies that are misses.
    can_decide: whether so many studies can decide anything at all.
    more_studies: how many more studies of each would decide with 80 % power, if the effect is as
      measured. None: it is decided, or out of reach.
  """

  a: str
  b: str
  verdict: str
  speedup: float
  bound: Bound
  min_effect: float
  statistic: float
  p: float
  adjusted_p: float
  paired: bool
  num_studies: int
  num_workloads: int
  num_misses_a: int
  num_misses_b: int
  can_decide: bool
  more_studies: int | None


def all_pairs(result: Result, *, seed: int) -> tuple[Verdict, ...]:
  """The verdict of every pair, all of them tested together; the better score stands first."""
  order = result.ranking
  return _of_pairs(result, [(a, b) for i, a in enumerate(order) for b in order[i + 1 :]], seed)


def one_pair(result: Result, a: str, b: str, *, seed: int) -> Verdict:
  """The verdict of two submissions that were named beforehand: no other pair is tested."""
  pair = (result.submissions.index(a), result.submissions.index(b))
  (verdict,) = _of_pairs(result, [pair], seed)
  return verdict


def _of_pairs(result: Result, pairs: Sequence[tuple[int, int]], seed: int) -> tuple[Verdict, ...]:
  if not pairs:
    return ()
  evidence = gather(result, pairs)
  comparisons = [compare(evidence, *pair) for pair in pairs]
  weighted = np.array([one.weighted.ravel() for one in comparisons])
  present = np.array([~np.isnan(one.differences).ravel() for one in comparisons]).any(axis=0)
  signs = Signs.of(int(present.sum()), seed)
  found = randomization.step_down(weighted[:, present], signs)
  return tuple(
    _verdict(
      (result.submissions[a], result.submissions[b]),
      comparison,
      statistic=float(found.statistics[index]),
      p=float(found.alone[index]),
      adjusted_p=float(found.adjusted[index]),
      num_pairs=len(pairs),
    )
    for index, ((a, b), comparison) in enumerate(zip(pairs, comparisons, strict=True))
  )


def decide(effect: float, min_effect: float, adjusted_p: float) -> str:
  """The verdict by an effect and its least size, as log ratios, and p."""
  if adjusted_p > LEVEL or abs(effect) < min_effect:
    return 'undecided'
  return 'better' if effect > 0 else 'worse'


def can_decide(num_blocks: int) -> bool:
  """Whether any times of so many pairs of studies, over all workloads, can give a verdict."""
  return randomization.least_p(num_blocks) <= LEVEL


def least_studies(num_workloads: int) -> int:
  """The fewest studies that can give a verdict on so many workloads."""
  studies = 1
  while not can_decide(studies * num_workloads):
    studies += 1
  return studies


def cannot_decide(num_studies: int, num_workloads: int) -> str:
  """The sentence on studies that are too few, whatever their times."""
  studies = f'{num_studies} {"study" if num_studies == 1 else "studies"}'
  workloads = f'{num_workloads} workload{"s" * (num_workloads != 1)}'
  return (
    f'Cannot decide with {studies} on {workloads}, whatever the times: a verdict needs '
    f'{least_studies(num_workloads)} studies at least.'
  )


def _verdict(
  names: tuple[str, str],
  comparison: Comparison,
  *,
  statistic: float,
  p: float,
  adjusted_p: float,
  num_pairs: int,
) -> Verdict:
  decided = 'same'
  if not comparison.is_same:
    decided = decide(comparison.effect, comparison.min_effect, adjusted_p)
  misses = comparison.num_misses
  return Verdict(
    a=names[0],
    b=names[1],
    verdict=decided,
    speedup=float(np.exp(comparison.effect)),
    bound=comparison.bound,
    min_effect=float(np.exp(comparison.min_effect)),
    statistic=statistic,
    p=p,
    adjusted_p=adjusted_p,
    paired=comparison.paired,
    num_studies=comparison.num_studies,
    num_workloads=comparison.num_workloads,
    num_misses_a=misses[0],
    num_misses_b=misses[1],
    can_decide=can_decide(comparison.num_blocks),
    more_studies=_more_studies(comparison, num_pairs) if decided == 'undecided' else None,
  )


def _more_studies(comparison: Comparison, num_pairs: int) -> int | None:
  """By the normal approximation, and at least as many as can decide at all."""
  effect = abs(comparison.effect)
  if effect < comparison.min_effect or comparison.num_studies < 2:
    return None
  differences = comparison.differences[~np.isnan(comparison.differences)]
  reach = NormalDist().inv_cdf(1 - LEVEL / num_pairs / 2) + NormalDist().inv_cdf(POWER)
  blocks = (reach * float(differences.std(ddof=1)) / effect) ** 2
  needed = max(
    int(np.ceil(blocks / comparison.num_workloads)), least_studies(comparison.num_workloads)
  )
  more = max(1, needed - comparison.num_studies)
  return more if more <= MAX_MORE_STUDIES else None
