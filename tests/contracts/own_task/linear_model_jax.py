"""The linear model in flax."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from algorithmic_efficiency.layers import jax as layers


class _Linear(nn.Module):
  num_classes: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x):
    return nn.Dense(self.num_classes, **layers.types(self.dtype))(x)


def build(definition, *, dtype=jnp.float32):
  """Builds the model."""
  return _Linear(definition.model.num_classes, dtype)


def forward(model, batch, *, train, use_running_average, dropout_rate):
  """Returns the logits [batch, classes]."""
  return model(batch['inputs'])


def loss(definition, targets, logits, mask=None, label_smoothing=0.0):
  """Computes softmax cross entropy of targets int [batch]."""
  num_classes = logits.shape[-1]
  labels = jax.nn.one_hot(targets, num_classes, dtype=logits.dtype)
  labels = (1 - label_smoothing) * labels + label_smoothing / num_classes
  per_example = -(labels * jax.nn.log_softmax(logits)).sum(-1)
  mask = jnp.ones_like(per_example) if mask is None else mask
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
