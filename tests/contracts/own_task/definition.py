"""A small task in a folder of its own: which of two corners is a point near?"""

from __future__ import annotations

from dataclasses import dataclass

from algorithmic_efficiency.benchmark.definition import (
  BatchSizes,
  Budget,
  Probe,
  Smoke,
  Splits,
  Target,
  WorkloadDefinition,
)
from algorithmic_efficiency.spec import LossType


@dataclass(frozen=True, kw_only=True)
class NoisyPoints:
  """Points of `num_dims` numbers: one of two corners of a cube, plus standard normal noise."""

  num_dims: int = 4


@dataclass(frozen=True, kw_only=True)
class LinearModel:
  """A linear layer to `num_classes` logits."""

  num_classes: int = 2


WORKLOADS = {
  'corners': WorkloadDefinition(
    name='corners',
    task='own_task',
    summary='Points near two corners of a cube, linear model: accuracy',
    dataset='corners',
    bundled=True,
    model=LinearModel(),
    data=NoisyPoints(),
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    metrics=('accuracy', 'loss'),
    target=Target(metric='accuracy', direction='max', validation=0.9, test=0.9),
    suites={'quick': Budget(step_hint=40, max_steps=40)},
    splits=Splits(train=256, eval_train=64, validation=64, test=64),
    batch_sizes=BatchSizes(train=16, eval=64),
    smoke=Smoke(model=LinearModel()),
    output_params={'jax': ('Dense_0',), 'pytorch': ('fc.weight', 'fc.bias')},
    target_source='made up for a test',
    probes={
      'far': Probe(
        num_examples=40, metrics=('accuracy',), summary='points farther from the corners'
      )
    },
  )
}
