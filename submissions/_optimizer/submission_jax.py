"""The optimizer of optax's interface that optimizer.json names, with the settings it has there.

Under external tuning the values of the hyperparameter point come before those of the settings.
"""

from __future__ import annotations

from pathlib import Path

from algorithmic_efficiency import spec
from algorithmic_efficiency.optimizers import jax as optimizers
from algorithmic_efficiency.optimizers import settings
from algorithmic_efficiency.optimizers.jax import prepare_for_eval, update_params
from algorithmic_efficiency.training.batch_size import get_batch_size
from algorithmic_efficiency.training.jax import data_selection

__all__ = [
  'data_selection',
  'get_batch_size',
  'init_optimizer_state',
  'prepare_for_eval',
  'update_params',
]

SETTINGS = settings.Settings.read(Path(__file__).with_name(settings.FILE))


def init_optimizer_state(
  workload: spec.Workload,
  model_params: spec.ParameterContainer,
  model_state: spec.ModelAuxiliaryState,
  hyperparameters: spec.Hyperparameters,
  rng: spec.RandomState,
) -> spec.OptimizerState:
  return optimizers.start(workload, model_params, model_state, SETTINGS.at(hyperparameters))
