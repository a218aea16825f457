"""The blocks of the decoder, as both frameworks and the map between them build them."""

from __future__ import annotations

import math

from algorithmic_efficiency.layers.configs import (
  AttentionConfig,
  AttentionNames,
  BlockConfig,
  BlockNames,
  FeedForwardConfig,
  FeedForwardNames,
  QueryKeyNorm,
)

from .definition import Decoder

JAX_NAMES = BlockNames(
  self_attention='CausalAttn_0',
  feed_forward='Mlp_0',
  norms=('RMSNorm_0', 'RMSNorm_1'),
  self_projections=AttentionNames(out='attn_out_proj'),
)
TORCH_NAMES = BlockNames(
  self_attention='attn',
  feed_forward='mlp',
  norms=('attn_norm', 'mlp_norm'),
  self_projections=AttentionNames(query='w_qkv', key='w_qkv', value='w_qkv', out='w_out'),
  feed_forward_layers=FeedForwardNames(first='fc1', last='fc2'),
)


def block_config(config: Decoder, length: int) -> BlockConfig:
  """Returns a block of the decoder over sequences of at most `length` tokens."""
  norm = None
  if config.qk_norm:
    initial_scale = math.log2(length**2 - length)
    norm = QueryKeyNorm(initial_scale=initial_scale, epsilon=config.qk_norm_epsilon)
  return BlockConfig(
    dim=config.dim,
    self_attention=AttentionConfig(
      num_heads=config.num_heads,
      head_dim=config.head_dim,
      causal=True,
      query_key_norm=norm,
      init=config.init_stddev,
      out_init=config.residual_stddev,
      out_by_heads=False,
    ),
    feed_forward=FeedForwardConfig(
      hidden_dim=config.mlp_dim,
      activation=config.mlp,
      use_bias=False,
      init=config.init_stddev,
      out_init=config.residual_stddev,
    ),
    norm='rms',
    norm_epsilon=config.rms_norm_epsilon,
    norm_position=config.norm_position,
  )
