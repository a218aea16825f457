"""Reconstruction of accelerated knee scans (fastMRI) with a U-Net, and its variants."""

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


@dataclass(frozen=True, kw_only=True)
class UNet:
  """Convolution pairs on each resolution; `norm` is 'instance' or 'layer' (over H, W and C)."""

  num_pools: int = 4
  num_channels: int = 32
  activation: str = 'leaky_relu_0.2'
  norm: str = 'instance'


@dataclass(frozen=True, kw_only=True)
class KneeScans:
  """Single-coil slices, cropped and undersampled; SSIM as in the fastMRI challenge."""

  image_size: int = 320
  center_fraction: float = 0.08
  acceleration: int = 4
  clip_stddev: float = 6.0
  ssim_window: int = 7
  ssim_k1: float = 0.01
  ssim_k2: float = 0.03


_FASTMRI = WorkloadDefinition(
  name='fastmri',
  task='mri',
  summary='fastMRI knee, single coil, 4x acceleration, U-Net: structural similarity',
  dataset='fastmri',
  model=UNet(),
  data=KneeScans(),
  loss_type=LossType.MEAN_ABSOLUTE_ERROR,
  metrics=('ssim', 'loss'),
  target=Target(metric='ssim', direction='max', validation=0.723653, test=0.740633),
  suites={
    'algoperf_a100': Budget(step_hint=18_094, max_sec=2_745, eval_period_sec=110),
    'algoperf_v06': Budget(step_hint=18_094, max_sec=4_430, eval_period_sec=80),
    'algoperf_v05': Budget(step_hint=36_189, max_sec=8_859, eval_period_sec=80),
  },
  splits=Splits(train=34_742, eval_train=3_584, validation=3_554, test=3_581),
  batch_sizes=BatchSizes(train=32, eval=256),
  smoke=None,
  output_params={'jax': ('Conv_0',), 'pytorch': ('up_conv.3.1.weight', 'up_conv.3.1.bias')},
  target_source='AlgoPerf; Nesterov',
)


def _target(validation: float, test: float) -> Target:
  return replace(_FASTMRI.target, validation=validation, test=test)


WORKLOADS = {
  definition.name: definition
  for definition in (
    _FASTMRI,
    variant(
      _FASTMRI,
      name='fastmri_model_size',
      summary='fastMRI, a wider U-Net with fewer resolutions',
      model=replace(_FASTMRI.model, num_pools=3, num_channels=64),
      target=_target(0.723559, 0.740726),
    ),
    variant(
      _FASTMRI,
      name='fastmri_tanh',
      summary='fastMRI, tanh',
      held_out_in=('algoperf_v05',),
      model=replace(_FASTMRI.model, activation='tanh'),
      target=_target(0.717840, 0.734505),
    ),
    variant(
      _FASTMRI,
      name='fastmri_layernorm',
      summary='fastMRI, layer norm',
      model=replace(_FASTMRI.model, norm='layer'),
      target=_target(0.723284, 0.739996),
    ),
  )
}
