"""Words, images and sounds in one packed row, through experts whose load is balanced."""

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
class Experts:
  """A sum of experts, weighted by a softmax of a router.

  Attributes:
    balance_weight: weight of the auxiliary loss, which is least where the load is balanced.
  """

  dim: int = 16
  num_experts: int = 4
  balance_weight: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Modalities:
  """Sequences of 1 to `max_length` items of one kind: words, images or sounds.

  Attributes:
    row_length: items of a packed row.
    weights: weight of each kind in the mixture of the training split.
  """

  row_length: int = 12
  max_length: int = 5
  num_classes: int = 6
  image_dim: int = 4
  audio_dim: int = 3
  weights: tuple[tuple[str, float], ...] = (('text', 2.0), ('image', 1.0), ('audio', 1.0))


_KINDS = ('text', 'image', 'audio')
_DEFINITION = WorkloadDefinition(
  name='toy_modalities',
  task='toy_modalities',
  summary='Words, images and sounds in packed rows, a mixture of experts: accuracy',
  dataset='toy_modalities',
  bundled=True,
  model=Experts(),
  data=Modalities(),
  loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
  metrics=('accuracy', 'loss', 'accuracy_of_task'),
  target=Target(metric='accuracy', direction='max', validation=0.9, test=0.9),
  suites={'quick': Budget(step_hint=80, max_steps=80, eval_period_steps=10, role='extra')},
  splits=Splits(train=600, eval_train=24, validation=42, test=21),
  batch_sizes=BatchSizes(train=16, eval=16),
  smoke=Smoke(model=Experts(dim=4, num_experts=2), data=Modalities(row_length=6, max_length=3)),
  output_params={'jax': ('out',), 'pytorch': ('out.weight', 'out.bias')},
  target_source='chosen, for tests',
  independent_examples=False,
  frozen_params={'jax': ('audio',), 'pytorch': ('audio',)},
  task_names=_KINDS,
  probes={'images': Probe(num_examples=20, metrics=('accuracy', 'loss'), summary='images alone')},
)

WORKLOADS = {_DEFINITION.name: _DEFINITION}
