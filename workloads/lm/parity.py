"""Maps the parameters of this task's model between flax and PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import twins

from .definition import Decoder


def _pairs(definition: WorkloadDefinition) -> list[twins.Pair]:
  config = definition.model
  pairs = [twins.same('embed/embedding', 'embed_tokens.weight')]
  for index in range(config.num_layers):
    pairs += _block(f'blocks_{index}', f'layers.{index}', config)
  if config.norm_position == 'pre':
    pairs.append(twins.same('out_ln/scale', 'out_norm.weight'))
  if config.tied_embeddings:
    return [*pairs, twins.same('embed/embedding', 'lm_head.weight')]
  return pairs + twins.dense('output_proj', 'lm_head', bias=False)


def _block(jax: str, torch: str, config: Decoder) -> list[twins.Pair]:
  attention = f'{jax}/CausalAttn_0'
  names = [f'{attention}/{name}' for name in ('query', 'key', 'value')]
  pairs = [
    twins.same(f'{jax}/RMSNorm_0/scale', f'{torch}.attn_norm.weight'),
    twins.same(f'{jax}/RMSNorm_1/scale', f'{torch}.mlp_norm.weight'),
    twins.projections(names, f'{torch}.attn.w_qkv', heads=config.num_heads),
    *twins.dense(f'{attention}/attn_out_proj', f'{torch}.attn.w_out', bias=False),
    *twins.dense(f'{jax}/Mlp_0/Dense_0', f'{torch}.mlp.fc1', bias=False),
    *twins.dense(f'{jax}/Mlp_0/Dense_1', f'{torch}.mlp.fc2', bias=False),
  ]
  if config.qk_norm:
    pairs.append(twins.same(f'{attention}/attn_scale', f'{torch}.attn.attn_scale'))
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
