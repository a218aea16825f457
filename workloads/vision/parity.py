"""Maps the parameters of this task's models between flax and PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import twins

from .definition import ConvNet, Mlp


def _conv_net(config: ConvNet) -> list[twins.Pair]:
  pairs = twins.dense('Dense_0', 'fc')
  for index in range(len(config.channels)):
    has_norm = config.norm == 'batch'
    pairs += twins.conv2d(f'Conv_{index}', f'conv{index + 1}', bias=not has_norm)
    if has_norm:
      pairs += twins.batch_norm(f'BatchNorm_{index}', f'bn{index + 1}')
  return pairs


def _mlp(config: Mlp) -> list[twins.Pair]:
  return twins.dense('Dense_0', 'net.layer1') + twins.dense('Dense_1', 'net.layer2')


_PAIRS = {ConvNet: _conv_net, Mlp: _mlp}


def _pairs(definition: WorkloadDefinition) -> list[twins.Pair]:
  return _PAIRS[type(definition.model)](definition.model)


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
