"""Weighted means: of a whole split, and of its parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from algorithmic_efficiency.metrics.metric import MetricError, OfSums, State, Sums


@dataclass(frozen=True)
class Mean(OfSums):
  """The sum of a metric over its weight: the metric of every name that a task gives no other.

  `eval_step` gives the pair (sum, weight) of scalars. The mean is NaN where nothing counted.
  """

  name: str

  def compute(self, sums: Sums, state: State) -> dict[str, float]:
    return {self.name: mean_of(sums, self.name)}


@dataclass(frozen=True)
class ByDomain(OfSums):
  """The mean over a split, and that of each of its parts, as `<name>/<part>`.

  `eval_step` gives the pair (sums, weights) of vectors [parts]. The mean of the split weighs every
  example alike, not every part. A part of which no example counted has no number, so that an empty
  part is not taken for one that diverged.

  Attributes:
    parts: the names of the parts, in the order of the vectors.
  """

  name: str
  parts: tuple[str, ...]

  def compute(self, sums: Sums, state: State) -> dict[str, float]:
    totals, weights = _pair(sums[self.name], self.name, (len(self.parts),))
    means = {
      f'{self.name}/{part}': float(total / weight)
      for part, total, weight in zip(self.parts, totals, weights, strict=True)
      if weight
    }
    return {self.name: _ratio(float(totals.sum()), float(weights.sum())), **means}


def mean_of(sums: Sums, name: str) -> float:
  """Returns the mean of a metric whose sums are a pair of scalars; NaN where nothing counted.

  Raises:
    MetricError: the sums are missing, or no pair of scalars.
  """
  total, weight = _pair(sums[name], name, ())
  return _ratio(float(total), float(weight))


def _ratio(total: float, weight: float) -> float:
  return total / weight if weight else math.nan


def _pair(found: Any, name: str, shape: tuple[int, ...]) -> tuple[Any, Any]:
  shapes = [np.shape(one) for one in found] if isinstance(found, (tuple, list)) else None
  if shapes != [shape, shape]:
    kind = f'arrays [{shape[0]}]' if shape else 'scalars'
    was = 'no pair' if shapes is None else ' and '.join(str(list(one)) for one in shapes)
    raise MetricError(
      f'The sums of {name!r} must be a pair (sum, weight) of {kind}; their shapes are: {was}.'
    )
  return found[0], found[1]
