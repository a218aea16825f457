"""The vision Transformer in PyTorch.

Images are [batch, channels, height, width], patches [batch, patches, width], logits [batch,
classes].
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import torch as layers
from algorithmic_efficiency.layers.positions import sine_cosine_2d_table

from . import encoder
from .imagenet import VisionTransformer
from .model_torch import eval_step as eval_step  # as for all classifiers of the task
from .model_torch import loss as loss
from .photographs import Photographs


class _Encoder(nn.Module):
  def __init__(self, config: VisionTransformer, dtype: torch.dtype):
    super().__init__()
    block = encoder.block_config(config)
    self.net = nn.ModuleList(
      layers.Block(block, encoder.TORCH_NAMES, dtype=dtype) for _ in range(config.depth)
    )
    if config.norm_position == 'pre':
      self.encoder_norm = _norm(config, dtype)

  def forward(self, x: torch.Tensor, *, dropout_rate: float) -> torch.Tensor:
    for block in self.net:
      x = block(x, dropout_rate=dropout_rate)
    return self.encoder_norm(x) if hasattr(self, 'encoder_norm') else x


class _AttentionPooling(nn.Module):
  """A learned query attends to the patches (Zhai et al., 2022, "Scaling vision transformers")."""

  def __init__(self, config: VisionTransformer, dtype: torch.dtype):
    super().__init__()
    probe = torch.empty(1, 1, config.width, dtype=layers.param_dtype(dtype))
    # As flax draws it: the fan-in is 1, the fan-out the width.
    bound = math.sqrt(6 / (1 + config.width))
    self.probe = nn.Parameter(nn.init.uniform_(probe, -bound, bound))
    self.mha = layers.MultiHeadAttention(
      encoder.attention_config(config),
      dim=config.width,
      dtype=dtype,
      names=encoder.TORCH_POOL_NAMES,
    )
    self.layer_norm = _norm(config, dtype)
    self.mlp = layers.FeedForward(
      encoder.feed_forward_config(config),
      dim=config.width,
      dtype=dtype,
      names=encoder.TORCH_POOL_FEED_FORWARD,
    )

  def forward(self, x: torch.Tensor, *, dropout_rate: float) -> torch.Tensor:
    x = self.mha(self.probe.to(x.dtype).expand(len(x), -1, -1), x)
    x = x + self.mlp(self.layer_norm(x), dropout_rate=dropout_rate)
    return x[:, 0]


class _VisionTransformer(nn.Module):
  def __init__(self, config: VisionTransformer, data: Photographs, dtype: torch.dtype):
    super().__init__()
    self.conv_patch_extract = layers.PatchEmbedding(
      data.image_shape[-1], config.width, patch_size=config.patch_size, dtype=dtype
    )
    size = data.image_size // config.patch_size
    table = torch.tensor(sine_cosine_2d_table(size, size, config.width), dtype=dtype)
    self.register_buffer('positions', table, persistent=False)
    self.encoder = _Encoder(config, dtype)
    if config.pooling == 'map':
      self.map = _AttentionPooling(config, dtype)
    self.pre_logits = layers.Linear(config.width, config.width, dtype=dtype)
    # Logits of a narrow type would tie.
    wide = layers.param_dtype(dtype)
    self.head = layers.Linear(config.width, data.num_classes, init=0.0, dtype=wide)

  def forward(self, x: torch.Tensor, *, dropout_rate: float = 0.0) -> torch.Tensor:
    x = F.dropout(self.conv_patch_extract(x) + self.positions, dropout_rate)
    x = self.encoder(x, dropout_rate=dropout_rate)
    x = self.map(x, dropout_rate=dropout_rate) if hasattr(self, 'map') else x.mean(dim=1)
    return self.head(torch.tanh(self.pre_logits(x)))


def _norm(config: VisionTransformer, dtype: torch.dtype) -> nn.Module:
  return layers.LayerNorm(config.width, epsilon=encoder.LAYER_NORM_EPSILON, dtype=dtype)


def build(definition: WorkloadDefinition, *, dtype: torch.dtype = torch.float32) -> nn.Module:
  """Builds the model, which computes in `dtype`; see `VisionTransformer` for how it begins."""
  return _VisionTransformer(definition.model, definition.data, dtype)


def forward(
  model: nn.Module,
  batch: Mapping[str, torch.Tensor],
  *,
  train: bool,
  use_running_average: bool,
  dropout_rate: float,
) -> torch.Tensor:
  """Returns the logits [batch, classes]; `train` alone turns dropout on, not the module's mode."""
  return model(batch['inputs'], dropout_rate=dropout_rate if train else 0.0)
