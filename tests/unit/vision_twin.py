"""Residual networks and the vision Transformer in plain numpy: a position, a block at a time.

Parameters are those of flax, nested dicts of float64; images are [batch, height, width, channels].
"""

from __future__ import annotations

import itertools
import math

import layer_twin
import numpy as np

from algorithmic_efficiency.layers.configs import (
  AttentionConfig,
  AttentionNames,
  BlockConfig,
  BlockNames,
  FeedForwardConfig,
)


def convolve(x, params, stride=1, padding=None):
  """Cross-correlation; the padding keeps the size at stride 1 unless it is given."""
  kernel = params['kernel']
  size = len(kernel)
  padding = size // 2 if padding is None else padding
  x = np.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
  height, width = ((length - size) // stride + 1 for length in x.shape[1:3])
  out = np.zeros((len(x), height, width, kernel.shape[-1]))
  for row, column in np.ndindex(height, width):
    window = x[:, row * stride : row * stride + size, column * stride : column * stride + size]
    out[:, row, column] = np.tensordot(window, kernel, 3)
  return out + params.get('bias', 0)


def max_pool(x):
  """3x3 with stride 2."""
  x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
  height, width = ((length - 3) // 2 + 1 for length in x.shape[1:3])
  out = np.zeros((len(x), height, width, x.shape[-1]))
  for row, column in np.ndindex(height, width):
    out[:, row, column] = x[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3].max((1, 2))
  return out


def batch_norm(x, params):
  """By the statistics of the batch."""
  centered = x - x.mean((0, 1, 2))
  return centered / np.sqrt((centered**2).mean((0, 1, 2)) + 1e-5) * params['scale'] + params['bias']


def residual_net(config, params, x):
  """Logits in training."""
  has_norm = config.norm == 'batch'

  def layer(group, ending, x, stride):
    x = convolve(x, group[f'Conv_{ending}'], stride)
    return batch_norm(x, group[f'BatchNorm_{ending}']) if has_norm else x

  def act(x):
    return layer_twin.activation(config.activation, x)

  is_large = config.stem == 'imagenet'
  x = act(layer(params, 'init', x, 2 if is_large else 1))
  x = max_pool(x) if is_large else x
  kind, strided, last = {
    'basic': ('ResNetBlock', 0, 1),
    'bottleneck': ('BottleneckResNetBlock', 1, 2),
  }[config.block]
  index = itertools.count()
  for stage, num_blocks in enumerate(config.stage_sizes):
    for number in range(num_blocks):
      group = params[f'{kind}_{next(index)}']
      stride = 2 if stage and not number else 1
      y = x
      for place in range(last + 1):
        y = layer(group, place, y, stride if place == strided else 1)
        y = y if place == last else act(y)
      x = act(y + (layer(group, 'proj', x, stride) if 'Conv_proj' in group else x))
  return layer_twin.project(params['Dense_0'], x.mean((1, 2)))


def vision_transformer(config, params, x):
  """Logits without dropout."""
  x = convolve(x, params['conv_patch_extract'], config.patch_size, padding=0)
  x = (x + positions(*x.shape[1:])).reshape(len(x), -1, config.width)
  head_dim = config.width // config.num_heads
  attention = AttentionConfig(num_heads=config.num_heads, head_dim=head_dim, use_bias=True)
  hidden = {'hidden_dim': config.mlp_dim, 'activation': config.activation}
  block = BlockConfig(
    dim=config.width,
    self_attention=attention,
    feed_forward=FeedForwardConfig(gate=config.gate, **hidden),
    norm_position=config.norm_position,
  )
  names = BlockNames(
    self_attention='MultiHeadDotProductAttention_1',
    feed_forward='MlpBlock_3',
    norms=('LayerNorm_0', 'LayerNorm_2'),
  )
  encoder = params['Transformer']
  for index in range(config.depth):
    x = layer_twin.block(block, names, encoder[f'encoderblock_{index}'], x)
  if config.norm_position == 'pre':
    x = layer_twin.norm('layer', encoder['encoder_layernorm'], x, 1e-6)
  if config.pooling == 'map':
    x = attention_pooling(attention, FeedForwardConfig(**hidden), params['MAPHead_0'], x)
  else:
    x = x.mean(1)
  return layer_twin.project(params['head'], np.tanh(layer_twin.project(params['pre_logits'], x)))


def attention_pooling(attention, feed_forward, params, x):
  probe = np.tile(params['probe'], (len(x), 1, 1))
  pooled = layer_twin.multi_head(
    *(attention, AttentionNames(), params['MultiHeadDotProductAttention_0'], probe, x),
    mask=None,
    theta=None,
  )
  y = layer_twin.norm('layer', params['LayerNorm_0'], pooled, 1e-6)
  return (pooled + layer_twin.feed_forward(feed_forward, params['MlpBlock_0'], y))[:, 0]


def positions(height, width, dim):
  """[height, width, dim]: sines and cosines of the column, then those of the row."""
  table = np.zeros((height, width, dim))
  for row, column, pair in np.ndindex(height, width, dim // 4):
    frequency = 10_000 ** -(pair / (dim // 4 - 1))
    for part, place in enumerate((column, row)):
      start = part * dim // 2 + pair
      table[row, column, start] = math.sin(place * frequency)
      table[row, column, start + dim // 4] = math.cos(place * frequency)
  return table
