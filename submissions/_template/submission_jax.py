"""$title: say here in one line what the training algorithm is.

A trial calls the four functions of this file by name. submission_pytorch.py has the same
algorithm. RULES.md says what each function may do. An algorithm that depends on the roles of
parameters finds them in workload.parameter_roles, and views of parameters as matrices in
workload.matrix_views. Both are trees like that of
the parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import jax
import optax

from algorithmic_efficiency import spec

# The workload's batch size; define get_batch_size(workload_name) here to choose another.
from algorithmic_efficiency.training.batch_size import get_batch_size

__all__ = ['data_selection', 'get_batch_size', 'init_optimizer_state', 'update_params']

# Hyperparameters under self tuning. External tuning draws points from tuning_search_space.json
# instead.
DEFAULTS = SimpleNamespace(learning_rate=2e-3, beta1=0.9, beta2=0.99, weight_decay=0.01)


def init_optimizer_state(
  workload: spec.Workload,
  model_params: spec.ParameterContainer,
  model_state: spec.ModelAuxiliaryState,
  hyperparameters: spec.Hyperparameters,
  rng: spec.RandomState,
) -> spec.OptimizerState:
  """Returns a pair: a tree of arrays and the function that updates it."""
  point = hyperparameters or DEFAULTS
  num_warmup = workload.step_hint // 20
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, point.learning_rate, num_warmup, workload.step_hint
  )
  optimizer = optax.adamw(schedule, b1=point.beta1, b2=point.beta2, weight_decay=point.weight_decay)
  return jax.jit(optimizer.init)(model_params), optimizer.update


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3, 4))
def train_step(
  workload: spec.Workload,
  update: Any,
  state: Any,
  params: Any,
  model_state: Any,
  batch: Any,
  rng: Any,
) -> tuple[Any, Any, Any, dict[str, jax.Array]]:
  """Takes one step; compiled once. On several devices `batch` is sharded and sums are global."""

  def mean_loss(params: Any) -> tuple[jax.Array, Any]:
    logits, new_model_state = workload.model_fn(
      params, batch, model_state, spec.ForwardPassMode.TRAIN, rng, update_batch_norm=True
    )
    loss = workload.loss_fn(batch['targets'], logits, batch.get('weights'))
    return loss['summed'] / loss['n_valid_examples'], new_model_state

  (loss, model_state), gradients = jax.value_and_grad(mean_loss, has_aux=True)(params)
  updates, state = update(gradients, state, params)
  return state, optax.apply_updates(params, updates), model_state, {'loss': loss}


def update_params(
  workload: spec.Workload,
  current_param_container: spec.ParameterContainer,
  current_params_types: spec.ParameterTypeTree,
  model_state: spec.ModelAuxiliaryState,
  hyperparameters: spec.Hyperparameters,
  batch: dict[str, spec.Tensor],
  loss_type: spec.LossType,
  optimizer_state: spec.OptimizerState,
  eval_results: list[tuple[int, Any]],
  global_step: int,
  rng: spec.RandomState,
) -> spec.UpdateReturn:
  """Takes one timed step on one batch."""
  state, update = optimizer_state
  state, params, model_state, metrics = train_step(
    workload, update, state, current_param_container, model_state, batch, rng
  )
  if global_step % 100 == 0 and workload.metrics_logger is not None:
    workload.metrics_logger.append_scalar_metrics(metrics, global_step)
  return (state, update), params, model_state


def data_selection(
  workload: spec.Workload,
  input_queue: Iterator[dict[str, spec.Tensor]],
  optimizer_state: spec.OptimizerState,
  current_param_container: spec.ParameterContainer,
  model_state: spec.ModelAuxiliaryState,
  hyperparameters: spec.Hyperparameters,
  global_step: int,
  rng: spec.RandomState,
) -> dict[str, spec.Tensor]:
  """Returns the batch of the next step."""
  return next(input_queue)
