"""Metrics that are functions of the mean of another metric over a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from algorithmic_efficiency.metrics.means import mean_of
from algorithmic_efficiency.metrics.metric import OfSums, State, Sums


@dataclass(frozen=True, kw_only=True)
class Derived(OfSums):
  """A metric that is a function of the mean of the metric `source`."""

  name: str
  source: str
  function: Callable[[float], float]

  def compute(self, sums: Sums, state: State) -> dict[str, float]:
    return {self.name: self.function(mean_of(sums, self.source))}


def perplexity(loss: float) -> float:
  """Returns the exponential of a cross entropy in nats a token; inf if it overflows."""
  try:
    return math.exp(loss)
  except OverflowError:
    return math.inf


DERIVED: Mapping[str, Derived] = {
  'ppl': Derived(name='ppl', source='loss', function=perplexity),
}


def summed(metrics: Iterable[str]) -> tuple[str, ...]:
  """Returns the metrics among `metrics` that are not derived from others."""
  return tuple(name for name in metrics if name not in DERIVED)
