"""Loss and exact match by kind of question and by modality, and the health of the router.

`eval_step` gives these sums, beside those of means:

- `loss_of_kind`: the sum of the losses of answer tokens and the number of these, [kinds] each.
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

from . import of_modality, router_load


def metrics(definition: WorkloadDefinition, root: Path | None) -> dict[str, Metric]:
  """Returns the metrics that are no means, by name."""
  capacity = getattr(definition.model, 'capacity_factor', None)
  kinds = definition.task_names
  return {
    'loss_of_kind': ByDomain('loss_of_kind', kinds),
    'loss_of_modality': of_modality.LossOfModality(kinds),
    'exact_match': ByDomain('exact_match', kinds),
    'exact_match_of_modality': of_modality.ExactMatchOfModality(kinds),
    'load_variation': router_load.OfLoad('load_variation', router_load.load_variation),
    'largest_share': router_load.OfLoad('largest_share', router_load.largest_share),
    'drop_rate': router_load.OfLoad(
      'drop_rate', functools.partial(router_load.drop_rate, capacity_factor=capacity)
    ),
  }
