"""Maps the parameters of this task's model between flax and PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import twins

from . import architecture
from .definition import SparseDecoder


def _pairs(definition: WorkloadDefinition) -> list[twins.Pair]:
  config = definition.model
  pairs = [
    twins.same('embed/embedding', 'embed_tokens.weight'),
    *twins.dense('patches', 'patches', bias=False),
    *twins.rms_norm('out_ln', 'out_norm'),
  ]
  if definition.data.has_audio:
    for name in ('conv_0', 'conv_1'):
      pairs += twins.conv1d(f'audio/{name}', f'audio.{name}')
  for layer in range(config.num_layers):
    pairs += _block(config, layer, f'blocks_{layer}', f'layers.{layer}')
  return pairs


def _block(config: SparseDecoder, layer: int, jax: str, torch: str) -> list[twins.Pair]:
  pairs = [
    *twins.rms_norm(f'{jax}/RMSNorm_0', f'{torch}.attn_norm'),
    *twins.attention(
      f'{jax}/CausalAttn_0',
      f'{torch}.attn',
      architecture.attention_config(config),
      jax_names=architecture.JAX_ATTENTION,
      torch_names=architecture.TORCH_ATTENTION,
    ),
    *twins.rms_norm(f'{jax}/RMSNorm_1', f'{torch}.mlp_norm'),
  ]
  experts = architecture.experts_config(config, layer)
  if experts is not None:
    return pairs + twins.experts(f'{jax}/Experts_0', f'{torch}.moe', experts)
  mlp, names = architecture.mlp_config(config, layer), architecture.TORCH_FEED_FORWARD
  return pairs + twins.feed_forward(f'{jax}/Mlp_0', f'{torch}.mlp', mlp, names=names)


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
