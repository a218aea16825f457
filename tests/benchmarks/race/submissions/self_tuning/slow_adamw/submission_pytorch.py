"""The AdamW of self_tuning/adamw with a learning rate 10 times too small: what must lose."""

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
  learning_rate=0.00019814680146414726,
  one_minus_beta1=0.22838767981804783,
  beta2=0.999,
  warmup_factor=0.05,
  weight_decay=0.010340635370188849,
  label_smoothing=0.0,
  dropout_rate=0.0,
)
_OPTIONS = StepOptions.of(_POINT)


def init_optimizer_state(
  workload: spec.Workload,
  model_params: spec.ParameterContainer,
  model_state: spec.ModelAuxiliaryState,
  hyperparameters: spec.Hyperparameters,
  rng: spec.RandomState,
) -> spec.OptimizerState:
  optimizer = torch.optim.AdamW(
    model_params.parameters(),
    lr=_POINT.learning_rate,
    betas=(1 - _POINT.one_minus_beta1, _POINT.beta2),
    eps=1e-8,
    weight_decay=_POINT.weight_decay,
    fused=True,
  )
  factor = training.warmup_cosine(step_hint=workload.step_hint, warmup_factor=_POINT.warmup_factor)
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
