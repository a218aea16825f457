"""Maps the parameters of this task's model between flax and PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import twins

from .blocks import (
  JAX_DECODER,
  JAX_ENCODER,
  TORCH_DECODER,
  TORCH_ENCODER,
  decoder_block,
  encoder_block,
)


def _pairs(definition: WorkloadDefinition) -> list[twins.Pair]:
  config = definition.model
  pairs = [twins.same('shared_embedding/embedding', 'shared_embedding.weight')]
  for stack, block, jax_names, torch_names in (
    ('encoder', encoder_block(config), JAX_ENCODER, TORCH_ENCODER),
    ('decoder', decoder_block(config), JAX_DECODER, TORCH_DECODER),
  ):
    jax, torch = f'{stack}/', f'{stack}.{stack}.'
    for index in range(config.num_layers):
      pairs += twins.block(
        f'{jax}{jax_names.block}{index}',
        f'{torch}{torch_names.block}{index}',
        block,
        jax_names=jax_names.parts,
        torch_names=torch_names.parts,
      )
    if config.pre_norm:
      pairs += twins.layer_norm(f'{jax}{jax_names.norm}', f'{torch}{torch_names.norm}')
  return pairs


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
