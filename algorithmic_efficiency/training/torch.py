"""The training step that PyTorch submissions share, around an optimizer of torch.optim."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import distributed, nn

from algorithmic_efficiency import spec
from algorithmic_efficiency.training import options as step_options
from algorithmic_efficiency.training.options import LOG_PERIOD_STEPS, StepOptions

_CLIP_EPSILON = 1e-6


def start(
  model: nn.Module,
  optimizer: torch.optim.Optimizer,
  factor: Callable[[int], float],
  options: StepOptions,
) -> dict[str, Any]:
  """Returns the optimizer state in AlgoPerf's form: objects with `state_dict`, by name.

  Args:
    factor: schedule; maps a step to the factor of the learning rate.
    options: those of the steps, which the first step checks.
  """
  scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
  return {'optimizer': optimizer, 'scheduler': scheduler}


def train_step(
  workload: spec.Workload,
  model: nn.Module,
  batch: dict[str, spec.Tensor],
  rng: spec.RandomState,
  optimizer_state: dict[str, Any],
  options: StepOptions,
  global_step: int,
) -> None:
  """Takes one step of the model's parameters in place; logs loss and gradient norm periodically."""
  optimizer = optimizer_state['optimizer']
  optimizer.zero_grad(set_to_none=True)
  fill_gradients(workload, model, batch, rng, options, global_step)
  optimizer.step()
  optimizer_state['scheduler'].step()


def fill_gradients(
  workload: spec.Workload,
  model: nn.Module,
  batch: dict[str, spec.Tensor],
  rng: spec.RandomState,
  options: StepOptions,
  global_step: int | None,
  *,
  update_batch_norm: bool = True,
) -> torch.Tensor:
  """Adds the clipped gradient of the mean loss over the global batch to `grad`; returns the loss.

  Loss and gradient norm are logged periodically if a `global_step` is given.
  """
  accumulate = _gradients if options.micro_batches == 1 else _gradients_in_parts
  loss = accumulate(workload, model, batch, rng, options, update_batch_norm)
  due = global_step is not None and global_step % LOG_PERIOD_STEPS == 0
  logs = due and workload.metrics_logger is not None
  if options.grad_clip is not None or logs:
    norm = _clipped_norm(model, options.grad_clip)
    if logs:
      workload.metrics_logger.append_scalar_metrics({'loss': loss, 'grad_norm': norm}, global_step)
  return loss


def _gradients(
  workload: spec.Workload,
  model: nn.Module,
  batch: dict[str, spec.Tensor],
  rng: spec.RandomState,
  options: StepOptions,
  update_batch_norm: bool = True,
) -> torch.Tensor:
  """Computes the gradient of the mean loss over the global batch; returns that loss."""
  summed, num_valid = _summed_loss(workload, model, batch, rng, options, update_batch_norm)
  if _num_ranks() == 1:
    loss = summed / num_valid
    loss.backward()
    return loss.detach()
  sums = _over_ranks(summed, num_valid)
  # DistributedDataParallel averages gradients over ranks, but the sum is needed.
  (summed * (_num_ranks() / sums[1])).backward()
  return sums[0] / sums[1]


def _gradients_in_parts(
  workload: spec.Workload,
  model: nn.Module,
  batch: dict[str, spec.Tensor],
  rng: spec.RandomState,
  options: StepOptions,
  update_batch_norm: bool = True,
) -> torch.Tensor:
  """Does the same as `_gradients` in parts of the batch; ranks communicate after the last part.

  Raises:
    UserError: the workload does not support parts.
  """
  step_options.check_independent(workload, options.micro_batches)
  part_sums = []
  for index in range(options.micro_batches):
    last = index == options.micro_batches - 1
    part = _part(batch, index, options.micro_batches)
    with contextlib.nullcontext() if last else _no_sync(model):
      summed, num_valid = _summed_loss(workload, model, part, rng, options, update_batch_norm)
      summed.backward()
    part_sums.append(torch.stack([summed.detach(), num_valid]))
  sums = torch.stack(part_sums).sum(0)
  if _num_ranks() > 1:
    distributed.all_reduce(sums)
  for parameter in model.parameters():
    if parameter.grad is not None:
      parameter.grad.mul_(_num_ranks() / sums[1])
  return sums[0] / sums[1]


