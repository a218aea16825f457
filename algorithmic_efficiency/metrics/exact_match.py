"""The share of texts that are exactly right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from algorithmic_efficiency.metrics.bleu import Texts
from algorithmic_efficiency.metrics.metric import Outputs, State, Sums


@dataclass(frozen=True, kw_only=True)
class ExactMatch:
  """The share of hypotheses, from 0 to 1, that equal their references character by character.

  Attributes:
    texts: gives a hypothesis and a reference for each row.
    outputs: names of the outputs that `texts` reads.
  """

  texts: Texts
  outputs: tuple[str, ...]
  name: str = 'exact_match'

  def update(self, state: State, outputs: Outputs, batch: Mapping[str, Any]) -> State:
    """Adds (number of matches, number of rows)."""
    pairs = list(zip(*self.texts(outputs, batch), strict=True))
    matches, rows = (0, 0) if state is None else state
    return matches + sum(one == other for one, other in pairs), rows + len(pairs)

  def merge(self, states: list[State]) -> State:
    return tuple(map(sum, zip(*states, strict=True)))

  def compute(self, sums: Sums, state: State) -> dict[str, float]:
    """Returns the share; NaN if no example counted."""
    if state is None:
      return {self.name: math.nan}
    matches, rows = state
    return {self.name: matches / rows}
