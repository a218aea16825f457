"""The parts of the decoder, as both frameworks and the map between them build them."""

from __future__ import annotations

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers.configs import (
  AttentionConfig,
  AttentionNames,
  ExpertsConfig,
  FeedForwardConfig,
  FeedForwardNames,
)
from algorithmic_efficiency.layers.positions import sine_cosine_2d_table

from .data_records import RowForm
from .definition import SparseDecoder

JAX_ATTENTION = AttentionNames()
TORCH_ATTENTION = AttentionNames(query='q_proj', key='kv_proj', value='kv_proj', out='out_proj')
TORCH_FEED_FORWARD = FeedForwardNames(first='first', gate='gate', last='last')


def attention_config(config: SparseDecoder) -> AttentionConfig:
  """Returns the attention of a block."""
  return AttentionConfig(
    num_heads=config.num_heads,
    num_kv_heads=config.num_kv_heads,
    head_dim=config.head_dim,
    causal=True,
    init=config.init_stddev,
    out_init=config.residual_stddev,
    out_by_heads=False,
  )


def mlp_config(config: SparseDecoder, layer: int) -> FeedForwardConfig:
  """Returns the MLP of a block, or an expert of a sparse one."""
  return FeedForwardConfig(
    hidden_dim=config.expert_dim if config.is_sparse(layer) else config.mlp_dim,
    activation='silu',
    gate='input',
    use_bias=False,
    init=config.init_stddev,
    out_init=config.residual_stddev,
  )


def experts_config(config: SparseDecoder, layer: int) -> ExpertsConfig | None:
  """Returns the experts of a block; None for a block with one MLP."""
  if not (config.has_router and config.is_sparse(layer)):
    return None
  return ExpertsConfig(
    num_experts=config.num_experts,
    top_k=config.top_k,
    expert=mlp_config(config, layer),
    capacity_factor=config.capacity_factor,
  )


def auxiliary_weights(config: SparseDecoder) -> dict[str, float]:
  """Returns the weights of the auxiliary losses, by their names."""
  return {'balance': config.balance_weight, 'router_z': config.z_weight}


def pixel_statistics(definition: WorkloadDefinition) -> np.ndarray:
  """Returns mean and standard deviation of each value of a patch, float64 [2, patch_dim]."""
  statistics = np.array([definition.train_mean, definition.train_stddev], np.float64)
  return np.tile(statistics, (1, definition.data.patch_size**2))


def patch_table(config: SparseDecoder, data: RowForm) -> np.ndarray:
  """Returns the positions of patches, float64 [patches, dim], row by row."""
  return sine_cosine_2d_table(data.patches_per_side, data.patches_per_side, config.dim)


def check_capacity(definition: WorkloadDefinition) -> None:
  """Checks that an expert has room for a token of a full training batch.

  Raises:
    UserError: it has none.
  """
  config = definition.model
  if config.capacity_factor is None:
    return
  num_tokens = definition.batch_sizes.train * definition.data.row_length
  capacity = config.capacity_factor * config.top_k * num_tokens / config.num_experts
  if capacity < 1:
    raise errors.UserError(
      f'{definition.name}: an expert must have room for one token of a batch at least; with '
      f'{num_tokens} tokens, {config.num_experts} experts and capacity_factor='
      f'{config.capacity_factor:g} it has room for {capacity:.2g}. Raise the factor.'
    )
