"""Metrics that are functions of the mean of another metric over a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Derived:
  """A metric that is a function of the mean of the metric `source`."""

  source: str
  function: Callable[[float], float]


def perplexity(loss: float) -> float:
  """Returns the exponential of a cross entropy in nats a token; inf if it overflows."""
  try:
    return math.exp(loss)
  except OverflowError:
    return math.inf


DERIVED: Mapping[str, Derived] = {'ppl': Derived(source='loss', function=perplexity)}


def summed(metrics: Iterable[str]) -> tuple[str, ...]:
  """Returns the metrics among `metrics` that a model sums over examples."""
  return tuple(name for name in metrics if name not in DERIVED)


def from_means(metrics: Iterable[str], means: Mapping[str, float]) -> dict[str, float]:
  """Returns the derived metrics among `metrics`, computed from the means of their sources."""
  chosen = {name: DERIVED[name] for name in metrics if name in DERIVED}
  return {name: one.function(means[one.source]) for name, one in chosen.items()}
