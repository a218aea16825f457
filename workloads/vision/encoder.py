"""The blocks of the vision Transformer, as both frameworks and the map between them build them."""

from __future__ import annotations

from algorithmic_efficiency.layers.configs import (
  AttentionConfig,
  AttentionNames,
  BlockConfig,
  BlockNames,
  FeedForwardConfig,
  FeedForwardNames,
)

from .imagenet import VisionTransformer

LAYER_NORM_EPSILON = 1e-6
_BIAS_STDDEV = 1e-6  # of the initial biases of feed-forward layers

JAX_NAMES = BlockNames(
  self_attention='MultiHeadDotProductAttention_1',
  feed_forward='MlpBlock_3',
  norms=('LayerNorm_0', 'LayerNorm_2'),
)
_FEED_FORWARD_NAMES = FeedForwardNames(first='linear1', gate='glu_linear', last='linear2')
TORCH_NAMES = BlockNames(
  self_attention='self_attention1',
  feed_forward='mlp3',
  norms=('layer_norm0', 'layer_norm2'),
  feed_forward_layers=_FEED_FORWARD_NAMES,
)

# The parts of attention pooling.
JAX_POOL_NAMES = AttentionNames()
TORCH_POOL_NAMES = AttentionNames(query='q_proj', key='kv_proj', value='kv_proj', out='out_proj')
TORCH_POOL_FEED_FORWARD = _FEED_FORWARD_NAMES


def block_config(config: VisionTransformer) -> BlockConfig:
  """Returns a block of the encoder."""
  return BlockConfig(
    dim=config.width,
    self_attention=attention_config(config),
    feed_forward=feed_forward_config(config, config.gate),
    norm_epsilon=LAYER_NORM_EPSILON,
    norm_position=config.norm_position,
  )


def attention_config(config: VisionTransformer) -> AttentionConfig:
  """Returns the attention of a block, and of attention pooling."""
  return AttentionConfig(
    num_heads=config.num_heads,
    head_dim=config.width // config.num_heads,
    use_bias=True,
    init='xavier_uniform',
    out_init='xavier_uniform',
  )


def feed_forward_config(config: VisionTransformer, gate: str = 'none') -> FeedForwardConfig:
  """Returns the feed-forward layers of a block, and without a gate those of attention pooling."""
  return FeedForwardConfig(
    hidden_dim=config.mlp_dim,
    activation=config.activation,
    gate=gate,
    init='xavier_uniform',
    out_init='xavier_uniform',
    bias_stddev=_BIAS_STDDEV,
  )
