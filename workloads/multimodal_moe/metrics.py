"""Exact match by kind of question and by modality, and the health of the router.

`eval_step` gives these sums, beside those of means:

- `exact_match`: the number of questions answered exactly and the number asked, [kinds] each.
- `router_load`: the assignments of positions to each expert, [layers, experts].
- `router_entropy`: the sum of the entropy of the router's probabilities, and its count.

A question is answered exactly if each token of its answer is the likeliest after the right tokens
before it. These are the questions that greedy decoding answers exactly.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.metrics.means import ByDomain
from algorithmic_efficiency.metrics.metric import Metric, MetricError, OfSums, State, Sums

from .data_records import AUDIO, IMAGE
from .digit_kinds import KINDS

_OF_WEB = {'text': 'text', 'caption': 'image', 'transcript': 'audio'}
_NAMES = {AUDIO: 'audio', IMAGE: 'image'}


def metrics(definition: WorkloadDefinition, root: Path | None) -> dict[str, Metric]:
  """Returns the metrics that are no means, by name."""
  capacity = getattr(definition.model, 'capacity_factor', None)
  return {
    'exact_match': ByDomain('exact_match', definition.task_names),
    'exact_match_of_modality': ExactMatchOfModality(definition.task_names),
    'load_variation': OfLoad('load_variation', load_variation),
    'largest_share': OfLoad('largest_share', largest_share),
    'drop_rate': OfLoad('drop_rate', functools.partial(drop_rate, capacity_factor=capacity)),
  }


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
