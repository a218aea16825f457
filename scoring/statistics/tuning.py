"""What tuning buys: the expected score with k of the tuning trials that exist, and who spent what.

The expectation is over all subsets of k trials of each study, taken independently, with the
competitors as they are. A score is a mean over workloads, so that each needs only the distribution
of its own time. A study's best of k has the distribution of an order statistic. The median over
studies follows by going through all combinations of the studies' ranks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from scoring import profiles
from scoring.result import Result
from scoring.time_to_target import medians

MAX_COMBINATIONS = 20_000  # beyond that, as many subsets are drawn instead
_EMPTY = (np.array([np.inf]), np.array([1.0]))


@dataclass(frozen=True, kw_only=True)
class Curves:
  """scores: [submission, k - 1], NaN where no study has k trials. exact: false if subsets were
  drawn.
  """

  num_trials: tuple[int, ...]
  scores: np.ndarray
  exact: bool


@dataclass(frozen=True, kw_only=True)
class Ledger:
  """What a submission spent on tuning: trials, distinct points, what varied and how far."""

  submission: str
  num_trials: int
  num_points: int
  hyperparameters: tuple[str, ...]  # those that vary
  submission_hours: float
  score: float


def curves(result: Result, *, seed: int) -> Curves:
  """The tuning-budget curve of every submission."""
  most = int(result.cells.num_trials.max(initial=1))
  scores = np.full((len(result.submissions), most), np.nan)
  exact = True
  for s in range(len(result.submissions)):
    own_most = int(result.cells.num_trials[s].max(initial=0))
    rivals = _rivals(result, s)
    for k in range(1, own_most + 1):
      scores[s, k - 1], this_exact = _expected_score(result, s, k, rivals, seed)
      exact = exact and this_exact
  return Curves(num_trials=tuple(range(1, most + 1)), scores=scores, exact=exact)


@dataclass(frozen=True, kw_only=True)
class _Rivals:
  """The fastest of the others by column: base before and after the held-out rule, and held-out."""

  limit: np.ndarray  # [base]
  fastest: np.ndarray  # [base]
  held_out: np.ndarray  # [held-out]


def _rivals(result: Result, own: int) -> _Rivals:
  others = np.delete(np.where(np.isnan(result.times), np.inf, result.times), own, axis=0)
  which = result.columns
  base = others[:, list(which.base)]
  held_out = others[:, list(which.held_out)]
  held_out = np.where(np.isinf(base[:, list(which.held_out_base)]), np.inf, held_out)
  # Whether a rival survives is taken as it is with all of this submission's trials.
  left = np.delete(
    profiles.surviving(result.times, which, result.rules.suite.max_ratio), own, axis=0
  )
  return _Rivals(
    limit=base.min(axis=0, initial=np.inf),
    fastest=left.min(axis=0, initial=np.inf),
    held_out=held_out.min(axis=0, initial=np.inf),
  )


def _expected_score(
  result: Result, own: int, k: int, rivals: _Rivals, seed: int
) -> tuple[float, bool]:
  which, options = result.columns, result.score_options()
  max_ratio = options['max_ratio']
  total, exact = 0.0, True
  for position, w in enumerate(which.base):
    times, chances, base_exact = _median_of_best(result.cells.times[own, w], k, seed)
    limit = max_ratio * np.minimum(times, rivals.limit[position])
    times = np.where(times > limit, np.inf, times)
    unit = np.minimum(times, rivals.fastest[position])
    if options['reference'] is not None:
      unit = np.full_like(times, _reference_time(result, own, position))
      unit = times if options['reference'] == own else unit
    with np.errstate(invalid='ignore', divide='ignore'):
      ratios = np.where(times == unit, 1.0, times / unit)
    ratios = np.where(np.isinf(times) | np.isinf(unit), np.inf, ratios)
    gain = profiles.utility(ratios, max_ratio, options['integral'])
    value = float(chances @ gain)
    for index, owner in enumerate(which.held_out_base):
      if owner == position:
        variant = which.held_out[index]
        found, odds, held_exact = _median_of_best(result.cells.times[own, variant], k, seed)
        allowed = max_ratio * np.minimum(found, rivals.held_out[index])
        value *= float(odds @ (np.isfinite(found) & (found <= allowed)))
        exact = exact and held_exact
    total += value
    exact = exact and base_exact
  return total / which.num_counted, exact


def _reference_time(result: Result, own: int, position: int) -> float:
  left = profiles.surviving(result.times, result.columns, result.rules.suite.max_ratio)
  assert result.reference is not None
  return float(left[result.submissions.index(result.reference), position])


def _median_of_best(times: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray, bool]:
  """The distribution of a cell's time with k trials a study: values, their chances, whether exact.

  times: [study, trial], in the order of the rules. A study with fewer than k trials takes all.
  """
  studies = [found[~np.isnan(found)] for found in times if not np.isnan(found).all()]
  if not studies:
    return (*_EMPTY, True)
  parts = [best_of(found, k) for found in studies]
  if np.prod([float(len(values)) for values, _ in parts]) <= MAX_COMBINATIONS:
    grid = np.meshgrid(*[values for values, _ in parts], indexing='ij')
    odds = np.meshgrid(*[chances for _, chances in parts], indexing='ij')
    found = np.stack([axis.ravel() for axis in grid], axis=-1)
    return medians(found), np.prod(np.stack(odds), axis=0).ravel(), True
  rng = np.random.default_rng([seed, 5, k])
  drawn = [
    rng.choice(values, size=MAX_COMBINATIONS, p=chances / chances.sum())
    for values, chances in parts
  ]
  values = medians(np.stack(drawn, axis=-1))
  return values, np.full(MAX_COMBINATIONS, 1.0 / MAX_COMBINATIONS), False


def best_of(times: Sequence[float] | np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
  """The distribution of the best of k trials drawn without replacement; equal times join."""
  count = len(times)
  k = min(k, count)
  chances: dict[float, float] = {}
  for rank, time in enumerate(times):
    chance = comb(count - 1 - rank, k - 1) / comb(count, k)
    if chance:
      chances[float(time)] = chances.get(float(time), 0.0) + chance
  return np.array(list(chances)), np.array(list(chances.values()))


def ledgers(result: Result) -> tuple[Ledger, ...]:
  """Trials, search space and compute of every submission, in the order of the ranking."""
  table, found = result.outcomes, []
  for s in result.ranking:
    rows = table[table.submission == result.submissions[s]]
    points = {text for text in rows.hyperparameters if text}
    found.append(
      Ledger(
        submission=result.submissions[s],
        num_trials=len(rows),
        num_points=len(points),
        hyperparameters=_varied(points),
        submission_hours=float(rows.total_submission_time_sec.sum()) / 3600,
        score=float(result.scores[s]),
      )
    )
  return tuple(found)


def _varied(points: set[str]) -> tuple[str, ...]:
  """The hyperparameters with more than one value, with their range or values."""
  values: dict[str, set] = {}
  for text in points:
    record = json.loads(text)
    if isinstance(record, dict):
      for name, value in record.items():
        if isinstance(value, (int, float, str, bool)):
          values.setdefault(name, set()).add(value)
  return tuple(_range(name, found) for name, found in sorted(values.items()) if len(found) > 1)


def _range(name: str, values: set) -> str:
  if all(isinstance(value, (int, float)) for value in values):
    return f'{name} {min(values):.4g} to {max(values):.4g}'
  return f'{name} in {", ".join(sorted(map(str, values)))}'
