"""Points whose decoding takes CPU time: worker processes make them ahead."""

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
class Linear:
  """One linear layer."""

  bias: bool = True


@dataclass(frozen=True, kw_only=True)
class Points:
  """Points around one center for each class; decoding one takes `decode_ms` of CPU time."""

  num_features: int = 32
  num_classes: int = 4
  decode_ms: float = 2.0


_DEFINITION = WorkloadDefinition(
  name='toy_slow',
  task='toy_slow',
  summary='Points that are slow to decode, one linear layer: accuracy',
  dataset='toy_slow',
  bundled=True,
  model=Linear(),
  data=Points(),
  loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
  metrics=('accuracy', 'loss'),
  target=Target(metric='accuracy', direction='max', validation=0.9, test=0.9),
  suites={'quick': Budget(step_hint=40, max_steps=40, eval_period_steps=10, role='extra')},
  splits=Splits(train=256, eval_train=16, validation=24, test=16),
  batch_sizes=BatchSizes(train=16, eval=16),
  smoke=Smoke(model=Linear(), data=Points(num_features=4, num_classes=3, decode_ms=0.5)),
  output_params={'jax': ('Dense_0',), 'pytorch': ('out.weight', 'out.bias')},
  target_source='chosen, for tests',
)

WORKLOADS = {_DEFINITION.name: _DEFINITION}
