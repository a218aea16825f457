"""Training steps around any optimizer with the interface of torch.optim, by import name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn

from algorithmic_efficiency import errors, spec
from algorithmic_efficiency.optimizers import arguments, requirements
from algorithmic_efficiency.optimizers.settings import Settings
from algorithmic_efficiency.training import options as step_options
from algorithmic_efficiency.training import torch as training
from algorithmic_efficiency.training.options import StepOptions

_DECAY_FACTOR = 0.2  # of the step hint, at the end of a wsd schedule
_WRAPPER = 'module.'  # prefix of parameter names under DistributedDataParallel
_OTHERS = 'adam_'  # prefix of hyperparameters of the optimizer for all other parameters

Step = Callable[..., None]


def start(workload: spec.Workload, model: nn.Module, settings: Settings) -> dict[str, Any]:
  """Returns the optimizer state: objects with `state_dict` by name, and the step function.

  Raises:
    UserError: the optimizer or the model does not support the settings.
  """
  step_options.check_independent(workload, settings.step.micro_batches)
  optimizer = arguments.load(settings.optimizer)
  factor = _factor(settings, workload.step_hint)
  if requirements.needs_of(optimizer).step == 'matrices':
    return _start_matrices(workload, model, optimizer, factor, settings)
  values = requirements.bound(optimizer, settings.optimizer, settings.hyperparameters, given=1)
  state = training.start(
    model, _made(optimizer, settings, model.parameters(), values), factor, settings.step
  )
  step = _STEPS[requirements.needs_of(optimizer).step]
  return {**state, 'step': functools.partial(step, options=settings.step)}


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
  """Takes one training step with the state that `start` returned."""
  _set_mode(optimizer_state['optimizer'], 'train')
  optimizer_state['step'](
    workload, current_param_container, batch, rng, optimizer_state, global_step=global_step
  )
  return optimizer_state, current_param_container, model_state


def prepare_for_eval(
  workload: spec.Workload,
  current_param_container: spec.ParameterContainer,
  current_params_types: spec.ParameterTypeTree,
  model_state: spec.ModelAuxiliaryState,
  hyperparameters: spec.Hyperparameters,
  loss_type: spec.LossType,
  optimizer_state: spec.OptimizerState,
  eval_results: list[tuple[int, Any]],
  global_step: int,
  rng: spec.RandomState,
) -> spec.UpdateReturn:
  """Swaps in the parameters that the optimizer evaluates."""
  _set_mode(optimizer_state['optimizer'], 'eval')
  return optimizer_state, current_param_container, model_state


def _set_mode(optimizer: torch.optim.Optimizer, mode: str) -> None:
  """Calls `train` or `eval` of an optimizer that has both; a repeated call has no effect."""
  if hasattr(optimizer, 'train') and hasattr(optimizer, 'eval'):
    getattr(optimizer, mode)()


def _factor(settings: Settings, step_hint: int) -> Callable[[int], float]:
  schedules: Mapping[str, Callable[..., Callable[[int], float]]] = {
    'constant': training.warmup_constant,
    'linear': functools.partial(training.warmup_linear, decay_steps_factor=1.0, end_factor=0.0),
    'warmup_cosine': training.warmup_cosine,
    'wsd': functools.partial(training.warmup_stable_decay, decay_factor=_DECAY_FACTOR),
  }
  schedule = schedules[settings.options['schedule']]
  return schedule(step_hint=step_hint, warmup_factor=settings.options['warmup'])


def _made(
  optimizer: Callable[..., Any], settings: Settings, params: Any, values: Mapping[str, Any]
) -> torch.optim.Optimizer:
  try:
    return optimizer(params, **values)
  except (TypeError, ValueError, AssertionError) as error:
    raise errors.UserError(f'{settings.optimizer} refuses its arguments: {error}.') from error
  except Exception as error:  # others' code may raise any
    raise requirements.needs_more_error(settings.optimizer, error) from error


# Steps.


def _step_with_closure(
  workload: spec.Workload,
  model: nn.Module,
  batch: dict[str, spec.Tensor],
  rng: spec.RandomState,
  state: dict[str, Any],
  *,
  options: StepOptions,
  global_step: int,
  first: bool = False,
) -> None:
  """Takes a step whose optimizer evaluates loss and gradients itself, with the same dropout.

  Args:
    first: True to compute loss and gradients once before the step.
  """
  optimizer = state['optimizer']
  evaluations = _closure(workload, model, batch, rng, optimizer, options, global_step)
  if first:
    next(evaluations)
  optimizer.step(lambda: next(evaluations))
  state['scheduler'].step()


def _closure(
  workload: spec.Workload,
  model: nn.Module,
  batch: dict[str, spec.Tensor],
  rng: spec.RandomState,
  optimizer: torch.optim.Optimizer,
  options: StepOptions,
  global_step: int,
) -> Iterator[torch.Tensor]:
  """Returns a closure that computes the loss and its gradients.

  Only the first call updates batch norm statistics and the log.
  """
  is_first = True
  while True:
    torch.manual_seed(int(rng[0]) + _rank())
    optimizer.zero_grad(set_to_none=True)
    with torch.enable_grad():
      loss = training.fill_gradients(
        workload,
        model,
        batch,
        rng,
        options,
        global_step if is_first else None,
        update_batch_norm=is_first,
      )
    yield loss
    is_first = False


def _rank() -> int:
  return distributed.get_rank() if distributed.is_initialized() else 0


_STEPS: Mapping[str, Step] = {
  'gradients': training.train_step,
  'closure': _step_with_closure,
  'two_passes': functools.partial(_step_with_closure, first=True),
}


# Optimizers that train only matrices.


def _start_matrices(
  workload: spec.Workload,
  model: nn.Module,
  optimizer: Callable[..., Any],
  factor: Callable[[int], float],
  settings: Settings,
) -> dict[str, Any]:
  """Creates the optimizer for hidden matrices, convolutions and experts, and AdamW for the rest.

  The optimizer gets the matrices of each parameter as tensors that share its memory. AdamW gets the
  hyperparameters that begin with `adam_`. Its learning rate is the same unless given.
  """
  own, others = _parted(settings.hyperparameters)
  values = requirements.bound(optimizer, settings.optimizer, own, given=1)
  others = {**requirements.rates(optimizer, values), **others}
  hidden, rest = _hidden(workload, model)
  if not hidden:
    raise requirements.no_matrices_error(settings.optimizer)
  made = _made(optimizer, settings, [matrix for one in hidden for matrix in one.matrices], values)
  adamw = arguments.bind(torch.optim.AdamW, 'the AdamW beside it', others, given=1)
  state = training.start(model, made, factor, settings.step)
  beside = training.start(model, torch.optim.AdamW(rest, **adamw), factor, settings.step)
  step = functools.partial(_step_matrices, options=settings.step, hidden=hidden)
  return {**state, 'beside': beside, 'step': step}


def _parted(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  own = {key: value for key, value in values.items() if not key.startswith(_OTHERS)}
  others = {key.removeprefix(_OTHERS): value for key, value in values.items() if key not in own}
  return own, others


@dataclass(frozen=True)
class _Hidden:
  """A parameter and its matrices, which share its memory."""

  parameter: nn.Parameter
  view: spec.MatrixView
  matrices: tuple[torch.Tensor, ...]

  def share_gradient(self) -> None:
    """Assigns each matrix its part of the parameter's gradient."""
    gradients = self.view.split(self.parameter.grad)
    for matrix, gradient in zip(self.matrices, gradients, strict=True):
      matrix.grad = gradient


def _hidden(workload: spec.Workload, model: nn.Module) -> tuple[list[_Hidden], list[nn.Parameter]]:
  """Returns the parameters that consist of hidden matrices, and the other parameters."""
  hidden, rest = [], []
  for name, parameter in model.named_parameters():
    name = name.removeprefix(_WRAPPER)
    if workload.parameter_roles[name] in requirements.MATRIX_ROLES:
      view = workload.matrix_views[name]
      hidden.append(_Hidden(parameter, view, tuple(view.split(parameter.detach()))))
    else:
      rest.append(parameter)
  return hidden, rest


def _step_matrices(
  workload: spec.Workload,
  model: nn.Module,
  batch: dict[str, spec.Tensor],
  rng: spec.RandomState,
  state: dict[str, Any],
  *,
  options: StepOptions,
  global_step: int,
  hidden: list[_Hidden],
) -> None:
  model.zero_grad(set_to_none=True)
  training.fill_gradients(workload, model, batch, rng, options, global_step)
  for one in hidden:
    one.share_gradient()
  for part in (state, state['beside']):
    part['optimizer'].step()
    part['scheduler'].step()
