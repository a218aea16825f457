from __future__ import annotations

import jax.numpy as jnp
import optax
from flax import linen as nn


class _Speller(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Dense(10)(nn.Embed(10, 16)(x))


def build(definition, *, dtype=jnp.float32):
  return _Speller()


def forward(model, batch, *, train, use_running_average, dropout_rate):
  return model(batch['inputs'])


def loss(definition, targets, logits, mask=None, label_smoothing=0.0):
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
  weights = jnp.ones(len(targets)) if mask is None else mask
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
