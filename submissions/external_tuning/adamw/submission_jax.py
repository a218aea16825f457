"""AdamW with linear warm-up and cosine decay."""

from __future__ import annotations

import optax

from algorithmic_efficiency import spec
from algorithmic_efficiency.training import jax as training
from algorithmic_efficiency.training.batch_size import get_batch_size
from algorithmic_efficiency.training.jax import data_selection, update_params
from algorithmic_efficiency.training.options import StepOptions

__all__ = ['data_selection', 'get_batch_size', 'init_optimizer_state', 'update_params']


def init_optimizer_state(
  workload: spec.Workload,
  model_params: spec.ParameterContainer,
  model_state: spec.ModelAuxiliaryState,
  hyperparameters: spec.Hyperparameters,
  rng: spec.RandomState,
) -> spec.OptimizerState:
  schedule = training.warmup_cosine(
    hyperparameters.learning_rate,
    step_hint=workload.step_hint,
    warmup_factor=hyperparameters.warmup_factor,
  )
  optimizer = optax.adamw(
    schedule,
    b1=1 - hyperparameters.one_minus_beta1,
    b2=hyperparameters.beta2,
    eps=1e-8,
    weight_decay=hyperparameters.weight_decay,
  )
  return training.start(
    workload, model_params, model_state, optimizer, StepOptions.of(hyperparameters)
  )
