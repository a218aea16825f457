"""Experts over items of several kinds in PyTorch.

Items are [batch, length], logits [batch, length, classes]. Items see the mean of their segment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import torch as layers
from algorithmic_efficiency.layers.losses import add_auxiliary

from .definition import Experts, Modalities


class _Experts(nn.Module):
  def __init__(self, config: Experts, data: Modalities, dtype: torch.dtype):
    super().__init__()
    dim = config.dim
    stddev = math.sqrt(1 / dim)
    self.embed = layers.Embedding(data.num_classes + 1, dim, stddev=stddev, dtype=dtype)
    self.image = layers.Linear(data.image_dim, dim, dtype=dtype)
    self.audio = layers.Linear(data.audio_dim, dim, dtype=dtype)
    self.router = layers.Linear(dim, config.num_experts, bias=False, dtype=dtype)
    kernel = torch.empty(config.num_experts, dim, dim, dtype=layers.param_dtype(dtype))
    self.experts_kernel = nn.Parameter(nn.init.normal_(kernel, std=stddev))
    self.out = layers.Linear(dim, data.num_classes, dtype=dtype)

  def forward(
    self, inputs: Mapping[str, torch.Tensor], segments: torch.Tensor, weights: torch.Tensor
  ) -> layers.Outputs:
    x = self.embed(inputs['text']) + self.image(inputs['image']) + self.audio(inputs['audio'])
    is_near = (segments[:, :, None] == segments[:, None, :]).to(x.dtype)
    x = x + torch.einsum('bqk,bkd->bqd', is_near, x) / is_near.sum(-1, keepdim=True)
    probabilities = torch.softmax(self.router(x), dim=-1)
    kernel = self.experts_kernel.to(x.dtype)
    x = x + torch.einsum('ble,bld,edf->blf', probabilities, x, kernel)
    return layers.Outputs(self.out(x), {'balance': _balance(probabilities, weights)})


def _balance(probabilities: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
  """Returns num_experts times the sum of squares of the experts' shares of the global batch."""
  weights = weights.to(probabilities.dtype)
  sums = torch.einsum('bl,ble->e', weights, probabilities)
  totals = layers.sum_over_ranks(torch.cat([sums, weights.sum()[None]]))
  return probabilities.shape[-1] * (totals[:-1] / totals[-1]).square().sum()


def build(definition: WorkloadDefinition, *, dtype: torch.dtype = torch.float32) -> nn.Module:
  """Returns the model of the definition."""
  return _Experts(definition.model, definition.data, dtype)


def forward(
  model: nn.Module,
  batch: Mapping[str, Any],
  *,
  train: bool,
  use_running_average: bool,
  dropout_rate: float,
) -> layers.Outputs:
  """Returns the logits and the auxiliary loss; the model has no dropout."""
  return model(
    batch['inputs'], batch['segments'], layers.spread_weights(batch['weights'], batch['targets'])
  )


def loss(
  definition: WorkloadDefinition,
  targets: torch.Tensor,
  logits: layers.Outputs,
  mask: torch.Tensor | None = None,
  label_smoothing: float = 0.0,
) -> dict[str, Any]:
  """Computes the cross entropy of items, and adds the auxiliary loss to the sum."""
  losses = layers.token_loss(targets, logits.logits, mask, label_smoothing)
  weights = {'balance': definition.model.balance_weight}
  return add_auxiliary(losses, logits.auxiliary, weights)


def eval_step(
  definition: WorkloadDefinition, batch: Mapping[str, Any], logits: layers.Outputs
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
  """Returns sum and weight of accuracy and loss over items, those of each task, and no outputs."""
  targets = batch['targets']
  weights = layers.spread_weights(batch['weights'], targets)
  losses = layers.token_loss(targets, logits.logits, weights)
  is_correct = (logits.logits.argmax(dim=-1) == targets) * weights
  tasks = nn.functional.one_hot(batch['task'], len(definition.task_names)).to(weights.dtype)
  by_task = [torch.einsum('bl,blt->t', values, tasks) for values in (is_correct, weights)]
  sums = {
    'accuracy': (is_correct.sum(), weights.sum()),
    'loss': (losses['summed'], losses['n_valid_examples']),
    'accuracy_of_task': tuple(by_task),
  }
  return sums, {}
