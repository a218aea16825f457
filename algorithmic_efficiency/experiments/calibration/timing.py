"""Tells whether a target can be timed: the tests that a calibrated target has to pass."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from algorithmic_efficiency.results.schema import Count

MIN_EVALS = 20  # evaluations before the calibrating algorithm reaches the target
MAX_RESOLUTION = 1 / 4  # of the spread over seeds


@dataclass(frozen=True, kw_only=True)
class Timing:
  """Times to target of the calibrating algorithm, and what limits their accuracy.

  Attributes:
    steps: for each seed, first evaluated step that reaches the validation target; None if none
      does. Schedules span the step hint, as in a race.
    step_hint: steps that the schedules span.
    eval_period_steps: steps between evaluations.
    resolution: least difference between two validation values of all runs. Of a metric that counts
      examples, one example makes it.
    spread: standard deviation over seeds of the best validation value.
  """

  steps: tuple[Count | None, ...]
  step_hint: Count
  eval_period_steps: Count
  resolution: float
  spread: float

  @property
  def reached(self) -> list[int]:
    return [step for step in self.steps if step is not None]

  @property
  def num_evals(self) -> int:
    """Evaluations before that by which the fastest seed reaches the target; the first is step 1."""
    return min(self.reached, default=0) // self.eval_period_steps

  @property
  def variation(self) -> float | None:
    """Standard deviation of the time to target, divided by its mean; None for fewer than two."""
    reached = self.reached
    return statistics.stdev(reached) / statistics.mean(reached) if len(reached) > 1 else None

  def faults(self, max_variation: float) -> list[str]:
    """Returns the reasons for which the target is not accepted, as sentences."""
    found, missed = [], len(self.steps) - len(self.reached)
    if missed:
      found.append(
        f'Every seed must reach the target within the step hint, {self.step_hint} steps; {missed} '
        f'of {len(self.steps)} do not.'
      )
    if self.num_evals < MIN_EVALS:
      found.append(
        f'At least {MIN_EVALS} evaluations must come until the target is reached; there are '
        f'{self.num_evals}. Lower --eval_period_steps.'
      )
    if not self.resolution < MAX_RESOLUTION * self.spread:
      found.append(
        f'The metric must resolve a quarter of the spread over seeds, {self.spread:.3g}; it moves '
        f'by {self.resolution:.3g} at least. Choose a smoother metric, or a larger split.'
      )
    if self.variation is not None and self.variation > max_variation:
      found.append(
        f'The time to target must vary over seeds by at most {max_variation:.0%}; it varies by '
        f'{self.variation:.1%}. Choose a smoother metric, or another --step_budget.'
      )
    return found


def resolution(values: Iterable[float]) -> float:
  """Returns the least difference between two different values; 0 if there are none."""
  ordered = sorted(set(values))
  return min((high - low for low, high in itertools.pairwise(ordered)), default=0.0)
