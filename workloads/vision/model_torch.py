"""The image classifiers in PyTorch.

Images are [batch, channels, height, width], logits [batch, classes].
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import torch as layers

from .definition import ConvNet, Mlp, VisionData


class _ConvNet(nn.Module):
  def __init__(self, config: ConvNet, data: VisionData, dtype: torch.dtype):
    super().__init__()
    self.config = config
    height, width, in_channels = data.image_shape
    for index, channels in enumerate(config.channels):
      stride = 1 if index == 0 else 2
      has_bias = config.norm is None
      conv = layers.Conv2d(
        in_channels, channels, 3, stride=stride, padding=1, bias=has_bias, dtype=dtype
      )
      self.add_module(f'conv{index + 1}', conv)
      if config.norm == 'batch':
        self.add_module(f'bn{index + 1}', self._batch_norm(channels, dtype))
      in_channels = channels
      height, width = (math.ceil(size / stride) for size in (height, width))
    self.fc = layers.Linear(height * width * in_channels, data.num_classes, dtype=dtype)
    with torch.no_grad():
      self.fc.weight.mul_(0.1)

  def _batch_norm(self, channels: int, dtype: torch.dtype) -> nn.Module:
    return layers.BatchNorm2d(
      channels,
      momentum=1 - self.config.bn_momentum,
      eps=self.config.bn_epsilon,
      dtype=layers.param_dtype(dtype),
    )

  def forward(
    self,
    x: torch.Tensor,
    *,
    use_running_average: bool | None = None,
    dropout_rate: float = 0.0,
  ) -> torch.Tensor:
    for index in range(len(self.config.channels)):
      x = self.get_submodule(f'conv{index + 1}')(x)
      if self.config.norm == 'batch':
        norm = self.get_submodule(f'bn{index + 1}')
        x = norm(x, use_running_average=use_running_average)
      x = layers.ACTIVATIONS[self.config.activation](x)
    x = x.permute(0, 2, 3, 1).flatten(1)  # as in JAX, channels last
    return self.fc(F.dropout(x, dropout_rate))


class _Mlp(nn.Module):
  def __init__(self, config: Mlp, data: VisionData, dtype: torch.dtype):
    super().__init__()
    self.config = config
    num_inputs = math.prod(data.image_shape)
    self.net = nn.Sequential(
      OrderedDict(
        layer1=layers.Linear(num_inputs, config.hidden_dim, dtype=dtype),
        layer2=layers.Linear(config.hidden_dim, data.num_classes, dtype=dtype),
      )
    )

  def forward(
    self,
    x: torch.Tensor,
    *,
    use_running_average: bool | None = None,
    dropout_rate: float = 0.0,
  ) -> torch.Tensor:
    x = layers.ACTIVATIONS[self.config.activation](self.net.layer1(x.flatten(1)))
    return self.net.layer2(F.dropout(x, dropout_rate))


_MODELS = {ConvNet: _ConvNet, Mlp: _Mlp}


def build(definition: WorkloadDefinition, *, dtype: torch.dtype = torch.float32) -> nn.Module:
  """Builds the model; weights are truncated normal with variance 1 / fan-in, biases zero.

  The weight of the head of `ConvNet` is a tenth of that.
  """
  return _MODELS[type(definition.model)](definition.model, definition.data, dtype)


def forward(
  model: nn.Module,
  batch: Mapping[str, torch.Tensor],
  *,
  train: bool,
  use_running_average: bool,
  dropout_rate: float,
) -> torch.Tensor:
  """Returns the logits [batch, classes]; `train` alone turns dropout on, not the module's mode."""
  return model(
    batch['inputs'],
    use_running_average=use_running_average,
    dropout_rate=dropout_rate if train else 0.0,
  )


def loss(
  definition: WorkloadDefinition,
  targets: torch.Tensor,
  logits: torch.Tensor,
  mask: torch.Tensor | None = None,
  label_smoothing: float = 0.0,
) -> dict[str, torch.Tensor]:
  """Computes softmax cross entropy; targets are int [batch] or probabilities [batch, classes]."""
  return layers.class_loss(targets, logits, mask, label_smoothing)


def eval_step(
  definition: WorkloadDefinition, batch: Mapping[str, torch.Tensor], logits: torch.Tensor
) -> tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], dict[str, torch.Tensor]]:
  """Returns sum and weight of every metric over the valid examples, and no outputs."""
  weights = batch['weights']
  losses = loss(definition, batch['targets'], logits, weights)
  return layers.class_sums(batch['targets'], logits, losses, weights), {}
