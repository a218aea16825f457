"""Maps the parameters of the residual networks between flax and PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import twins

from . import residual
from .imagenet import ResNet


def _pairs(definition: WorkloadDefinition) -> list[twins.Pair]:
  config = definition.model
  pairs = _normed_conv(config, '', 'init', 'conv1', 'bn1') + twins.dense('Dense_0', 'fc')
  index = 0
  for stage, blocks in enumerate(residual.stages(config), 1):
    for number, block in enumerate(blocks):
      jax, torch = f'{residual.JAX_NAMES[config.block]}_{index}/', f'layer{stage}.{number}.'
      for place in range(len(block.convs)):
        names = f'{torch}conv{place + 1}', f'{torch}bn{place + 1}'
        pairs += _normed_conv(config, jax, str(place), *names)
      if block.projection is not None:
        names = f'{torch}downsample.conv', f'{torch}downsample.bn'
        pairs += _normed_conv(config, jax, 'proj', *names)
      index += 1
  return pairs


def _normed_conv(
  config: ResNet, jax: str, ending: str, torch_conv: str, torch_norm: str
) -> list[twins.Pair]:
  has_norm = config.norm is not None
  pairs = twins.conv2d(f'{jax}Conv_{ending}', torch_conv, bias=not has_norm)
  return pairs + twins.batch_norm(f'{jax}BatchNorm_{ending}', torch_norm) if has_norm else pairs


def to_torch(
  definition: WorkloadDefinition, params: Mapping[str, Any], model_state: Mapping[str, Any] | None
) -> dict[str, np.ndarray]:
  """Converts flax variables to a PyTorch state dict of numpy arrays."""
  return twins.to_torch(_pairs(definition), params, model_state)


def to_jax(
  definition: WorkloadDefinition, state_dict: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Converts a PyTorch state dict to flax `(params, model_state)`, nested dicts of numpy arrays."""
  return twins.to_jax(_pairs(definition), state_dict)
