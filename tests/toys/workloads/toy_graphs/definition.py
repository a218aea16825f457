"""Graphs of different sizes, joined with padding by the task itself."""

from __future__ import annotations

from dataclasses import dataclass

from algorithmic_efficiency.benchmark.definition import (
  BatchSizes,
  Budget,
  Smoke,
  Splits,
  Target,
  WorkloadDefinition,
)
from algorithmic_efficiency.spec import LossType


@dataclass(frozen=True, kw_only=True)
class MessagePassing:
  """One round of messages along the edges, the sum over nodes, and a linear layer."""

  dim: int = 16


@dataclass(frozen=True, kw_only=True)
class Graphs:
  """Graphs of 3 to `max_nodes` nodes; in those of class 1, most edges join nodes of one kind."""

  max_nodes: int = 8
  max_edges: int = 16
  num_kinds: int = 6
  num_classes: int = 2


_DEFINITION = WorkloadDefinition(
  name='toy_graphs',
  task='toy_graphs',
  summary='Graphs of different sizes, one round of messages: accuracy',
  dataset='toy_graphs',
  bundled=True,
  model=MessagePassing(),
  data=Graphs(),
  loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
  metrics=('accuracy', 'loss'),
  target=Target(metric='accuracy', direction='max', validation=0.85, test=0.8),
  suites={'quick': Budget(step_hint=80, max_steps=80, eval_period_steps=10, role='extra')},
  splits=Splits(train=512, eval_train=24, validation=40, test=20),
  batch_sizes=BatchSizes(train=16, eval=16),
  smoke=Smoke(model=MessagePassing(dim=4), data=Graphs(max_nodes=4, max_edges=6)),
  output_params={'jax': ('Dense_1',), 'pytorch': ('out.weight', 'out.bias')},
  target_source='chosen, for tests',
)

WORKLOADS = {_DEFINITION.name: _DEFINITION}
