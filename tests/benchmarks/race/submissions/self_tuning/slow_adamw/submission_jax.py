"""The AdamW of self_tuning/adamw with a learning rate 10 times too small: what must lose."""

from __future__ import annotations

from types import SimpleNamespace

import optax

from algorithmic_efficiency import spec
from algorithmic_efficiency.training import jax as training
from algorithmic_efficiency.training.batch_size import get_batch_size
from algorithmic_efficiency.training.jax import data_selection, update_params
from algorithmic_efficiency.training.options import StepOptions

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
  schedule = training.warmup_cosine(
    _POINT.learning_rate,
    step_hint=workload.step_hint,
    warmup_factor=_POINT.warmup_factor,
  )
  optimizer = optax.adamw(
    schedule,
    b1=1 - _POINT.one_minus_beta1,
    b2=_POINT.beta2,
    eps=1e-8,
    weight_decay=_POINT.weight_decay,
  )
  return training.start(workload, model_params, model_state, optimizer, _OPTIONS)
