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
from pathlib import Path

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.metrics.means import ByDomain
from algorithmic_efficiency.metrics.metric import Metric

from . import exact_match, router_load


def metrics(definition: WorkloadDefinition, root: Path | None) -> dict[str, Metric]:
  """Returns the metrics that are no means, by name."""
  capacity = getattr(definition.model, 'capacity_factor', None)
  return {
    'exact_match': ByDomain('exact_match', definition.task_names),
    'exact_match_of_modality': exact_match.ExactMatchOfModality(definition.task_names),
    'load_variation': router_load.OfLoad('load_variation', router_load.load_variation),
    'largest_share': router_load.OfLoad('largest_share', router_load.largest_share),
    'drop_rate': router_load.OfLoad(
      'drop_rate', functools.partial(router_load.drop_rate, capacity_factor=capacity)
    ),
  }
