"""Image classification at full size: ImageNet with ResNet-50 and ViT-S/16, and the CIFAR-10 ResNet.

`definition.py` beside this file collects these and the small workloads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from algorithmic_efficiency.benchmark.definition import (
  BatchSizes,
  Budget,
  Splits,
  Target,
  WorkloadDefinition,
  variant,
)
from algorithmic_efficiency.spec import LossType

from .photographs import CIFAR10, Photographs


@dataclass(frozen=True, kw_only=True)
class ResNet:
  """Residual network; `stem` is 'imagenet' (7x7, stride 2, pooled) or 'small' (3x3).

  `last_bn_scale` is the initial scale of each block's last batch norm.
  """

  stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
  block: str = 'bottleneck'
  stem: str = 'imagenet'
  num_filters: int = 64
  num_classes: int = 1000
  activation: str = 'relu'
  last_bn_scale: float = 0.0
  bn_momentum: float = 0.9
  bn_epsilon: float = 1e-5


@dataclass(frozen=True, kw_only=True)
class VisionTransformer:
  """ViT S/16; `pooling` is 'gap' (global average) or 'map' (attention pooling)."""

  width: int = 384
  depth: int = 12
  mlp_dim: int = 1536
  num_heads: int = 6
  patch_size: int = 16
  num_classes: int = 1000
  activation: str = 'gelu'
  gated: bool = False
  pre_norm: bool = True
  pooling: str = 'gap'


_RESNET_A100 = Budget(step_hint=195_999, max_sec=49_918, eval_period_sec=1_996)
_RESNET = WorkloadDefinition(
  name='imagenet_resnet',
  task='vision',
  summary='ImageNet, ResNet-50: accuracy, tested on ImageNet-v2',
  dataset='imagenet',
  tfds='imagenet2012:5.1.0',
  model=ResNet(),
  data=Photographs(),
  loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
  metrics=('accuracy', 'loss'),
  target=Target(metric='accuracy', direction='max', validation=0.77431, test=0.6560),
  suites={
    'full': _RESNET_A100,
    'algoperf_a100': _RESNET_A100,
    'algoperf_v06': Budget(step_hint=195_999, max_sec=66_159, eval_period_sec=510),
    'algoperf_v05': Budget(step_hint=186_666, max_sec=63_008, eval_period_sec=510),
  },
  splits=Splits(train=1_281_167, eval_train=50_176, validation=50_000, test=10_000),
  batch_sizes=BatchSizes(train=1024, eval=1024),
  smoke=None,
  output_params={'jax': ('Dense_0',), 'pytorch': ('fc.weight', 'fc.bias')},
  independent_examples=False,  # batch norm
  train_mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
  train_stddev=(0.229 * 255, 0.224 * 255, 0.225 * 255),
  target_source='AlgoPerf; heavy ball',
)

_VIT_A100 = Budget(step_hint=167_999, max_sec=64_292, eval_period_sec=2_571)
_VIT = replace(
  _RESNET,
  name='imagenet_vit',
  base='imagenet_vit',
  summary='ImageNet, ViT-S/16: accuracy, tested on ImageNet-v2',
  model=VisionTransformer(),
  data=Photographs(randaugment_layers=2, mixup_alpha=0.2),
  target=replace(_RESNET.target, validation=0.77309, test=0.6519),
  suites={
    'full': _VIT_A100,
    'algoperf_a100': _VIT_A100,
    'algoperf_v06': Budget(step_hint=167_999, max_sec=69_768, eval_period_sec=420),
    'algoperf_v05': Budget(step_hint=186_666, max_sec=77_520, eval_period_sec=420),
  },
  splits=replace(_RESNET.splits, eval_train=51_200),
  batch_sizes=BatchSizes(train=1024, eval=2048),
  output_params={'jax': ('head',), 'pytorch': ('head.weight', 'head.bias')},
  independent_examples=True,
  target_source='AlgoPerf; NadamW',
)

# A workload for development: it runs under the rules of the suites and has no score.
_CIFAR_BUDGET = Budget(step_hint=4_883, max_sec=3_600, eval_period_sec=600, role='extra')
_CIFAR = WorkloadDefinition(
  name='cifar',
  task='vision',
  summary='CIFAR-10, ResNet-18 with a small stem: accuracy',
  dataset='cifar10',
  tfds='cifar10',
  model=ResNet(stage_sizes=(2, 2, 2, 2), block='basic', stem='small', num_classes=10),
  data=CIFAR10,
  loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
  metrics=('accuracy', 'loss'),
  target=Target(metric='accuracy', direction='max', validation=0.85, test=0.85),
  suites={'algoperf_v06': _CIFAR_BUDGET, 'algoperf_v05': _CIFAR_BUDGET},
  splits=Splits(train=45_000, eval_train=5_120, validation=5_000, test=10_000),
  batch_sizes=BatchSizes(train=128, eval=1024),
  smoke=None,
  output_params={'jax': ('Dense_0',), 'pytorch': ('fc.weight', 'fc.bias')},
  independent_examples=False,  # batch norm
  train_mean=(0.49139968 * 255, 0.48215827 * 255, 0.44653124 * 255),
  train_stddev=(0.24703233 * 255, 0.24348505 * 255, 0.26158768 * 255),
  target_source='AlgoPerf, for development only',
)


def _target(validation: float, test: float) -> Target:
  return replace(_RESNET.target, validation=validation, test=test)


_BATCH_512 = BatchSizes(train=512, eval=1024)

WORKLOADS = {
  definition.name: definition
  for definition in (
    _RESNET,
    _VIT,
    _CIFAR,
    variant(
      _RESNET,
      name='imagenet_resnet_silu',
      summary='ImageNet, ResNet-50, SiLU',
      model=replace(_RESNET.model, activation='silu'),
      batch_sizes=_BATCH_512,
      target=_target(0.75445, 0.6323),
    ),
    variant(
      _RESNET,
      name='imagenet_resnet_gelu',
      summary='ImageNet, ResNet-50, GELU',
      model=replace(_RESNET.model, activation='gelu_tanh'),
      batch_sizes=_BATCH_512,
      target=_target(0.76765, 0.6519),
    ),
    variant(
      _RESNET,
      name='imagenet_resnet_large_bn_init',
      summary='ImageNet, ResNet-50, last batch norm of each block scaled by 8 at the start',
      held_out_in=('algoperf_v05',),
      model=replace(_RESNET.model, last_bn_scale=8.0),
      target=_target(0.76526, 0.6423),
    ),
    variant(
      _VIT,
      name='imagenet_vit_glu',
      summary='ImageNet, ViT-S/16, gated MLP',
      model=replace(_VIT.model, gated=True),
      batch_sizes=replace(_VIT.batch_sizes, train=512),
      target=_target(0.75738, 0.6359),
    ),
    variant(
      _VIT,
      name='imagenet_vit_post_ln',
      summary='ImageNet, ViT-S/16, layer norm after each residual sum',
      model=replace(_VIT.model, pre_norm=False),
      target=_target(0.75312, 0.6286),
    ),
    variant(
      _VIT,
      name='imagenet_vit_map',
      summary='ImageNet, ViT-S/16, attention pooling',
      model=replace(_VIT.model, pooling='map'),
      target=_target(0.77113, 0.6523),
    ),
  )
}
