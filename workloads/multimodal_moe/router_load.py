"""Numbers of the load of experts: how even it is, and what a capacity would drop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from algorithmic_efficiency.metrics.metric import MetricError, OfSums, State, Sums


@dataclass(frozen=True)
class OfLoad(OfSums):
  """A number of the load of experts, over all layers of experts and positions of a split.

  Attributes:
    function: gives the number for the assignments of each expert, float64 [layers, experts].
  """

  name: str
  function: Callable[[np.ndarray], float]

  def compute(self, sums: Sums, state: State) -> dict[str, float]:
    """Returns the number; NaN where nothing was assigned.

    Raises:
      MetricError: the sums are missing, or no array [layers, experts].
    """
    load = np.asarray(sums['router_load'], np.float64)
    if load.ndim != 2:
      raise MetricError(
        f"The sums 'router_load' must be an array [layers, experts]; its shape is "
        f'{list(load.shape)}.'
      )
    is_empty = not load.size or not load.sum(axis=1).all()
    return {self.name: math.nan if is_empty else self.function(load)}


def load_variation(load: np.ndarray) -> float:
  """Returns the standard deviation of the experts' loads over their mean, mean over layers."""
  return float(np.mean(load.std(axis=1) / load.mean(axis=1)))


def largest_share(load: np.ndarray) -> float:
  """Returns the largest share of a layer's assignments that one expert has, over all layers."""
  return float(np.max(load / load.sum(axis=1, keepdims=True)))


def drop_rate(load: np.ndarray, *, capacity_factor: float | None) -> float:
  """Returns the share of assignments beyond the capacity, mean over layers.

  Evaluation drops nothing. This is what training would drop if the split were one batch, so that
  the number does not depend on the batch size.

  Args:
    capacity_factor: capacity of an expert over the mean load; None if nothing is ever dropped.
  """
  if capacity_factor is None:
    return 0.0
  shares = load / load.sum(axis=1, keepdims=True)
  capacity = capacity_factor / load.shape[1]
  return float(np.mean(np.maximum(shares - capacity, 0).sum(axis=1)))
