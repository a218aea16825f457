"""Gradient descent, as short as the contract allows; written against AlgoPerf's import root."""

from __future__ import annotations

import torch
from algoperf import spec
from algoperf.pytorch_utils import pytorch_setup

USE_PYTORCH_DDP = pytorch_setup()[0]


def get_batch_size(workload_name):
  raise ValueError(f'not known: {workload_name}')


def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
  optimizer = torch.optim.SGD(model_params.parameters(), lr=hyperparameters.learning_rate)
  return {'optimizer': optimizer}


def update_params(
  workload,
  current_param_container,
  current_params_types,
  model_state,
  hyperparameters,
  batch,
  loss_type,
  optimizer_state,
  eval_results,
  global_step,
  rng,
):
  optimizer_state['optimizer'].zero_grad()
  logits, new_state = workload.model_fn(
    params=current_param_container,
    augmented_and_preprocessed_input_batch=batch,
    model_state=model_state,
    mode=spec.ForwardPassMode.TRAIN,
    rng=rng,
    update_batch_norm=True,
  )
  loss = workload.loss_fn(label_batch=batch['targets'], logits_batch=logits)
  (loss['summed'] / loss['n_valid_examples']).backward()
  optimizer_state['optimizer'].step()
  return optimizer_state, current_param_container, new_state


def data_selection(workload, input_queue, *others):
  return next(input_queue)
