"""The training step that JAX submissions share: compiled once, around an optax transformation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from algorithmic_efficiency import spec
from algorithmic_efficiency.training import options as step_options
from algorithmic_efficiency.training.options import LOG_PERIOD_STEPS, StepOptions

TrainStep = Callable[..., tuple[Any, Any, Any, dict[str, jax.Array]]]


def start(
  workload: spec.Workload,
  model_params: spec.ParameterContainer,
  model_state: spec.ModelAuxiliaryState,
  optimizer: optax.GradientTransformation,
  options: StepOptions,
) -> tuple[Any, TrainStep]:
  """Returns the optimizer state in AlgoPerf's form: a tree of arrays and the update function.

  The update function is the whole training step, compiled once a trial.

  Raises:
    UserError: the workload does not support the options.
  """
  step_options.check_independent(workload, options.micro_batches)
  sharding = _shared_sharding(model_params)
  state = jax.jit(optimizer.init, out_shardings=sharding)(model_params)
  return state, compile_train_step(workload, _with_extra_arguments(optimizer), options, sharding)


def _with_extra_arguments(
  optimizer: optax.GradientTransformation,
) -> optax.TransformUpdateExtraArgsFn:
  """Returns the update of an optimizer, without the extra arguments that it does not accept."""
  update = optax.with_extra_args_support(optimizer).update
  parameters = inspect.signature(update).parameters
  if any(one.kind == one.VAR_KEYWORD for one in parameters.values()):
    return update

  def chosen(gradients: Any, state: Any, params: Any, **extra: Any) -> tuple[Any, Any]:
    taken = {name: value for name, value in extra.items() if name in parameters}
    return update(gradients, state, params, **taken)

  return chosen


def compile_train_step(
  workload: spec.Workload,
  update: optax.TransformUpdateExtraArgsFn,
  options: StepOptions,
  sharding: jax.sharding.Sharding | None = None,
) -> TrainStep:
  """Jits (state, params, model_state, batch, rng) -> (state, params, model_state, metrics).

  The first three arguments are donated. On several devices the batch is sharded over its first
  axis, so sums over it are global. `sharding` is that of the results.

  An update may require extra arguments of optax. `value` and `grad` are the mean loss of the batch
  and its gradient. `value_fn`, `obj_fn` and `grad_fn` compute them at other parameters.
  """

  def train_step(state: Any, params: Any, model_state: Any, batch: Any, rng: Any) -> Any:
    gradients, loss, new_model_state = mean_gradients(
      workload, params, model_state, batch, rng, options
    )

    def loss_at(params: Any) -> jax.Array:
      if options.micro_batches > 1:
        raise step_options.whole_batch_error()
      summed, (num_valid, _) = _summed_loss(workload, params, model_state, batch, rng, options)
      return summed / num_valid

    extra = _extra_arguments(loss, gradients, loss_at)
    norm = optax.tree.norm(gradients)
    if options.grad_clip is not None:
      scale = jnp.minimum(1.0, options.grad_clip / (norm + 1e-6))
      gradients = jax.tree.map(lambda gradient: gradient * scale, gradients)
    updates, state = update(gradients, state, params, **extra)
    params = optax.apply_updates(params, updates)
    return state, params, new_model_state, {'loss': loss, 'grad_norm': norm}

  return jax.jit(train_step, donate_argnums=(0, 1, 2), out_shardings=sharding)


def _extra_arguments(
  loss: jax.Array, gradients: Any, loss_at: Callable[[Any], jax.Array]
) -> dict[str, Any]:
  """Returns the extra arguments of optax by name; unused ones cost nothing."""

  def gradients_at(params: Any, step: Any = None) -> Any:
    return jax.grad(loss_at)(params)

  # A line search passes unknown arguments on to its function.
  def value_at(params: Any, obj_fn: Any = None, grad_fn: Any = None) -> jax.Array:
    return loss_at(params)

  return {
    'value': loss,
    'grad': gradients,
    'value_fn': value_at,
    'obj_fn': loss_at,
    'grad_fn': gradients_at,
  }


def mean_gradients(
  workload: spec.Workload,
  params: spec.ParameterContainer,
  model_state: spec.ModelAuxiliaryState,
  batch: dict[str, spec.Tensor],
  rng: spec.RandomState,
  options: StepOptions,
) -> tuple[Any, jax.Array, spec.ModelAuxiliaryState]:
  """Returns gradient and value of the mean loss over valid examples, and the new model state."""

  def summed_loss(params: Any, batch: Any, rng: Any) -> tuple[jax.Array, Any]:
    return _summed_loss(workload, params, model_state, batch, rng, options)

  differentiate = jax.value_and_grad(summed_loss, has_aux=True)
  if options.micro_batches > 1:
    gradients, summed, num_valid = _sums_over_parts(
      differentiate, params, batch, rng, options.micro_batches
    )
  else:
    (summed, (num_valid, model_state)), gradients = differentiate(params, batch, rng)
  gradients = jax.tree.map(lambda gradient: gradient / num_valid, gradients)
  return gradients, summed / num_valid, model_state


def _summed_loss(
  workload: spec.Workload,
  params: spec.ParameterContainer,
  model_state: spec.ModelAuxiliaryState,
  batch: dict[str, spec.Tensor],
  rng: spec.RandomState,
  options: StepOptions,
) -> tuple[jax.Array, tuple[jax.Array, spec.ModelAuxiliaryState]]:
  """Returns the summed loss, and a pair of the number of valid examples and the new state."""
  logits, new_state = workload.model_fn(
    params,
    batch,
    model_state,
    spec.ForwardPassMode.TRAIN,
    rng,
    update_batch_norm=True,
    dropout_rate=options.dropout_rate,
  )
  loss = workload.loss_fn(
    label_batch=batch['targets'],
    logits_batch=logits,
    mask_batch=batch.get('weights'),
    label_smoothing=options.label_smoothing,
  )
  return loss['summed'], (loss['n_valid_examples'], new_state)


def _sums_over_parts(
  differentiate: Callable[..., Any], params: Any, batch: Any, rng: Any, num_parts: int
) -> tuple[Any, jax.Array, jax.Array]:
  """Returns gradients, losses and valid examples, summed over the parts of a batch in sequence."""

  def sums(part: Any, rng: Any) -> tuple[Any, jax.Array, jax.Array]:
    (summed, (num_valid, _)), gradients = differentiate(params, part, rng)
    return gradients, summed, jnp.asarray(num_valid)

  def add(total: Any, inputs: Any) -> tuple[Any, None]:
    return jax.tree.map(jnp.add, total, sums(*inputs)), None

  inputs = (_split(batch, num_parts), jax.random.split(rng, num_parts))
  first = jax.tree.map(lambda x: x[0], inputs)
  zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(sums, *first))
  return jax.lax.scan(add, zero, inputs)[0]


def _split(batch: Any, num_parts: int) -> Any:
  """Reshapes [batch, ...] to [num_parts, batch / num_parts, ...].

  A part is every num_parts-th example, so that a sharded batch is split without moving data.
  """

  def split(x: jax.Array) -> jax.Array:
    step_options.check_divisible(x.shape[0], num_parts)
    return jnp.moveaxis(x.reshape(x.shape[0] // num_parts, num_parts, *x.shape[1:]), 1, 0)

  return jax.tree.map(split, batch)


def _shared_sharding(params: spec.ParameterContainer) -> jax.sharding.Sharding | None:
  """Returns the sharding of parameters on several devices; None on one device."""
  sharding = jax.tree.leaves(params)[0].sharding
  return sharding if len(sharding.device_set) > 1 else None


# Schedules: learning rate by step, from step 0.


def warmup_cosine(peak: float, *, step_hint: int, warmup_factor: float) -> optax.Schedule:
  """Rises linearly to `peak` over `warmup_factor` of the step hint, then decays as half a cosine.

  It reaches 0 at the end of the step hint.
  """
  num_warmup = int(warmup_factor * step_hint)
  num_decay = max(step_hint - num_warmup, 1)
  return optax.warmup_cosine_decay_schedule(0.0, peak, num_warmup, num_warmup + num_decay)


def warmup_constant(peak: float, *, step_hint: int, warmup_factor: float) -> optax.Schedule:
  """Rises linearly to `peak` over `warmup_factor` of the step hint, then stays at `peak`."""
  num_warmup = int(warmup_factor * step_hint)
  return optax.linear_schedule(0.0, peak, num_warmup) if num_warmup else lambda step: peak


def warmup_stable_decay(
  peak: float, *, step_hint: int, warmup_factor: float, decay_factor: float
) -> optax.Schedule:
  """Rises linearly to `peak`, stays there, and falls linearly to 0.

  The rise takes the first `warmup_factor` of the step hint, the fall the last `decay_factor`.
  """
  num_decay = max(int(decay_factor * step_hint), 1)
  rising = warmup_constant(peak, step_hint=step_hint, warmup_factor=warmup_factor)
  return lambda step: jnp.minimum(rising(step), peak * jnp.clip((step_hint - step) / num_decay, 0))


def warmup_linear(
  peak: float,
  *,
  step_hint: int,
  warmup_factor: float,
  decay_steps_factor: float,
  end_factor: float,
) -> optax.Schedule:
  """Rises linearly to `peak`, then falls linearly to `end_factor * peak` and stays.

  The fall takes `decay_steps_factor` of the steps of the hint after the warm-up.
  """
  num_warmup = int(warmup_factor * step_hint)
  num_decay = max(int((step_hint - num_warmup) * decay_steps_factor), 1)
  warmup = optax.linear_schedule(0.0, peak, num_warmup)
  decay = optax.linear_schedule(peak, end_factor * peak, num_decay)
  return optax.join_schedules([warmup, decay], [num_warmup])


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
  """Takes one training step; logs loss and gradient norm periodically, without waiting for them."""
  state, train_step = optimizer_state
  state, params, model_state, metrics = train_step(
    state, current_param_container, model_state, batch, rng
  )
  if global_step % LOG_PERIOD_STEPS == 0 and workload.metrics_logger is not None:
    workload.metrics_logger.append_scalar_metrics(metrics, global_step)
  return (state, train_step), params, model_state


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
