"""SGD with Nesterov momentum, warm-up and linear decay, the same constants on every workload."""

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
  schedule = training.warmup_linear(
    _POINT.learning_rate,
    step_hint=workload.step_hint,
    warmup_factor=_POINT.warmup_factor,
    decay_steps_factor=_POINT.decay_steps_factor,
    end_factor=_POINT.end_factor,
  )
  optimizer = optax.chain(
    optax.add_decayed_weights(_POINT.weight_decay),
    optax.sgd(schedule, momentum=1 - _POINT.one_minus_beta1, nesterov=True),
  )
  return training.start(workload, model_params, model_state, optimizer, _OPTIONS)
