"""A linear classifier in PyTorch: points [batch, features], logits [batch, classes]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import torch as layers


class _Linear(nn.Module):
  def __init__(self, num_features: int, num_classes: int, dtype: torch.dtype):
    super().__init__()
    self.out = layers.Linear(num_features, num_classes, dtype=dtype)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.out(x)


def build(definition: WorkloadDefinition, *, dtype: torch.dtype = torch.float32) -> nn.Module:
  """Returns the model of the definition."""
  return _Linear(definition.data.num_features, definition.data.num_classes, dtype)


def forward(
  model: nn.Module,
  batch: Mapping[str, torch.Tensor],
  *,
  train: bool,
  use_running_average: bool,
  dropout_rate: float,
) -> torch.Tensor:
  """Returns the logits; the model has no dropout."""
  return model(batch['inputs'])


def loss(
  definition: WorkloadDefinition,
  targets: torch.Tensor,
  logits: torch.Tensor,
  mask: torch.Tensor | None = None,
  label_smoothing: float = 0.0,
) -> dict[str, Any]:
  """Computes the cross entropy of the classes, int [batch]."""
  return layers.token_loss(targets, logits, mask, label_smoothing)


def eval_step(
  definition: WorkloadDefinition, batch: Mapping[str, torch.Tensor], logits: torch.Tensor
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
  """Returns sum and weight of accuracy and loss, and no outputs."""
  weights = batch['weights']
  losses = loss(definition, batch['targets'], logits, weights)
  return layers.class_sums(batch['targets'], logits, losses, weights), {}
