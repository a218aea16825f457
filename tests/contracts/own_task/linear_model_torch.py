"""The linear model in PyTorch."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from algorithmic_efficiency.layers import torch as layers


class _Linear(nn.Module):
  def __init__(self, num_dims, num_classes, dtype):
    super().__init__()
    self.fc = layers.Linear(num_dims, num_classes, dtype=dtype)

  def forward(self, x):
    return self.fc(x)


def build(definition, *, dtype=torch.float32):
  """Builds the model."""
  return _Linear(definition.data.num_dims, definition.model.num_classes, dtype)


def forward(model, batch, *, train, use_running_average, dropout_rate):
  """Returns the logits [batch, classes]."""
  return model(batch['inputs'])


def loss(definition, targets, logits, mask=None, label_smoothing=0.0):
  """Computes softmax cross entropy of targets int [batch]."""
  per_example = F.cross_entropy(
    logits, targets.long(), reduction='none', label_smoothing=label_smoothing
  )
  mask = torch.ones_like(per_example) if mask is None else mask
  per_example = per_example * mask
  return {
    'summed': per_example.sum(),
    'n_valid_examples': mask.sum(),
    'per_example': per_example,
  }


def eval_step(definition, batch, logits):
  """Returns sum and weight of each metric, and no outputs."""
  weights = batch['weights']
  is_correct = logits.argmax(-1) == batch['targets']
  total = loss(definition, batch['targets'], logits, weights)['summed']
  sums = {
    'accuracy': ((is_correct * weights).sum(), weights.sum()),
    'loss': (total, weights.sum()),
  }
  return sums, {}
