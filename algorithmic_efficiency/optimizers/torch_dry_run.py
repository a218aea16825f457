"""The dry run of a PyTorch optimizer: a few steps on a linear regression."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from algorithmic_efficiency.backends import _torch_state, _torch_workload
from algorithmic_efficiency.optimizers import torch as torch_optimizers
from algorithmic_efficiency.optimizers.dry_run_batch import NUM_STEPS, STEP_HINT, batch
from algorithmic_efficiency.optimizers.settings import Settings


def run(settings: Settings) -> None:
  """Trains, evaluates, saves, restores, and trains again, on a GPU if there is one.

  Raises:
    UserError: the optimizer does not support the settings.
  """
  device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
  model, state = _trained(settings, device, NUM_STEPS)
  fresh_model, fresh = _trained(settings, device, 0)
  _torch_state.overlay(fresh_model, _torch_state.pack(model), device=device)
  _torch_state.overlay(fresh, _torch_state.pack(state), device=device)
  _step(_workload(fresh_model), fresh_model, fresh, NUM_STEPS)


def _trained(settings: Settings, device: torch.device, num_steps: int) -> tuple[Any, Any]:
  model = _Toy().to(device)
  workload = _workload(model)
  state = torch_optimizers.start(workload, model, settings)
  for step in range(num_steps):
    _step(workload, model, state, step)
  return model, state


def _step(workload: Any, model: nn.Module, state: dict[str, Any], step: int) -> None:
  common = {
    'workload': workload,
    'current_param_container': model,
    'current_params_types': None,
    'model_state': None,
    'hyperparameters': None,
    'loss_type': None,
    'optimizer_state': state,
    'eval_results': [],
    'global_step': step,
    'rng': [0, step],
  }
  device = next(model.parameters()).device
  tensors = {name: torch.tensor(value, device=device) for name, value in batch().items()}
  torch_optimizers.update_params(**common, batch=tensors)
  torch_optimizers.prepare_for_eval(**common)


class _Toy(nn.Module):
  def __init__(self) -> None:
    super().__init__()
    self.hidden = nn.Linear(6, 8)
    self.head = nn.Linear(8, 3)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.head(torch.tanh(self.hidden(x)))


def _workload(model: nn.Module) -> Any:
  described = _torch_workload.described(model, lambda name: name.startswith('head'))
  return SimpleNamespace(
    step_hint=STEP_HINT,
    metrics_logger=None,
    independent_examples=True,
    parameter_roles={one.name: one.role for one in described},
    matrix_views={one.name: one.matrix_view for one in described},
    model_fn=lambda params, augmented_and_preprocessed_input_batch, **_: (
      params(augmented_and_preprocessed_input_batch['inputs']),
      None,
    ),
    loss_fn=_loss,
  )


def _loss(label_batch: torch.Tensor, logits_batch: torch.Tensor, **_: Any) -> dict[str, Any]:
  summed = ((logits_batch - label_batch) ** 2).sum()
  return {'summed': summed, 'n_valid_examples': len(label_batch)}
