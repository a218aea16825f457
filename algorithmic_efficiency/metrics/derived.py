"""Metrics that follow from the mean of another over a whole split, and cannot be summed up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Derived:
  """A function of the mean of the metric `source`."""

  source: str
  function: Callable[[float], float]


def perplexity(loss: float) -> float:
  """The exponential of a cross entropy in nats a token; inf where that is too large for a float."""
  try:
    return math.exp(loss)
  except OverflowError:
    return math.inf


DERIVED: Mapping[str, Derived] = {'ppl': Derived(source='loss', function=perplexity)}


def summed(metrics: Iterable[str]) -> tuple[str, ...]:
  """Those of the metrics of a definition that a model sums up."""
  return tuple(name for name in metrics if name not in DERIVED)


def from_means(metrics: Iterable[str], means: Mapping[str, float]) -> dict[str, float]:
  """Those of the metrics of a definition that follow from the means of others."""
  chosen = {name: DERIVED[name] for name in metrics if name in DERIVED}
  return {name: one.function(means[one.source]) for name, one in chosen.items()}
