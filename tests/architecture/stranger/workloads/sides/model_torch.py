"""A linear model in PyTorch."""

from __future__ import annotations

import torch
from torch import nn


def build(definition, *, dtype=torch.float32):
  return nn.Linear(definition.data.num_dims, 2, dtype=dtype)


def forward(model, batch, *, train, use_running_average, dropout_rate):
  return model(batch['inputs'])


def loss(definition, targets, logits, mask=None, label_smoothing=0.0):
  per_example = nn.functional.cross_entropy(logits, targets.long(), reduction='none')
  mask = torch.ones_like(per_example) if mask is None else mask
  per_example = per_example * mask
  return {
    'summed': per_example.sum(),
    'per_example': per_example,
    'n_valid_examples': mask.sum(),
  }


def eval_step(definition, batch, logits):
  weights = batch['weights']
  correct = logits.argmax(-1) == batch['targets']
  total = loss(definition, batch['targets'], logits, weights)['summed']
  sums = {'accuracy': ((correct * weights).sum(), weights.sum()), 'loss': (total, weights.sum())}
  return sums, {}
