"""SGD with heavy-ball momentum, linear warm-up and linear decay."""

from __future__ import annotations

import torch

from algorithmic_efficiency import spec
from algorithmic_efficiency.training import torch as training
from algorithmic_efficiency.training.batch_size import get_batch_size
from algorithmic_efficiency.training.options import StepOptions
from algorithmic_efficiency.training.torch import data_selection, update_params

__all__ = ['data_selection', 'get_batch_size', 'init_optimizer_state', 'update_params']


def init_optimizer_state(
  workload: spec.Workload,
  model_params: spec.ParameterContainer,
  model_state: spec.ModelAuxiliaryState,
  hyperparameters: spec.Hyperparameters,
  rng: spec.RandomState,
) -> spec.OptimizerState:
  optimizer = torch.optim.SGD(
    model_params.parameters(),
    lr=hyperparameters.learning_rate,
    momentum=1 - hyperparameters.one_minus_beta1,
    weight_decay=hyperparameters.weight_decay,
    nesterov=False,
    fused=True,
  )
  factor = training.warmup_linear(
    step_hint=workload.step_hint,
    warmup_factor=hyperparameters.warmup_factor,
    decay_steps_factor=hyperparameters.decay_steps_factor,
    end_factor=hyperparameters.end_factor,
  )
  return training.start(model_params, optimizer, factor, StepOptions.of(hyperparameters))
