"""The toy task of `jax_toy.py` beside this file, with a torch module."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from jax_toy import BUDGET, NUM_CLASSES, NUM_FEATURES, batch
from jax_toy import definition as jax_definition
from torch import nn
from torch.nn import functional as F

from algorithmic_efficiency.backends.base import TaskCode
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import torch as layers

__all__ = ['BUDGET', 'Net', 'batch', 'definition', 'task']


def definition(**changes: Any) -> WorkloadDefinition:
  return jax_definition(**{'output_params': {'pytorch': ('head.weight', 'head.bias')}, **changes})


class Net(nn.Module):
  """Dense, batch norm, dropout, dense."""

  def __init__(self, norm: type[nn.BatchNorm1d], dtype: torch.dtype):
    super().__init__()
    self.dense = nn.Linear(NUM_FEATURES, 8, dtype=dtype)
    self.bn = norm(8, dtype=dtype)
    self.head = nn.Linear(8, NUM_CLASSES, dtype=dtype)

  def forward(self, x, *, use_running_average, dropout_rate):
    x = self.dense(x.to(self.dense.weight.dtype))
    if isinstance(self.bn, layers.BatchNorm1d):
      x = self.bn(x, use_running_average=use_running_average)
    else:
      x = self.bn(x)
    return self.head(F.dropout(F.relu(x), dropout_rate))


def task(norm: type[nn.BatchNorm1d] = layers.BatchNorm1d) -> TaskCode:
  """The task; `norm` nn.BatchNorm1d has a layer that knows nothing of our conventions."""

  def build(definition, *, dtype=torch.float32):
    return Net(norm, dtype)

  def forward(model, batch, *, train, use_running_average, dropout_rate):
    return model(
      batch['inputs'], use_running_average=use_running_average, dropout_rate=dropout_rate
    )

  def loss(definition, targets, logits, mask=None, label_smoothing=0.0):
    per_example = F.cross_entropy(
      logits, targets.long(), reduction='none', label_smoothing=label_smoothing
    )
    mask = torch.ones_like(per_example) if mask is None else mask
    return {
      'summed': (per_example * mask).sum(),
      'n_valid_examples': mask.sum(),
      'per_example': per_example * mask,
    }

  def eval_step(definition, batch, logits):
    weights = batch['weights']
    result = loss(definition, batch['targets'], logits, weights)
    correct = (logits.argmax(-1) == batch['targets']) * weights
    sums = {
      'loss': (result['summed'], result['n_valid_examples']),
      'accuracy': (correct.sum(), weights.sum()),
    }
    return sums, {}

  model = SimpleNamespace(build=build, forward=forward, loss=loss, eval_step=eval_step)
  data = SimpleNamespace(fake_batch=lambda definition, batch_size, seed: batch(batch_size, seed))
  return TaskCode(data=data, model=model)  # type: ignore[arg-type]
