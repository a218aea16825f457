"""How many times faster than a reference: the geometric mean of time ratios over the base
workloads.

The ratio is the reference's time over the submission's, so that 2 means half the time. A miss
counts as the budget of the workload (plus one unit), as in AlgoPerf's documentation. A workload
that both miss counts as 1 and is not left out. Where the budget of the suite is unknown, a miss
counts as the slowest hit of the column times the cut-off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scoring.result import Result
from scoring.statistics.resampling import (
  MIN_STUDIES,
  Intervals,
  percentiles,
  usual_num_studies,
)


@dataclass(frozen=True, kw_only=True)
class Speedup:
  """How many times faster than a reference; low and high are NaN where there is one study."""

  submission: str
  reference: str
  ratio: float
  low: float
  high: float
  num_missed: int  # of the submission
  num_missed_by_reference: int


def reference_of(result: Result) -> str | None:
  """The stated reference, else the first of the suite's baselines that is there."""
  if result.reference is not None:
    return result.reference
  for name in result.rules.suite.baselines:
    for candidate in (name, f'{name} (published)', f'{name}_jax', f'{name}_pytorch'):
      if candidate in result.submissions:
        return candidate
  return None


def against_reference(result: Result, intervals: Intervals) -> tuple[Speedup, ...]:
  """Of every submission but the reference, by rank; empty without a reference."""
  name = reference_of(result)
  if name is None:
    return ()
  base = list(result.columns.base)
  reference = result.submissions.index(name)
  costs = _miss_values(result)
  times = _with_misses(result.times[:, base], costs)
  drawn = _with_misses(intervals.resampled_times[:, :, base], costs)
  ratios = _geometric(times[reference] / times)
  drawn_ratios = _geometric(drawn[:, reference : reference + 1] / drawn)
  usual = usual_num_studies(result.cells.num_studies)
  unknown = np.minimum(usual, usual[reference]) < MIN_STUDIES
  bounds = np.where(unknown[:, None], np.nan, percentiles(drawn_ratios))
  missed = (~np.isfinite(result.times[:, base])).sum(axis=-1)
  return tuple(
    Speedup(
      submission=result.submissions[s],
      reference=name,
      ratio=float(ratios[s]),
      low=float(bounds[s, 0]),
      high=float(bounds[s, 1]),
      num_missed=int(missed[s]),
      num_missed_by_reference=int(missed[reference]),
    )
    for s in result.ranking
    if s != reference
  )


def _miss_values(result: Result) -> np.ndarray:
  """[base workload]: what a miss counts as on the axis."""
  values = []
  for w in result.columns.base:
    name = result.workloads[w]
    seconds = result.rules.axis == 'seconds'
    budget = result.rules.budget_sec(name) if seconds else result.rules.budget_steps(name)
    hits = result.times[:, w][np.isfinite(result.times[:, w])]
    if budget is not None:
      values.append(budget + 1.0)
    else:
      values.append(result.rules.suite.max_ratio * hits.max(initial=1.0))
  return np.array(values)


def _with_misses(times: np.ndarray, costs: np.ndarray) -> np.ndarray:
  filled = np.where(np.isfinite(times), times, costs)
  return np.maximum(filled, np.finfo(float).tiny)


def _geometric(ratios: np.ndarray) -> np.ndarray:
  return np.exp(np.mean(np.log(ratios), axis=-1))
