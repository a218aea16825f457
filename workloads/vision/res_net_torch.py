"""The residual networks in PyTorch.

Images are [batch, channels, height, width], logits [batch, classes]. A batch comes with its
channels last in memory. Convolutions and norms keep that order, in which they are fastest. Weights
have PyTorch's usual order, so that optimizers can take views of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import torch as layers

from . import residual
from .imagenet import ResNet
from .model_torch import eval_step as eval_step  # as for all classifiers of the task
from .model_torch import loss as loss


class _NormedConv(nn.Module):
  """A convolution and its norm, if there is one."""

  def __init__(self, config: ResNet, conv: residual.Conv, dtype: torch.dtype):
    super().__init__()
    self.conv = _conv(config, conv, dtype)
    if config.norm == 'batch':
      self.bn = _norm(config, conv, dtype)

  def forward(self, x: torch.Tensor, *, use_running_average: bool | None) -> torch.Tensor:
    return _normed(self, 'bn', self.conv(x), use_running_average)


class _Block(nn.Module):
  def __init__(self, config: ResNet, block: residual.Block, dtype: torch.dtype):
    super().__init__()
    self.config = config
    self.num_convs = len(block.convs)
    for number, conv in enumerate(block.convs, 1):
      self.add_module(f'conv{number}', _conv(config, conv, dtype))
      if config.norm == 'batch':
        self.add_module(f'bn{number}', _norm(config, conv, dtype))
    if config.norm == 'batch':
      nn.init.constant_(self.get_submodule(f'bn{self.num_convs}').weight, config.last_bn_scale)
    if block.projection is not None:
      self.downsample = _NormedConv(config, block.projection, dtype)

  def forward(self, x: torch.Tensor, *, use_running_average: bool | None) -> torch.Tensor:
    activation = layers.ACTIVATIONS[self.config.activation]
    y = x
    for number in range(1, self.num_convs + 1):
      y = getattr(self, f'conv{number}')(y)
      y = _normed(self, f'bn{number}', y, use_running_average)
      if number < self.num_convs:
        y = activation(y)
    if hasattr(self, 'downsample'):
      x = self.downsample(x, use_running_average=use_running_average)
    return activation(x + y)


class _ResNet(nn.Module):
  def __init__(self, config: ResNet, num_classes: int, dtype: torch.dtype):
    super().__init__()
    self.config = config
    stem = residual.stem(config)
    self.conv1 = _conv(config, stem, dtype)
    if config.norm == 'batch':
      self.bn1 = _norm(config, stem, dtype)
    for number, blocks in enumerate(residual.stages(config), 1):
      layer = nn.ModuleList(_Block(config, block, dtype) for block in blocks)
      self.add_module(f'layer{number}', layer)
    self.fc = layers.Linear(
      residual.out_channels(config),
      num_classes,
      init=config.head_stddev,
      dtype=layers.param_dtype(dtype),  # logits of a narrow type would tie
    )

  def forward(self, x: torch.Tensor, *, use_running_average: bool | None = None) -> torch.Tensor:
    x = _normed(self, 'bn1', self.conv1(x), use_running_average)
    x = layers.ACTIVATIONS[self.config.activation](x)
    if self.config.stem == 'imagenet':
      x = F.max_pool2d(x, 3, stride=2, padding=1)
    for number in range(1, len(self.config.stage_sizes) + 1):
      for block in getattr(self, f'layer{number}'):
        x = block(x, use_running_average=use_running_average)
    return self.fc(x.mean(dim=(2, 3), dtype=self.fc.compute_dtype))


def _conv(config: ResNet, conv: residual.Conv, dtype: torch.dtype) -> nn.Module:
  return layers.Conv2d(
    conv.in_channels,
    conv.out_channels,
    conv.size,
    stride=conv.stride,
    padding=conv.padding,
    bias=config.norm is None,
    dtype=dtype,
  )


def _norm(config: ResNet, conv: residual.Conv, dtype: torch.dtype) -> nn.Module:
  return layers.BatchNorm2d(
    conv.out_channels,
    momentum=1 - config.bn_momentum,
    eps=config.bn_epsilon,
    dtype=layers.param_dtype(dtype),
  )


def _normed(
  module: nn.Module, name: str, x: torch.Tensor, use_running_average: bool | None
) -> torch.Tensor:
  """Applies a norm of the module by its name; x itself if there is none."""
  norm = getattr(module, name, None)
  return x if norm is None else norm(x, use_running_average=use_running_average)


def build(definition: WorkloadDefinition, *, dtype: torch.dtype = torch.float32) -> nn.Module:
  """Builds the model, which computes in `dtype`; see `ResNet` for how it begins."""
  return _ResNet(definition.model, definition.data.num_classes, dtype)


def forward(
  model: nn.Module,
  batch: Mapping[str, torch.Tensor],
  *,
  train: bool,
  use_running_average: bool,
  dropout_rate: float,
) -> torch.Tensor:
  """Returns the logits [batch, classes]; the model has no dropout."""
  return model(batch['inputs'], use_running_average=use_running_average)
