"""Maps the parameters of the vision Transformer between flax and PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import twins

from . import encoder
from .imagenet import VisionTransformer


def _pairs(definition: WorkloadDefinition) -> list[twins.Pair]:
  config = definition.model
  pairs = twins.conv2d('conv_patch_extract', 'conv_patch_extract')
  for index in range(config.depth):
    pairs += twins.block(
      f'Transformer/encoderblock_{index}',
      f'encoder.net.{index}',
      encoder.block_config(config),
      jax_names=encoder.JAX_NAMES,
      torch_names=encoder.TORCH_NAMES,
    )
  if config.norm_position == 'pre':
    pairs += twins.layer_norm('Transformer/encoder_layernorm', 'encoder.encoder_norm')
  if config.pooling == 'map':
    pairs += _pooling(config)
  return pairs + twins.dense('pre_logits', 'pre_logits') + twins.dense('head', 'head')


def _pooling(config: VisionTransformer) -> list[twins.Pair]:
  return [
    twins.same('MAPHead_0/probe', 'map.probe'),
    *twins.attention(
      'MAPHead_0/MultiHeadDotProductAttention_0',
      'map.mha',
      encoder.attention_config(config),
      jax_names=encoder.JAX_POOL_NAMES,
      torch_names=encoder.TORCH_POOL_NAMES,
    ),
    *twins.layer_norm('MAPHead_0/LayerNorm_0', 'map.layer_norm'),
    *twins.feed_forward(
      'MAPHead_0/MlpBlock_0',
      'map.mlp',
      encoder.feed_forward_config(config),
      names=encoder.TORCH_POOL_FEED_FORWARD,
    ),
  ]


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
