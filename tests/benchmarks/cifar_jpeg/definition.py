"""AlgoPerf's `cifar` on the JPEG-coded images, for those who have no others.

Its targets say nothing here: the images are other ones. workloads/vision/README.md has the command.
"""

from dataclasses import replace

from algorithmic_efficiency.benchmark.definition import Budget
from workloads.vision.cifar import WORKLOADS as _WORKLOADS
from workloads.vision.photographs import CIFAR10_JPEG

_STEPS = 60
_CIFAR = replace(
  _WORKLOADS['cifar'],
  name='cifar_jpeg',
  base='cifar_jpeg',
  task='cifar_jpeg',
  summary='CIFAR-10 as JPEG files hold it, ResNet-18 with a small stem, cut short',
  dataset='cifar10_jpeg',
  tfds=None,
  data=CIFAR10_JPEG,
  suites={'lite': Budget(step_hint=_STEPS, max_steps=_STEPS, eval_period_steps=30, role='extra')},
)
WORKLOADS = {_CIFAR.name: _CIFAR}
