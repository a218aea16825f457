"""Image classification: every workload and variant of this task.

Those on ImageNet are defined in `imagenet.py` beside this file, those on CIFAR-10 in `cifar.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from algorithmic_efficiency.benchmark.definition import (
  BatchSizes,
  Budget,
  Smoke,
  Splits,
  Target,
  WorkloadDefinition,
  variant,
  variant_target,
)
from algorithmic_efficiency.spec import LossType

from .cifar import WORKLOADS as _CIFAR
from .imagenet import WORKLOADS as _IMAGENET


@dataclass(frozen=True, kw_only=True)
class VisionData:
  """Small images that fit in memory.

  Inputs are stored pixels less the definition's `train_mean`, divided by its `train_stddev`. Stored
  pixels are 0 to 16 for the digits, 0 to 255 for MNIST. Image i of the digits is validation if
  i % 5 is 4, test if it is 3, and train otherwise. The last 10,000 images of MNIST's training file
  are validation.

  Attributes:
    image_shape: height, width, channels.
    max_shift: images are shifted by up to so many pixels in each direction. The shift of an image
      is another one in each epoch of training, and the same in each evaluation.
  """

  source: Literal['digits', 'mnist']
  image_shape: tuple[int, int, int]
  num_classes: int
  max_shift: int = 0


@dataclass(frozen=True, kw_only=True)
class ConvNet:
  """3x3 convolutions, each with norm and activation; dropout, linear head over all positions.

  The first convolution keeps the size of the image, and each later one halves it. `norm` None
  replaces batch norm by a bias. `bn_momentum` is the fraction of the running statistics that is
  kept at each step.
  """

  channels: tuple[int, ...] = (32, 32)
  activation: str = 'relu'
  norm: Literal['batch'] | None = 'batch'
  bn_momentum: float = 0.9
  bn_epsilon: float = 1e-5


@dataclass(frozen=True, kw_only=True)
class Mlp:
  """The flattened image, one hidden layer, and a linear head."""

  hidden_dim: int = 128
  activation: str = 'sigmoid'


_QUICK_SMOKE = ConvNet(channels=(4, 8))
_QUICK = WorkloadDefinition(
  name='quick_vision',
  task='vision',
  summary='Handwritten digits of 8x8 pixels, small convolutional net with batch norm: loss',
  dataset='digits',
  bundled=True,
  model=ConvNet(),
  data=VisionData(source='digits', image_shape=(8, 8, 1), num_classes=10, max_shift=2),
  loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
  metrics=('loss', 'accuracy'),
  target=Target(metric='loss', direction='min', validation=0.440718, test=0.428906),
  suites={'quick': Budget(step_hint=80, max_steps=240, eval_period_steps=2)},
  splits=Splits(train=1_079, eval_train=359, validation=359, test=359),
  batch_sizes=BatchSizes(train=512, eval=360),
  smoke=Smoke(model=_QUICK_SMOKE),
  output_params={'jax': ('Dense_0',), 'pytorch': ('fc.weight', 'fc.bias')},
  independent_examples=False,  # batch norm
  train_mean=(4.8787,),
  train_stddev=(6.0181,),
  target_source='calibration/quick_vision_jax.md, with which quick_vision_pytorch.md agrees',
)

_MNIST_SMOKE = Mlp(hidden_dim=8)
_MNIST_BUDGET = Budget(step_hint=7_813, max_sec=60, eval_period_sec=10, role='extra')
_MNIST = WorkloadDefinition(
  name='mnist',
  task='vision',
  summary='MNIST as AlgoPerf scales it, one hidden layer of sigmoids: accuracy',
  dataset='mnist',
  tfds='mnist',
  model=Mlp(),
  data=VisionData(source='mnist', image_shape=(28, 28, 1), num_classes=10),
  loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
  metrics=('accuracy', 'loss'),
  target=Target(metric='accuracy', direction='max', validation=0.97, test=0.97),
  suites={'algoperf_v06': _MNIST_BUDGET, 'algoperf_v05': _MNIST_BUDGET},
  splits=Splits(train=50_000, eval_train=10_000, validation=10_000, test=10_000),
  batch_sizes=BatchSizes(train=16, eval=10_000),
  smoke=Smoke(model=_MNIST_SMOKE),
  output_params={'jax': ('Dense_1',), 'pytorch': ('net.layer2.weight', 'net.layer2.bias')},
  # AlgoPerf gives them for pixels from 0 to 1, and applies them to pixels from 0 to 255.
  train_mean=0.1307,
  train_stddev=0.3081,
  target_source="AlgoPerf's workload for development",
)
_STANDARDIZED = replace(
  _MNIST,
  name='mnist_standardized',
  base='mnist_standardized',
  summary='MNIST of mean 0 and variance 1, one hidden layer of sigmoids: accuracy',
  target=replace(_MNIST.target, validation=0.9697, test=0.9645),
  # Its time to target varies over seeds by more than the rules allow.
  suites={'lite': Budget(step_hint=2_500, max_steps=2_500, role='extra')},
  batch_sizes=BatchSizes(train=1_024, eval=10_000),
  train_mean=(0.1307 * 255,),
  train_stddev=(0.3081 * 255,),
  target_source='calibrated with JAX by a former rule',
)

WORKLOADS = {
  **_IMAGENET,
  **_CIFAR,
  **{
    definition.name: definition
    for definition in (
      _QUICK,
      _MNIST,
      _STANDARDIZED,
      variant(
        _QUICK,
        name='quick_vision_no_norm',
        summary='Handwritten digits of 8x8 pixels, small convolutional net without norm: loss',
        model=replace(_QUICK.model, norm=None),
        independent_examples=True,
        smoke=Smoke(model=replace(_QUICK_SMOKE, norm=None)),
        **variant_target(_QUICK, 'quick_vision_no_norm', None),
      ),
      variant(
        _STANDARDIZED,
        name='mnist_relu',
        summary='MNIST of mean 0 and variance 1, one hidden layer of rectified units: accuracy',
        model=replace(_STANDARDIZED.model, activation='relu'),
        smoke=Smoke(model=replace(_MNIST_SMOKE, activation='relu')),
        **variant_target(_STANDARDIZED, 'mnist_relu', None),
      ),
    )
  },
}
