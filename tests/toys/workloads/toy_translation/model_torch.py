"""The word-by-word translator in PyTorch: words [batch, length], logits [batch, length, vocab]."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import torch as layers


class _WordByWord(nn.Module):
  def __init__(self, dim: int, vocab_size: int, dtype: torch.dtype):
    super().__init__()
    stddev = math.sqrt(1 / dim)
    self.embed = layers.Embedding(vocab_size, dim, stddev=stddev, dtype=dtype)
    self.out = layers.Linear(dim, vocab_size, dtype=dtype)

  def forward(self, words: torch.Tensor) -> torch.Tensor:
    return self.out(self.embed(words))


def build(definition: WorkloadDefinition, *, dtype: torch.dtype = torch.float32) -> nn.Module:
  """Returns the model of the definition."""
  return _WordByWord(definition.model.dim, definition.data.vocab_size, dtype)


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
  """Computes the cross entropy of words; a mask weighs sentences [batch] or words."""
  return layers.token_loss(targets, logits, mask, label_smoothing)


def eval_step(
  definition: WorkloadDefinition, batch: Mapping[str, torch.Tensor], logits: torch.Tensor
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
  """Returns sum and weight of accuracy and loss over words, and no outputs."""
  targets = batch['targets']
  weights = layers.spread_weights(batch['weights'], targets)
  losses = layers.token_loss(targets, logits, weights)
  return layers.class_sums(targets, logits, losses, weights), {}


def generate(
  definition: WorkloadDefinition,
  model: nn.Module,
  batch: Mapping[str, torch.Tensor],
  *,
  is_last: bool,
) -> dict[str, torch.Tensor]:
  """Returns the likeliest words, int32 [batch, length]."""
  return {'words': model(batch['inputs']).argmax(dim=-1).int()}
