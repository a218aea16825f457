"""How many times faster than a reference: the speed-up of verdicts, with an interval.

The interval is that of differences of matched studies, resampled within each workload. Deviations
from the mean are widened for its degree of freedom, as they are few. What stays uncertain in the
costs of steps is drawn, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scoring.result import Result
from scoring.statistics.comparison import Bound, Comparison, compare, gather
from scoring.statistics.coverage import percentiles
from scoring.statistics.resampling import MIN_STUDIES


@dataclass(frozen=True, kw_only=True)
class Speedup:
  """How many times faster than a reference; low and high are NaN where there is one study.

  Attributes:
    bound: as that of a verdict.
    num_missed, num_missed_by_reference: workloads that either does not score on.
  """

  submission: str
  reference: str
  ratio: float
  bound: Bound
  low: float
  high: float
  num_missed: int
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


def against_reference(result: Result, *, num_resamples: int, seed: int) -> tuple[Speedup, ...]:
  """Of every submission but the reference, by rank; empty without a reference."""
  name = reference_of(result)
  if name is None:
    return ()
  reference = result.submissions.index(name)
  pairs = [(s, reference) for s in result.ranking if s != reference]
  evidence = gather(result, pairs)
  missed = result.columns.num_counted - np.isfinite(result.ratios).sum(axis=-1)
  rng = np.random.default_rng([seed, 5])
  found = []
  for s, _ in pairs:
    comparison = compare(evidence, s, reference)
    costs = np.log(evidence.costs.draw(rng, num_resamples)[:, (s, reference)])
    shifts = (costs[:, 1] - costs[:, 0])[:, list(evidence.base)]
    low, high = np.exp(interval(comparison, rng, shifts))
    found.append(
      Speedup(
        submission=result.submissions[s],
        reference=name,
        ratio=float(np.exp(comparison.effect)),
        bound=comparison.bound,
        low=float(low),
        high=float(high),
        num_missed=int(missed[s]),
        num_missed_by_reference=int(missed[reference]),
      )
    )
  return tuple(found)


def interval(
  comparison: Comparison, rng: np.random.Generator, shifts: np.ndarray
) -> tuple[float, float]:
  """Of the effect, as log ratios; NaN where a workload has fewer than MIN_STUDIES studies.

  Args:
    shifts: [resample, workload], draws of errors of the log ratio that are common to all studies.
  """
  if comparison.num_studies < MIN_STUDIES:
    return float('nan'), float('nan')
  effects = np.zeros(len(shifts))
  for row, shift in zip(comparison.differences, shifts.T, strict=True):
    known = row[~np.isnan(row)]
    if len(known):
      deviations = (known - known.mean()) * np.sqrt(len(known) / (len(known) - 1))
      drawn = rng.choice(deviations, size=(len(shifts), len(known)))
      effects += (known.mean() + drawn.mean(axis=1) + shift) / comparison.num_workloads
  low, high = percentiles(effects)
  return float(low), float(high)
