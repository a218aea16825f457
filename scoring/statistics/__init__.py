"""How sure the leaderboard is: intervals, verdicts, tuning, sensitivity, speed-ups, costs."""

from __future__ import annotations

from dataclasses import dataclass

from scoring.result import Result
from scoring.statistics import costs, resampling, sensitivity, speedups, tuning, verdicts
from scoring.statistics.costs import CostSummary


@dataclass(frozen=True, kw_only=True)
class Statistics:
  """Everything that is said of a result besides its scores."""

  seed: int
  intervals: resampling.Intervals
  verdicts: tuple[verdicts.Verdict, ...]
  tuning_curves: tuning.Curves
  ledger: tuple[tuning.Ledger, ...]
  sensitivity: sensitivity.Sensitivity
  speedups: tuple[speedups.Speedup, ...]
  costs: tuple[costs.Cost, ...]
  step_costs: tuple[CostSummary, ...]


def summarise(result: Result, *, num_resamples: int = 1000, seed: int = 0) -> Statistics:
  """Computes all statistics of a result; the same seed gives the same figures."""
  intervals = resampling.intervals(result, num_resamples=num_resamples, seed=seed)
  return Statistics(
    seed=seed,
    intervals=intervals,
    verdicts=verdicts.all_pairs(result, seed=seed),
    tuning_curves=tuning.curves(result, seed=seed),
    ledger=tuning.ledgers(result),
    sensitivity=sensitivity.analyse(result),
    speedups=speedups.against_reference(result, num_resamples=num_resamples, seed=seed),
    costs=costs.of(result),
    step_costs=costs.steps(result),
  )