def _summed_loss(
  workload: spec.Workload,
  model: nn.Module,
  batch: dict[str, spec.Tensor],
  rng: spec.RandomState,
  options: StepOptions,
  update_batch_norm: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
  """Returns the summed loss of this rank's examples, and the number of valid ones."""
  logits, _ = workload.model_fn(
    params=model,
    augmented_and_preprocessed_input_batch=batch,
    model_state=None,
    mode=spec.ForwardPassMode.TRAIN,
    rng=rng,
    update_batch_norm=update_batch_norm,
    dropout_rate=options.dropout_rate,
  )
  loss = workload.loss_fn(
    label_batch=batch['targets'],
    logits_batch=logits,
    mask_batch=batch.get('weights'),
    label_smoothing=options.label_smoothing,
  )
  summed = loss['summed']
  return summed, torch.as_tensor(loss['n_valid_examples'], dtype=summed.dtype, device=summed.device)


def _over_ranks(summed: torch.Tensor, num_valid: torch.Tensor) -> torch.Tensor:
  sums = torch.stack([summed.detach(), num_valid])
  distributed.all_reduce(sums)
  return sums


def _num_ranks() -> int:
  if distributed.is_available() and distributed.is_initialized():
    return distributed.get_world_size()
  return 1


def _no_sync(model: nn.Module) -> contextlib.AbstractContextManager[Any]:
  """Prevents DistributedDataParallel from reducing the gradients of this backward pass."""
  no_sync = getattr(model, 'no_sync', None)
  return no_sync() if no_sync is not None else contextlib.nullcontext()


def _part(batch: Any, index: int, num_parts: int) -> Any:
  """Returns rows [index * rows / num_parts, (index + 1) * rows / num_parts) of all fields."""
  if isinstance(batch, torch.Tensor):
    step_options.check_divisible(len(batch), num_parts)
    size = len(batch) // num_parts
    return batch[index * size : (index + 1) * size]
  if isinstance(batch, dict):
    return {name: _part(value, index, num_parts) for name, value in batch.items()}
  if isinstance(batch, tuple):
    parts = (_part(value, index, num_parts) for value in batch)
    return type(batch)(*parts) if hasattr(batch, '_fields') else tuple(parts)
  return batch


def _clipped_norm(model: nn.Module, limit: float | None) -> torch.Tensor:
  """Returns the global norm of the gradient; then scales the gradient down to `limit`, if given."""
  gradients = [p.grad for p in model.parameters() if p.grad is not None]
  norm = nn.utils.get_total_norm(gradients)
  if limit is not None:
    scale = torch.clamp(limit / (norm + _CLIP_EPSILON), max=1.0)
    for gradient in gradients:
      gradient.mul_(scale)
  return norm


# Schedules: factor of the learning rate by step, from step 0.


def warmup_cosine(*, step_hint: int, warmup_factor: float) -> Callable[[int], float]:
  """Rises linearly to 1 over `warmup_factor` of the step hint, then decays as half a cosine.

  It reaches 0 at the end of the step hint.
  """
  num_warmup = int(warmup_factor * step_hint)
  num_decay = max(step_hint - num_warmup, 1)

  def factor(step: int) -> float:
    if step < num_warmup:
      return step / num_warmup
    return 0.5 * (1 + math.cos(math.pi * min((step - num_warmup) / num_decay, 1.0)))

  return factor


def warmup_constant(*, step_hint: int, warmup_factor: float) -> Callable[[int], float]:
  """Rises linearly to 1 over `warmup_factor` of the step hint, then stays at 1."""
  num_warmup = int(warmup_factor * step_hint)
  return lambda step: step / num_warmup if step < num_warmup else 1.0


def warmup_stable_decay(
  *, step_hint: int, warmup_factor: float, decay_factor: float
) -> Callable[[int], float]:
  """Rises linearly to 1, stays there, and falls linearly to 0.

  The rise takes the first `warmup_factor` of the step hint, the fall the last `decay_factor`.
  """
  num_decay = max(int(decay_factor * step_hint), 1)
  rising = warmup_constant(step_hint=step_hint, warmup_factor=warmup_factor)
  return lambda step: min(rising(step), max(step_hint - step, 0) / num_decay)


def warmup_linear(
  *, step_hint: int, warmup_factor: float, decay_steps_factor: float, end_factor: float
) -> Callable[[int], float]:
  """Rises linearly to 1, then falls linearly to `end_factor` and stays.

  The fall takes `decay_steps_factor` of the steps of the hint after the warm-up.
  """
  num_warmup = int(warmup_factor * step_hint)
  num_decay = max(int((step_hint - num_warmup) * decay_steps_factor), 1)

  def factor(step: int) -> float:
    if step < num_warmup:
      return step / num_warmup
    return 1 + (end_factor - 1) * min((step - num_warmup) / num_decay, 1.0)

  return factor


# Functions of a submission whose optimizer state comes from `start`.


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
  """Takes one training step, with the options among the hyperparameters."""
  options = StepOptions.of(hyperparameters)
  train_step(workload, current_param_container, batch, rng, optimizer_state, options, global_step)
  return optimizer_state, current_param_container, model_state


def data_selection(
  workload: spec.Workload,
  input_queue: Iterator[dict[str, spec.Tensor]],
  optimizer_state: spec.OptimizerState,
  current_param_container: spec.ParameterContainer,
  model_state: spec.ModelAuxiliaryState,
  hyperparameters: spec.Hyperparameters,
  global_step: int,
  rng: spec.RandomState,
) -> dict[str, spec.Tensor]:
  """Returns the next batch of the input queue."""
  return next(input_queue)
