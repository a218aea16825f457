"""The blocks of encoder and decoder, as both frameworks and the map between them build them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from algorithmic_efficiency.layers.configs import (
  AttentionConfig,
  AttentionNames,
  BlockConfig,
  BlockNames,
  FeedForwardConfig,
)

from .definition import Transformer

_BIAS_STDDEV = 1e-6
LAYER_NORM_EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class StackNames:
  """Names of the parts of an encoder or a decoder.

  Attributes:
    block: prefix of the names of its blocks; their number follows.
    parts: names within a block.
    norm: the norm after the last block, which normalizes before each part only.
  """

  block: str
  parts: BlockNames
  norm: str


JAX_ENCODER = StackNames(
  block='encoderblock_',
  parts=BlockNames(
    self_attention='MultiHeadDotProductAttention_0',
    feed_forward='MlpBlock_0',
    norms=('LayerNorm_0', 'LayerNorm_1'),
  ),
  norm='encoder_layernorm',
)
JAX_DECODER = StackNames(
  block='encoderdecoderblock_',
  parts=BlockNames(
    self_attention='MultiHeadDotProductAttention_0',
    cross_attention='MultiHeadDotProductAttention_1',
    feed_forward='MlpBlock_0',
    norms=('LayerNorm_0', 'LayerNorm_1', 'LayerNorm_2'),
  ),
  norm='encoderdecoder_layernorm',
)
_TORCH_SELF_ATTENTION = AttentionNames(
  query='in_proj', key='in_proj', value='in_proj', out='out_proj'
)
TORCH_ENCODER = StackNames(
  block='layers.',
  parts=BlockNames(
    self_attention='self_attn',
    feed_forward='',
    norms=('norm1', 'norm2'),
    self_projections=_TORCH_SELF_ATTENTION,
  ),
  norm='norm',
)
TORCH_DECODER = StackNames(
  block='layers.',
  parts=BlockNames(
    self_attention='self_attn',
    cross_attention='multihead_attn',
    feed_forward='',
    norms=('norm1', 'norm2', 'norm3'),
    self_projections=_TORCH_SELF_ATTENTION,
    cross_projections=AttentionNames(
      query='q_proj', key='kv_proj', value='kv_proj', out='out_proj'
    ),
  ),
  norm='norm',
)


def encoder_block(config: Transformer) -> BlockConfig:
  """Returns a block of the encoder."""
  return BlockConfig(
    dim=config.dim,
    self_attention=_attention(config, causal=False),
    feed_forward=FeedForwardConfig(
      hidden_dim=config.mlp_dim,
      activation=config.activation,
      gate='input' if config.gated else 'none',
      init='xavier_uniform',
      out_init='xavier_uniform',
      bias_stddev=_BIAS_STDDEV,
    ),
    norm_epsilon=LAYER_NORM_EPSILON,
    norm_position='pre' if config.pre_norm else 'post',
  )


def decoder_block(config: Transformer) -> BlockConfig:
  """Returns a block of the decoder, which is one of the encoder with cross attention."""
  return replace(
    encoder_block(config),
    self_attention=_attention(config, causal=True),
    cross_attention=_attention(config, causal=False),
  )


def _attention(config: Transformer, *, causal: bool) -> AttentionConfig:
  return AttentionConfig(
    num_heads=config.num_heads,
    head_dim=config.head_dim,
    causal=causal,
    scale=config.attention_temperature * config.head_dim**-0.5,
    init='xavier_uniform',
    out_init='xavier_uniform',
  )
