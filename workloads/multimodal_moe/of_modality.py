"""Loss and exact match of the questions of each modality."""

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
    return _by_modality(self.name, 'exact_match', self.kinds, sums)


@dataclass(frozen=True)
class LossOfModality(OfSums):
  """The mean loss of the answer tokens of each modality, and the mean of these means.

  Every modality weighs alike, however many tokens its answers have.

  Attributes:
    kinds: kinds of questions, in the order of the sums.
  """

  kinds: tuple[str, ...]
  name: str = 'loss_of_modality'

  def compute(self, sums: Sums, state: State) -> dict[str, float]:
    """Returns the mean over the modalities that were asked about, and `<name>/<modality>`.

    Raises:
      MetricError: the sums are no pair of vectors [kinds].
    """
    found = _by_modality(self.name, 'loss_of_kind', self.kinds, sums)
    del found[self.name]
    mean = float(np.mean(list(found.values()))) if found else np.nan
    return {self.name: mean, **found}


def _by_modality(name: str, of_kinds: str, kinds: tuple[str, ...], sums: Sums) -> dict[str, float]:
  """Returns the mean over all questions, and `<name>/<modality>` of those that were asked about.

  Args:
    of_kinds: name of the sums by kind.
  """
  whole = ByDomain(of_kinds, kinds).compute(sums, None)[of_kinds]
  found = [modalities(kind) for kind in kinds]
  names = tuple(dict.fromkeys(found))
  is_of = np.array([[one == name for one in found] for name in names], np.float64)
  grouped = {name: tuple(is_of @ np.asarray(one) for one in sums[of_kinds])}
  return {**ByDomain(name, names).compute(grouped, None), name: whole}
