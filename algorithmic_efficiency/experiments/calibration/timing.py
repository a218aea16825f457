"""Tells whether a target can be timed: the tests that a calibrated target has to pass."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from algorithmic_efficiency.benchmark.definition import METRIC_RANGES
from algorithmic_efficiency.experiments.calibration.split_size import SplitSize
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
    resolution: what one validation example moves the metric by. In a record without
      `validation_size`, it is the least difference between two values of all runs.
    spread: standard deviation over seeds of the best validation value, by `robust.spread`. In a
      record without `validation_size`, outliers enter it.
    validation_size: size of the validation split; None in a record that does not say.
  """

  steps: tuple[Count | None, ...]
  step_hint: Count
  eval_period_steps: Count
  resolution: float
  spread: float
  validation_size: SplitSize | None = None

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
        'One validation example must move the metric by less than a quarter of the spread over '
        f'seeds, {self.spread:.3g}; it moves it by {self.resolution:.3g}. Choose a smoother '
        'metric, or a larger split.'
      )
    if self.variation is not None and self.variation > max_variation:
      found.append(
        f'The time to target must vary over seeds by at most {max_variation:.0%}; it varies by '
        f'{self.variation:.1%}. Choose a smoother metric, or another --step_budget.'
      )
    return found


def resolution(metric: str, value: float, size: SplitSize) -> float:
  """Returns what one example of a split moves a metric by, near a value.

  A metric is a mean over parts. A part moves it by its scale over the number of parts. The scale is
  the whole range of a metric that has one, as a part may turn from right to wrong. A loss has no
  range; its scale is its mean, as losses differ by about their mean. A perplexity moves with the
  loss, its logarithm. The parts of an example move independently, so that n of them count as the
  root of n.
  """
  low, high = METRIC_RANGES.get(metric, (0.0, math.inf))
  if metric == 'ppl':
    scale = value * math.log(value)
  else:
    scale = high - low if math.isfinite(high) else abs(value)
  return scale / math.sqrt(size.num_examples * size.num_parts)
