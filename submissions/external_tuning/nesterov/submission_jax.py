"""SGD with Nesterov momentum, linear warm-up and linear decay."""

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
  schedule = training.warmup_linear(
    hyperparameters.learning_rate,
    step_hint=workload.step_hint,
    warmup_factor=hyperparameters.warmup_factor,
    decay_steps_factor=hyperparameters.decay_steps_factor,
    end_factor=hyperparameters.end_factor,
  )
  optimizer = optax.chain(
    optax.add_decayed_weights(hyperparameters.weight_decay),
    optax.sgd(schedule, momentum=1 - hyperparameters.one_minus_beta1, nesterov=True),
  )
  return training.start(
    workload, model_params, model_state, optimizer, StepOptions.of(hyperparameters)
  )
