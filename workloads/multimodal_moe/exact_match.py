"""Exact match of the questions of each modality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from algorithmic_efficiency.metrics.means import ByDomain
from algorithmic_efficiency.metrics.metric import OfSums, State, Sums

from .data_records import AUDIO, IMAGE
from .digit_kinds import KINDS

_OF_WEB = {'text': 'text', 'caption': 'image', 'transcript': 'audio'}
_NAMES = {AUDIO: 'audio', IMAGE: 'image'}


def modalities(kind: str) -> str:
  """Returns what a kind of question gives: 'text', 'image', 'audio' or 'audio_and_image'."""
  if kind in _OF_WEB:
    return _OF_WEB[kind]
  found = KINDS[kind].modalities
  return '_and_'.join(name for one, name in _NAMES.items() if one in found) or 'text'


@dataclass(frozen=True)
class ExactMatchOfModality(OfSums):
  """The share of questions that are answered exactly, for the kinds of each modality together.

  Attributes:
    kinds: kinds of questions, in the order of the sums.
  """

  kinds: tuple[str, ...]
  name: str = 'exact_match_of_modality'

  def compute(self, sums: Sums, state: State) -> dict[str, float]:
    """Returns the share over all questions, and `<name>/<modality>`.

    Raises:
      MetricError: the sums are no pair of vectors [kinds].
    """
    whole = ByDomain('exact_match', self.kinds).compute(sums, state)['exact_match']
    of_kinds = [modalities(kind) for kind in self.kinds]
    names = tuple(dict.fromkeys(of_kinds))
    is_of = np.array([[one == name for one in of_kinds] for name in names], np.float64)
    grouped = {self.name: tuple(is_of @ np.asarray(one) for one in sums['exact_match'])}
    return {**ByDomain(self.name, names).compute(grouped, state), self.name: whole}
