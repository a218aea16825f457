"""Maps the parameters of this task's model between flax and PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import twins

from .blocks import JAX_NAMES, TORCH_NAMES, block_config


def _pairs(definition: WorkloadDefinition) -> list[twins.Pair]:
  config = definition.model
  pairs = [twins.same('embed/embedding', 'embed_tokens.weight')]
  block = block_config(config, definition.data.sequence_length)
  for index in range(config.num_layers):
    names = (f'blocks_{index}', f'layers.{index}')
    pairs += twins.block(*names, block, jax_names=JAX_NAMES, torch_names=TORCH_NAMES)
  if config.norm_position == 'pre':
    pairs += twins.rms_norm('out_ln', 'out_norm')
  if config.tied_embeddings:
    return [*pairs, twins.same('embed/embedding', 'lm_head.weight')]
  return pairs + twins.dense('output_proj', 'lm_head', bias=False)


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
