"""SGD with Nesterov momentum, warm-up and linear decay, the same constants on every workload."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from algorithmic_efficiency import spec
from algorithmic_efficiency.training import torch as training
from algorithmic_efficiency.training.batch_size import get_batch_size
from algorithmic_efficiency.training.options import StepOptions
from algorithmic_efficiency.training.torch import data_selection

__all__ = ['data_selection', 'get_batch_size', 'init_optimizer_state', 'update_params']

_POINT = SimpleNamespace(
  learning_rate=0.09447024589646937,
  one_minus_beta1=0.009163790082062216,
  warmup_factor=0.05,
  weight_decay=8.01423308682598e-06,
  label_smoothing=0.0,
  dropout_rate=0.0,
  decay_steps_factor=0.9,
  end_factor=0.01,
)
_OPTIONS = StepOptions.of(_POINT)


def init_optimizer_state(
  workload: spec.Workload,
  model_params: spec.ParameterContainer,
  model_state: spec.ModelAuxiliaryState,
  hyperparameters: spec.Hyperparameters,
  rng: spec.RandomState,
) -> spec.OptimizerState:
  optimizer = torch.optim.SGD(
    model_params.parameters(),
    lr=_POINT.learning_rate,
    momentum=1 - _POINT.one_minus_beta1,
    weight_decay=_POINT.weight_decay,
    nesterov=True,
    fused=True,
  )
  factor = training.warmup_linear(
    step_hint=workload.step_hint,
    warmup_factor=_POINT.warmup_factor,
    decay_steps_factor=_POINT.decay_steps_factor,
    end_factor=_POINT.end_factor,
  )
  return training.start(model_params, optimizer, factor, _OPTIONS)


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
  training.train_step(
    workload, current_param_container, batch, rng, optimizer_state, _OPTIONS, global_step
  )
  return optimizer_state, current_param_container, model_state
