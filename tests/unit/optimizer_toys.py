"""The toys of `training_toys.py` with roles of parameters, and optimizers to train them."""

from __future__ import annotations

from typing import Any

from algorithmic_efficiency.backends import roles
from algorithmic_efficiency.optimizers.settings import Settings
from algorithmic_efficiency.spec import ParameterType, ShapeTuple
from tests.unit import training_toys as toys

OUTPUTS = ('kernel_1', 'bias_1')

# What the issue of any optimizer names, and one for each way in which an optimizer can differ.
TORCH: dict[str, dict[str, Any]] = {
  'torch.optim.SGD': {'lr': 0.3, 'momentum': 0.9},
  'torch.optim.AdamW': {'lr': 0.03, 'weight_decay': 0.1},
  'torch.optim.NAdam': {'lr': 0.03},
  'torch.optim.Adafactor': {'lr': 0.1},
  'torch.optim.Muon': {'lr': 0.1, 'adam_lr': 0.03},
  'torch.optim.LBFGS': {'max_iter': 4, 'line_search_fn': 'strong_wolfe'},
}
OPTAX: dict[str, dict[str, Any]] = {
  'optax.adamw': {'learning_rate': 0.03},
  'optax.lion': {'learning_rate': 0.03},
  'optax.contrib.muon': {'learning_rate': 0.1, 'adam_learning_rate': 0.03},
  'optax.contrib.schedule_free_adamw': {'learning_rate': 0.1},
  'optax.contrib.prodigy': {'estim_lr0': 0.01},
  'optax.contrib.ademamix': {'learning_rate': 0.03},
  'optax.lbfgs': {},
  'optax.polyak_sgd': {},
  'optax.contrib.sam': {
    'optimizer': 'optax.sgd(learning_rate=0.3)',
    'adv_optimizer': 'optax.sgd(learning_rate=0.05)',
    'opaque_mode': True,
  },
}


def settings(name: str, hyperparameters: dict[str, Any], **options: Any) -> Settings:
  return Settings.of(name, hyperparameters, options)


def described(outputs_first: bool) -> dict[str, roles.Parameter]:
  return {
    name: roles.describe(
      name,
      value.shape,
      ParameterType.BIAS if name.startswith('bias') else ParameterType.WEIGHT,
      is_output=name in OUTPUTS,
      outputs_first=outputs_first,
    )
    for name, value in toys.params().items()
  }


def with_roles(workload: Any, *, outputs_first: bool) -> Any:
  found = described(outputs_first)
  workload.param_shapes = {name: ShapeTuple(one.shape) for name, one in found.items()}
  workload.parameter_roles = {name: one.role for name, one in found.items()}
  workload.matrix_views = {name: one.matrix_view for name, one in found.items()}
  return workload
