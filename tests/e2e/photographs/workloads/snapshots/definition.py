"""Photographs of four patterns, with the data of ImageNet and a small convolutional net."""

from __future__ import annotations

from algorithmic_efficiency.benchmark.definition import (
  BatchSizes,
  Budget,
  Smoke,
  Splits,
  Target,
  WorkloadDefinition,
)
from algorithmic_efficiency.spec import LossType
from workloads.vision.definition import ConvNet
from workloads.vision.photographs import Photographs

_SNAPSHOTS = WorkloadDefinition(
  name='snapshots',
  task='snapshots',
  summary='Photographs of four patterns, small convolutional net: accuracy',
  dataset='snapshots',
  model=ConvNet(channels=(8, 16, 16)),
  data=Photographs(
    image_size=32,
    resize_size=36,
    num_classes=4,
    crop_area=(0.5, 1.0),
    randaugment_layers=1,
    mixup_alpha=0.2,
  ),
  loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
  metrics=('accuracy', 'loss'),
  target=Target(metric='accuracy', direction='max', validation=0.99, test=0.99),
  suites={'quick': Budget(step_hint=60, max_steps=60, eval_period_steps=20)},
  splits=Splits(train=240, eval_train=40, validation=60, test=40),
  batch_sizes=BatchSizes(train=32, eval=20),
  smoke=Smoke(model=ConvNet(channels=(4,))),
  output_params={'jax': ('Dense_0',), 'pytorch': ('fc.weight', 'fc.bias')},
  independent_examples=False,  # batch norm
  train_mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
  train_stddev=(0.229 * 255, 0.224 * 255, 0.225 * 255),
  target_source='chosen, for tests',
)

WORKLOADS = {_SNAPSHOTS.name: _SNAPSHOTS}
