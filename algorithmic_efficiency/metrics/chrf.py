"""chrF as the field reports it, by sacrebleu."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from algorithmic_efficiency.metrics.bleu import Texts, of_sacrebleu
from algorithmic_efficiency.metrics.metric import Outputs, State, Sums


@dataclass(frozen=True, kw_only=True)
class ChrF:
  """Corpus chrF2 in percent: character n-grams up to 6 (Popovic, 2015), recall weighs twice.

  This is the default of sacrebleu. The state are the texts, as pairs of hypothesis and reference.

  Attributes:
    texts: gives a hypothesis and a reference for each row.
    outputs: names of the outputs that `texts` reads.

  Raises:
    UserError: sacrebleu is not installed.
  """

  texts: Texts
  outputs: tuple[str, ...]
  name: str = 'chrf'

  def update(self, state: State, outputs: Outputs, batch: Mapping[str, Any]) -> State:
    """Adds the hypothesis and the reference of each row."""
    pairs = list(zip(*self.texts(outputs, batch), strict=True))
    return pairs if state is None else state + pairs

  def merge(self, states: list[State]) -> State:
    return [pair for state in states for pair in state]

  def compute(self, sums: Sums, state: State) -> dict[str, float]:
    """Returns chrF; NaN if no example counted."""
    metric = of_sacrebleu('CHRF')()
    if state is None:
      return {self.name: math.nan}
    hypotheses, references = zip(*state, strict=True)
    return {self.name: float(metric.corpus_score(list(hypotheses), [list(references)]).score)}
