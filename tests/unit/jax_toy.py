"""A task small enough for the tests of the JAX backend: batch norm, dropout, three classes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from algorithmic_efficiency.backends.base import TaskCode
from algorithmic_efficiency.benchmark.definition import (
  BatchSizes,
  Budget,
  Splits,
  Target,
  WorkloadDefinition,
)
from algorithmic_efficiency.spec import LossType

NUM_FEATURES = 6
NUM_CLASSES = 3
BUDGET = Budget(step_hint=100, max_steps=100)


def definition(**changes: Any) -> WorkloadDefinition:
  fields: dict[str, Any] = {
    'name': 'toy',
    'task': 'toy',
    'summary': 'Toy',
    'dataset': 'toy',
    'model': None,
    'data': None,
    'loss_type': LossType.SOFTMAX_CROSS_ENTROPY,
    'metrics': ('loss', 'accuracy'),
    'target': Target(metric='accuracy', direction='max', validation=0.9),
    'suites': {'quick': BUDGET},
    'splits': Splits(train=64, eval_train=16, validation=20, test=12),
    'batch_sizes': BatchSizes(train=16, eval=16),
    'smoke': None,
    'output_params': {'jax': ('Dense_1',)},
    'dropout_rate': 0.5,
  }
  return WorkloadDefinition(**{**fields, **changes})


def batch(num_rows: int, seed: int, num_valid: int | None = None) -> dict[str, np.ndarray]:
  """Random rows, of which the first `num_valid` count."""
  random = np.random.default_rng(seed)
  weights = np.zeros(num_rows, np.float32)
  weights[:num_valid] = 1
  return {
    'inputs': random.normal(size=(num_rows, NUM_FEATURES)).astype(np.float32),
    'targets': random.integers(0, NUM_CLASSES, num_rows, dtype=np.int32),
    'weights': weights,
  }


def task() -> TaskCode:
  data = SimpleNamespace(fake_batch=lambda definition, batch_size, seed: batch(batch_size, seed))
  return TaskCode(data=data, model=_model())  # type: ignore[arg-type]


def _model() -> SimpleNamespace:
  import jax.numpy as jnp
  import optax
  from flax import linen as nn

  class Net(nn.Module):
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *, train, use_running_average, dropout_rate):
      parameters = self.dtype if self.dtype == jnp.float64 else jnp.float32
      types = {'dtype': self.dtype, 'param_dtype': parameters}
      x = nn.Dense(8, **types)(x.astype(self.dtype))
      x = nn.BatchNorm(use_running_average=use_running_average, momentum=0.9, **types)(x)
      x = nn.Dropout(dropout_rate, deterministic=not train)(nn.relu(x))
      return nn.Dense(NUM_CLASSES, **types)(x)

  def build(definition, *, dtype=jnp.float32):
    return Net(dtype)

  def forward(model, batch, *, train, use_running_average, dropout_rate):
    return model(
      batch['inputs'],
      train=train,
      use_running_average=use_running_average,
      dropout_rate=dropout_rate,
    )

  def loss(definition, targets, logits, mask=None, label_smoothing=0.0):
    labels = optax.smooth_labels(jnp.eye(NUM_CLASSES, dtype=logits.dtype)[targets], label_smoothing)
    per_example = optax.softmax_cross_entropy(logits, labels)
    mask = jnp.ones(len(per_example), logits.dtype) if mask is None else mask
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

  return SimpleNamespace(build=build, forward=forward, loss=loss, eval_step=eval_step)
