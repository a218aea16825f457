"""NAdamW with linear warm-up and cosine decay."""

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
  optimizer = torch.optim.NAdam(
    model_params.parameters(),
    lr=hyperparameters.learning_rate,
    betas=(1 - hyperparameters.one_minus_beta1, hyperparameters.beta2),
    eps=1e-8,
    weight_decay=hyperparameters.weight_decay,
    # So large a decay leaves Dozat's method with a constant beta1 from the first step, as in optax.
    momentum_decay=1e9,
    decoupled_weight_decay=True,
    foreach=True,
  )
  factor = training.warmup_cosine(
    step_hint=workload.step_hint, warmup_factor=hyperparameters.warmup_factor
  )
  return training.start(model_params, optimizer, factor, StepOptions.of(hyperparameters))
