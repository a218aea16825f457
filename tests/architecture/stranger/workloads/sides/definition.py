"""A task that the project does not know: which side of a line is a point on?"""

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
class Points:
  """What a point is: `num_dims` standard normal numbers."""

  num_dims: int = 4


WORKLOADS = {
  'sides': WorkloadDefinition(
    name='sides',
    task='sides',
    summary='Points on two sides of a line, linear model: accuracy',
    dataset='sides',
    bundled=True,
    model=None,
    data=Points(),
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    metrics=('accuracy', 'loss'),
    target=Target(metric='accuracy', direction='max', validation=0.9, test=0.9),
    suites={'quick': Budget(step_hint=40, max_steps=40)},
    splits=Splits(train=256, eval_train=64, validation=64, test=64),
    batch_sizes=BatchSizes(train=16, eval=64),
    smoke=Smoke(model=None),
    target_source='made up for a test',
  )
}
