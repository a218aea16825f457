"""Two classifiers with a hidden layer, one in each framework, and what a step needs around them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from algorithmic_efficiency.layers import losses

SUBMISSIONS = Path(__file__).resolve().parents[2] / 'submissions'
POINT = SimpleNamespace(
  learning_rate=0.05,
  one_minus_beta1=0.1,
  beta2=0.99,
  weight_decay=0.01,
  warmup_factor=0.1,
  decay_steps_factor=0.9,
  end_factor=0.01,
  label_smoothing=0.1,
  dropout_rate=0.0,
  grad_clip=0.2,
)


class Logger:
  """Remembers what it is given, without looking at the values."""

  def __init__(self) -> None:
    self.rows: list[tuple[int, dict[str, Any]]] = []

  def append_scalar_metrics(self, metrics: dict[str, Any], global_step: int) -> None:
    self.rows.append((global_step, metrics))


def submission(ruleset: str, name: str, framework: str) -> ModuleType:
  """The module of a submission, freshly imported."""
  file = SUBMISSIONS / f'{ruleset}_tuning' / name / f'submission_{framework}.py'
  spec = importlib.util.spec_from_file_location(f'_{ruleset}_{name}_{framework}', file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def batches(num_batches: int, batch_size: int = 16, seed: int = 0) -> list[dict[str, np.ndarray]]:
  """Random inputs [batch, 4] and classes [batch] of 3; the last two examples do not count."""
  random = np.random.default_rng(seed)
  weights = np.ones(batch_size, np.float32)
  weights[-2:] = 0
  return [
    {
      'inputs': random.normal(size=(batch_size, 4)).astype(np.float32),
      'targets': random.integers(0, 3, batch_size, dtype=np.int32),
      'weights': weights,
    }
    for _ in range(num_batches)
  ]


def params(seed: int = 0) -> dict[str, np.ndarray]:
  random = np.random.default_rng(seed)
  return {
    'kernel_0': random.normal(size=(4, 5)).astype(np.float32),
    'bias_0': random.normal(size=5).astype(np.float32),
    'kernel_1': random.normal(size=(5, 3)).astype(np.float32),
    'bias_1': random.normal(size=3).astype(np.float32),
  }


def update_arguments(workload: Any, point: Any, global_step: int, rng: Any) -> dict[str, Any]:
  """What every `update_params` is called with, but for parameters, states and batch."""
  return {
    'workload': workload,
    'current_params_types': None,
    'hyperparameters': point,
    'loss_type': None,
    'eval_results': [],
    'global_step': global_step,
    'rng': rng,
  }


class JaxWorkload:
  """The classifier on a nested dict of arrays; `stateful` counts its forward passes.

  With a weight, `balance` is an auxiliary loss that is a function of the whole batch.
  """

  def __init__(
    self,
    step_hint: int = 50,
    stateful: bool = False,
    independent_examples: bool = True,
    balance: float = 0.0,
  ):
    self.step_hint = step_hint
    self.independent_examples = independent_examples and not balance
    self.balance = balance
    self.stateful = stateful
    self.metrics_logger = None
    self.dropout_rates: list[Any] = []  # one entry for each time that the model is traced

  def model_fn(self, params, batch, model_state, mode, rng, update_batch_norm, dropout_rate=None):
    import jax
    import jax.numpy as jnp

    self.dropout_rates.append(dropout_rate)
    hidden = jnp.tanh(batch['inputs'] @ params['kernel_0'] + params['bias_0'])
    if dropout_rate:
      keep = jax.random.bernoulli(rng, 1 - dropout_rate, hidden.shape)
      hidden = hidden * keep / (1 - dropout_rate)
    if self.stateful:
      model_state = {'calls': model_state['calls'] + 1}
    logits = hidden @ params['kernel_1'] + params['bias_1']
    if self.balance:
      from algorithmic_efficiency.layers import jax as layers

      shares = jax.nn.softmax(logits).mean(0)
      logits = layers.Outputs(logits, {'balance': len(shares) * (shares**2).sum()})
    return logits, model_state

  def loss_fn(self, label_batch, logits_batch, mask_batch=None, label_smoothing=0.0):
    import jax
    import jax.numpy as jnp

    if self.balance:
      loss = JaxWorkload().loss_fn(label_batch, logits_batch.logits, mask_batch, label_smoothing)
      return losses.add_auxiliary(loss, logits_batch.auxiliary, {'balance': self.balance})
    labels = jnp.eye(3)[label_batch] * (1 - label_smoothing) + label_smoothing / 3
    per_example = -(labels * jax.nn.log_softmax(logits_batch)).sum(-1)
    mask = jnp.ones(len(per_example)) if mask_batch is None else mask_batch
    return {'summed': (per_example * mask).sum(), 'n_valid_examples': mask.sum()}


def torch_model(values: dict[str, np.ndarray]) -> Any:
  import torch
  from torch import nn

  class Model(nn.Module):
    def __init__(self):
      super().__init__()
      for name, value in values.items():
        self.register_parameter(name, nn.Parameter(torch.tensor(value)))

    def forward(self, inputs):
      hidden = torch.tanh(inputs @ self.kernel_0 + self.bias_0)
      return hidden @ self.kernel_1 + self.bias_1

  return Model()


def torch_batch(batch: dict[str, np.ndarray]) -> dict[str, Any]:
  import torch

  return {name: torch.tensor(value) for name, value in batch.items()}


class TorchWorkload:
  """The classifier on a module, with the same auxiliary loss."""

  def __init__(self, step_hint: int = 50, independent_examples: bool = True, balance: float = 0.0):
    self.step_hint = step_hint
    self.independent_examples = independent_examples and not balance
    self.balance = balance
    self.metrics_logger = None
    self.dropout_rates: list[Any] = []

  def model_fn(
    self,
    params,
    augmented_and_preprocessed_input_batch,
    model_state,
    mode,
    rng,
    update_batch_norm,
    dropout_rate=None,
  ):
    self.dropout_rates.append(dropout_rate)
    logits = params(augmented_and_preprocessed_input_batch['inputs'])
    if self.balance:
      import torch

      from algorithmic_efficiency.layers import torch as layers

      num_examples = layers.sum_over_ranks(torch.tensor(float(len(logits))))
      shares = layers.sum_over_ranks(logits.softmax(-1).sum(0)) / num_examples
      logits = layers.Outputs(logits, {'balance': len(shares) * (shares**2).sum()})
    return logits, None

  def loss_fn(self, label_batch, logits_batch, mask_batch=None, label_smoothing=0.0):
    import torch
    from torch.nn import functional

    if self.balance:
      loss = TorchWorkload().loss_fn(label_batch, logits_batch.logits, mask_batch, label_smoothing)
      return losses.add_auxiliary(loss, logits_batch.auxiliary, {'balance': self.balance})
    per_example = functional.cross_entropy(
      logits_batch, label_batch.long(), reduction='none', label_smoothing=label_smoothing
    )
    mask = torch.ones_like(per_example) if mask_batch is None else mask_batch
    return {'summed': (per_example * mask).sum(), 'n_valid_examples': mask.sum()}
