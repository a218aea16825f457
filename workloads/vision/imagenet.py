"""Image classification at full size: ImageNet with ResNet-50 and ViT-S/16.

`definition.py` beside this file collects the workloads of all files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from algorithmic_efficiency.benchmark.definition import (
  BatchSizes,
  Budget,
  Smoke,
  Splits,
  Target,
  WorkloadDefinition,
  variant,
)
from algorithmic_efficiency.spec import LossType

from .photographs import Photographs


@dataclass(frozen=True, kw_only=True)
class ResNet:
  """Residual network (He et al., 2016), with the stride in the 3x3 convolution of a bottleneck.

  The channels double from stage to stage, whose first convolutions halve the image. Convolutions
  begin truncated normal with variance 1 / fan-in. Each pads its image evenly on all sides.

  Attributes:
    stage_sizes: number of blocks in each stage.
    block: 'bottleneck' has three convolutions (1x1, 3x3, 1x1), 'basic' has two of 3x3.
    stem: 'imagenet' is a 7x7 convolution with stride 2 and a pooling that halves again. 'small' is
      a 3x3 convolution.
    num_filters: channels of the stem and of the first stage; a bottleneck ends with four times as
      many.
    activation: a name of `ACTIVATIONS` of the layers.
    norm: None replaces each batch norm by a bias of the convolution.
    last_bn_scale: initial scale of the last batch norm of each block.
    head_stddev: standard deviation of the initial kernel of the head.
    bn_momentum: fraction of the running statistics that is kept at each step.
  """

  stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
  block: Literal['basic', 'bottleneck'] = 'bottleneck'
  stem: Literal['imagenet', 'small'] = 'imagenet'
  num_filters: int = 64
  activation: str = 'relu'
  norm: Literal['batch'] | None = 'batch'
  last_bn_scale: float = 0.0
  head_stddev: float = 0.01
  bn_momentum: float = 0.9
  bn_epsilon: float = 1e-5


@dataclass(frozen=True, kw_only=True)
class VisionTransformer:
  """Vision Transformer S/16 with fixed positions and no class token (Beyer et al., 2022).

  A hidden layer with tanh is before the head, which begins at zero. Kernels of the blocks begin
  Xavier uniform, others truncated normal with variance 1 / fan-in.

  Attributes:
    mlp_dim: hidden units of a feed-forward layer.
    activation: a name of `ACTIVATIONS` of the layers.
    gate: 'hidden' multiplies the hidden units by a linear function of themselves.
    norm_position: 'pre' normalizes the input of each part, and the output of the last block. 'post'
      normalizes each residual sum.
    pooling: 'mean' of the patches, or 'map' (attention pooling).
  """

  width: int = 384
  depth: int = 12
  mlp_dim: int = 1536
  num_heads: int = 6
  patch_size: int = 16
  activation: str = 'gelu_tanh'
  gate: Literal['none', 'hidden'] = 'none'
  norm_position: Literal['pre', 'post'] = 'pre'
  pooling: Literal['mean', 'map'] = 'mean'


_RESNET_A100 = Budget(step_hint=195_999, max_sec=49_918, eval_period_sec=1_996)
_RESNET = WorkloadDefinition(
  name='imagenet_resnet',
  task='vision',
  summary='ImageNet, ResNet-50: accuracy, tested on ImageNet-v2',
  dataset='imagenet',
  tfds={
    'imagenet': 'imagenet2012:5.1.0',
    'imagenet_v2': 'imagenet_v2/matched-frequency:3.0.0',
  },
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
  smoke=Smoke(
    model=ResNet(stage_sizes=(1, 1), num_filters=4),
    data=Photographs(image_size=32, resize_size=36, num_classes=10),
  ),
  accelerator_dtype='bfloat16',
  output_params={'jax': ('Dense_0',), 'pytorch': ('fc.weight', 'fc.bias')},
  independent_examples=False,  # batch norm
  train_mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
  train_stddev=(0.229 * 255, 0.224 * 255, 0.225 * 255),
  target_source='AlgoPerf; heavy ball',
)

_VIT_A100 = Budget(step_hint=167_999, max_sec=64_292, eval_period_sec=2_571)
_VIT_DATA = Photographs(randaugment_layers=2, mixup_alpha=0.2)
_VIT = replace(
  _RESNET,
  name='imagenet_vit',
  base='imagenet_vit',
  summary='ImageNet, ViT-S/16: accuracy, tested on ImageNet-v2',
  model=VisionTransformer(),
  data=_VIT_DATA,
  target=replace(_RESNET.target, validation=0.77309, test=0.6519),
  suites={
    'full': _VIT_A100,
    'algoperf_a100': _VIT_A100,
    'algoperf_v06': Budget(step_hint=167_999, max_sec=69_768, eval_period_sec=420),
    'algoperf_v05': Budget(step_hint=186_666, max_sec=77_520, eval_period_sec=420),
  },
  splits=replace(_RESNET.splits, eval_train=51_200),
  batch_sizes=BatchSizes(train=1024, eval=2048),
  smoke=Smoke(
    model=VisionTransformer(width=16, depth=2, mlp_dim=32, num_heads=2, patch_size=8),
    data=replace(_VIT_DATA, image_size=32, resize_size=36, num_classes=10),
  ),
  output_params={'jax': ('head',), 'pytorch': ('head.weight', 'head.bias')},
  independent_examples=True,
  target_source='AlgoPerf; NadamW',
)


def model_variant(
  base: WorkloadDefinition, model: Mapping[str, Any], **changes: Any
) -> WorkloadDefinition:
  """Returns a variant with other fields of the model, at full size and at that of `--smoke`."""
  assert base.smoke is not None
  return variant(
    base,
    model=replace(base.model, **model),
    smoke=replace(base.smoke, model=replace(base.smoke.model, **model)),
    **changes,
  )


def _target(validation: float, test: float) -> Target:
  return replace(_RESNET.target, validation=validation, test=test)


_BATCH_512 = BatchSizes(train=512, eval=1024)

WORKLOADS = {
  definition.name: definition
  for definition in (
    _RESNET,
    _VIT,
    model_variant(
      _RESNET,
      {'activation': 'silu'},
      name='imagenet_resnet_silu',
      summary='ImageNet, ResNet-50, SiLU',
      batch_sizes=_BATCH_512,
      target=_target(0.75445, 0.6323),
    ),
    model_variant(
      _RESNET,
      {'activation': 'gelu_tanh'},
      name='imagenet_resnet_gelu',
      summary='ImageNet, ResNet-50, GELU',
      batch_sizes=_BATCH_512,
      target=_target(0.76765, 0.6519),
    ),
    model_variant(
      _RESNET,
      {'last_bn_scale': 8.0},
      name='imagenet_resnet_large_bn_init',
      summary='ImageNet, ResNet-50, last batch norm of each block scaled by 8 at the start',
      held_out_in=('algoperf_v05',),
      target=_target(0.76526, 0.6423),
    ),
    model_variant(
      _VIT,
      {'gate': 'hidden'},
      name='imagenet_vit_glu',
      summary='ImageNet, ViT-S/16, gated MLP',
      batch_sizes=replace(_VIT.batch_sizes, train=512),
      target=_target(0.75738, 0.6359),
    ),
    model_variant(
      _VIT,
      {'norm_position': 'post'},
      name='imagenet_vit_post_ln',
      summary='ImageNet, ViT-S/16, layer norm after each residual sum',
      target=_target(0.75312, 0.6286),
    ),
    model_variant(
      _VIT,
      {'pooling': 'map'},
      name='imagenet_vit_map',
      summary='ImageNet, ViT-S/16, attention pooling',
      target=_target(0.77113, 0.6523),
    ),
  )
}
