"""A classifier of graphs in PyTorch: tensors of the graphs, logits [batch, classes]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import torch as layers

from .definition import Graphs, MessagePassing


class _MessagePassing(nn.Module):
  def __init__(self, config: MessagePassing, data: Graphs, dtype: torch.dtype):
    super().__init__()
    self.num_kinds = data.num_kinds
    self.edge = layers.Linear(2 * data.num_kinds, config.dim, dtype=dtype)
    self.out = layers.Linear(config.dim, data.num_classes, dtype=dtype)

  def forward(self, graphs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    dtype = self.edge.compute_dtype
    kinds = F.one_hot(graphs['kinds'].long(), self.num_kinds).to(dtype)
    ends = [_taken(kinds, graphs[end]) for end in ('senders', 'receivers')]
    messages = F.relu(self.edge(torch.cat(ends, dim=-1)))
    weights = graphs['edge_weights'].to(dtype)
    pooled = torch.einsum('be,bed->bd', weights, messages) / weights.sum(1, keepdim=True)
    return self.out(pooled)


def _taken(nodes: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
  """Returns the rows of nodes [batch, nodes, dim] at int indices [batch, edges]."""
  return nodes.take_along_dim(indices.long()[:, :, None], dim=1)


def build(definition: WorkloadDefinition, *, dtype: torch.dtype = torch.float32) -> nn.Module:
  """Returns the model of the definition."""
  return _MessagePassing(definition.model, definition.data, dtype)


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
