from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class _Speller(nn.Module):
  def __init__(self):
    super().__init__()
    self.embed = nn.Embedding(10, 16)
    self.out = nn.Linear(16, 10)

  def forward(self, x):
    return self.out(self.embed(x))


def build(definition, *, dtype=torch.float32):
  return _Speller()


def forward(model, batch, *, train, use_running_average, dropout_rate):
  return model(batch['inputs'])


def loss(definition, targets, logits, mask=None, label_smoothing=0.0):
  losses = F.cross_entropy(logits.transpose(1, 2), targets.long(), reduction='none')
  weights = torch.ones(len(targets)) if mask is None else mask
  per_example = losses * weights[:, None]
  num_tokens = weights.sum() * targets.shape[1]
  return {'summed': per_example.sum(), 'per_example': per_example, 'n_valid_examples': num_tokens}


def eval_step(definition, batch, logits):
  weights = batch['weights']
  found = loss(definition, batch['targets'], logits, weights)
  correct = (logits.argmax(-1) == batch['targets']) * weights[:, None]
  count = found['n_valid_examples']
  return {'accuracy': (correct.sum(), count), 'loss': (found['summed'], count)}, {}


def generate(definition, model, batch, *, is_last):
  return {'words': model(batch['inputs']).argmax(-1)}
