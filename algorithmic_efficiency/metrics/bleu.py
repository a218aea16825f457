"""BLEU as the field reports it, by sacrebleu."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.metrics.metric import Outputs, State, Sums

_MAX_ORDER = 4

Texts = Callable[[Outputs, Mapping[str, Any]], tuple[Sequence[str], Sequence[str]]]
"""Turns outputs and a batch into hypotheses and references: a text for each row."""


@dataclass(frozen=True, kw_only=True)
class Bleu:
  """Corpus BLEU in percent: 13a tokens, mixed case, exponential smoothing, n-grams up to 4.

  This is the default of sacrebleu; a text without a 4-gram counts as it is (no effective order).
  The state are counts of n-grams and lengths, which add exactly.

  Attributes:
    texts: gives a hypothesis and a reference, without tokenization, for each row.
    outputs: names of the outputs that `texts` reads.

  Raises:
    UserError: sacrebleu is not installed.
  """

  texts: Texts
  outputs: tuple[str, ...]
  name: str = 'bleu'

  def update(self, state: State, outputs: Outputs, batch: Mapping[str, Any]) -> State:
    """Adds int64 [2 + 2 * 4]: both lengths in tokens, matches and n-grams of each order."""
    hypotheses, references = self.texts(outputs, batch)
    score = _sacrebleu()(force=True).corpus_score(list(hypotheses), [list(references)])
    counts = np.array([score.sys_len, score.ref_len, *score.counts, *score.totals], np.int64)
    return counts if state is None else state + counts

  def merge(self, states: list[State]) -> State:
    return sum(states)

  def compute(self, sums: Sums, state: State) -> dict[str, float]:
    """Returns BLEU; NaN if no example counted."""
    if state is None:
      return {self.name: math.nan}
    hypothesis_length, reference_length, *counts = state.tolist()
    score = _sacrebleu().compute_bleu(
      counts[:_MAX_ORDER],
      counts[_MAX_ORDER:],
      hypothesis_length,
      reference_length,
      smooth_method='exp',
      effective_order=False,
      max_ngram_order=_MAX_ORDER,
    )
    return {self.name: float(score.score)}


def _sacrebleu() -> Any:
  return of_sacrebleu('BLEU')


def of_sacrebleu(name: str) -> Any:
  """Returns a class of sacrebleu by its name, such as 'BLEU'.

  Raises:
    UserError: sacrebleu is not installed.
  """
  try:
    return getattr(importlib.import_module('sacrebleu.metrics'), name)
  except ModuleNotFoundError as error:
    raise errors.UserError(
      f'{name} needs the package {error.name!r}, which is not installed. Install it with: '
      "pip install 'algorithmic-efficiency[text]'"
    ) from None
