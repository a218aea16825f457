"""Image classification of CIFAR-10, with AlgoPerf's residual network and with a smaller one.

`definition.py` beside this file collects the workloads of all files.
"""

from __future__ import annotations

from dataclasses import replace

from algorithmic_efficiency.benchmark.definition import (
  BatchSizes,
  Budget,
  Smoke,
  Splits,
  Target,
  WorkloadDefinition,
  variant_target,
)
from algorithmic_efficiency.spec import LossType

from .imagenet import ResNet, model_variant
from .photographs import CIFAR10, CIFAR10_JPEG

# A workload for development: it runs under the rules of the suites and has no score.
_BUDGET = Budget(step_hint=4_883, max_sec=3_600, eval_period_sec=600, role='extra')
_CIFAR = WorkloadDefinition(
  name='cifar',
  task='vision',
  summary='CIFAR-10, ResNet-18 with a small stem: accuracy',
  dataset='cifar10',
  tfds='cifar10',
  model=ResNet(stage_sizes=(2, 2, 2, 2), block='basic', stem='small'),
  data=CIFAR10,
  loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
  metrics=('accuracy', 'loss'),
  target=Target(metric='accuracy', direction='max', validation=0.85, test=0.85),
  suites={'algoperf_v06': _BUDGET, 'algoperf_v05': _BUDGET},
  splits=Splits(train=45_000, eval_train=5_120, validation=5_000, test=10_000),
  batch_sizes=BatchSizes(train=128, eval=1024),
  smoke=Smoke(
    model=ResNet(stage_sizes=(1, 1), block='basic', stem='small', num_filters=4),
    data=replace(CIFAR10, image_size=16),
  ),
  output_params={'jax': ('Dense_0',), 'pytorch': ('fc.weight', 'fc.bias')},
  independent_examples=False,  # batch norm
  train_mean=(0.49139968 * 255, 0.48215827 * 255, 0.44653124 * 255),
  train_stddev=(0.24703233 * 255, 0.24348505 * 255, 0.26158768 * 255),
  target_source='AlgoPerf, for development only',
)

_SMALL = replace(
  _CIFAR,
  name='cifar_small',
  base='cifar_small',
  summary='CIFAR-10 as JPEG files hold it, residual network of 3 blocks: loss',
  dataset='cifar10_jpeg',
  tfds=None,
  # Weights move fast in a few hundred steps. Statistics over ten of them lag, and evaluations vary.
  model=replace(_CIFAR.model, stage_sizes=(1, 1, 1), num_filters=16, bn_momentum=0.5),
  data=CIFAR10_JPEG,
  target=Target(metric='loss', direction='min', validation=1.0, test=1.0, provisional=True),
  suites={'lite': Budget(step_hint=2_000, max_steps=2_000)},
  splits=replace(_CIFAR.splits, eval_train=1_000),
  batch_sizes=BatchSizes(train=128, eval=1_000),
  smoke=Smoke(
    model=ResNet(stage_sizes=(1, 1), block='basic', stem='small', num_filters=4),
    data=replace(CIFAR10_JPEG, image_size=16),
  ),
  target_source='provisional: a guess, not calibrated yet',
)

WORKLOADS = {
  definition.name: definition
  for definition in (
    _CIFAR,
    model_variant(
      _CIFAR,
      {'activation': 'silu'},
      name='cifar_silu',
      summary='CIFAR-10, ResNet-18 with a small stem, SiLU: accuracy',
      **variant_target(_CIFAR, 'cifar_silu', None),
    ),
    model_variant(
      _CIFAR,
      {'activation': 'gelu_tanh'},
      name='cifar_gelu',
      summary='CIFAR-10, ResNet-18 with a small stem, GELU: accuracy',
      **variant_target(_CIFAR, 'cifar_gelu', None),
    ),
    model_variant(
      _CIFAR,
      {'last_bn_scale': 8.0},
      name='cifar_large_bn_init',
      summary='CIFAR-10, ResNet-18, last batch norm of each block scaled by 8 at the start',
      **variant_target(_CIFAR, 'cifar_large_bn_init', None),
    ),
    _SMALL,
    model_variant(
      _SMALL,
      {'norm': None},
      name='cifar_small_no_norm',
      summary='CIFAR-10 as JPEG files hold it, residual network without norm: loss',
      independent_examples=True,
      **variant_target(_SMALL, 'cifar_small_no_norm', None),
    ),
  )
}
