"""$title: say here in one line what the training algorithm is.

A trial calls the four functions of this file by name. submission_jax.py has the same
algorithm. RULES.md says what each function may do. An algorithm that depends on the roles of
parameters finds them in workload.parameter_roles, and views of parameters as matrices in
workload.matrix_views. Both are dicts by
parameter name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import distributed

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
  """Returns objects with `state_dict` and `load_state_dict`, by name."""
  point = hyperparameters or DEFAULTS
  optimizer = torch.optim.AdamW(
    model_params.parameters(),
    lr=point.learning_rate,
    betas=(point.beta1, point.beta2),
    weight_decay=point.weight_decay,
    fused=True,
  )
  num_warmup = workload.step_hint // 20
  num_decay = workload.step_hint - num_warmup

  def factor(step: int) -> float:
    if step < num_warmup:
      return step / num_warmup
    return 0.5 * (1 + math.cos(math.pi * min((step - num_warmup) / num_decay, 1.0)))

  scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
  return {'optimizer': optimizer, 'scheduler': scheduler}


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
  model = current_param_container
  optimizer_state['optimizer'].zero_grad(set_to_none=True)
  logits, _ = workload.model_fn(
    params=model,
    augmented_and_preprocessed_input_batch=batch,
    model_state=model_state,
    mode=spec.ForwardPassMode.TRAIN,
    rng=rng,
    update_batch_norm=True,
  )
  loss = workload.loss_fn(batch['targets'], logits, batch.get('weights'))
  # Gradients are averaged over ranks, while the mean loss is over the examples of all ranks.
  world_size, num_valid = 1, loss['n_valid_examples']
  if distributed.is_initialized():
    world_size = distributed.get_world_size()
    distributed.all_reduce(num_valid)
  mean = loss['summed'] * world_size / num_valid
  mean.backward()
  optimizer_state['optimizer'].step()
  optimizer_state['scheduler'].step()
  if global_step % 100 == 0 and workload.metrics_logger is not None:
    workload.metrics_logger.append_scalar_metrics({'loss': mean.detach()}, global_step)
  return optimizer_state, model, model_state


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
