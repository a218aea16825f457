"""What JAX submissions share: one compiled training step around an optax transformation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from algorithmic_efficiency import spec
from algorithmic_efficiency.updates import options as step_options
from algorithmic_efficiency.updates.options import LOG_PERIOD_STEPS, StepOptions

TrainStep = Callable[..., tuple[Any, Any, Any, dict[str, jax.Array]]]


def start(
  workload: spec.Workload,
  model_params: spec.ParameterContainer,
  model_state: spec.ModelAuxiliaryState,
  optimizer: optax.GradientTransformation,
  options: StepOptions,
) -> tuple[Any, TrainStep]:
  """The optimizer state in AlgoPerf's form: a tree of arrays, and the function that updates it.

  The function is the whole training step, compiled once for the trial.

  Raises:
    UserError: the options do not suit the model.
  """
  if options.micro_batches > 1 and model_state:
    raise step_options.batch_norm_error()
  sharding = _shared_sharding(model_params)
  state = jax.jit(optimizer.init, out_shardings=sharding)(model_params)
  return state, compile_train_step(workload, optimizer.update, options, sharding)


def compile_train_step(
  workload: spec.Workload,
  update: optax.TransformUpdateFn,
  options: StepOptions,
  sharding: jax.sharding.Sharding | None = None,
) -> TrainStep:
  """A jitted (state, params, model_state, batch, rng) -> (state, params, model_state, metrics).

  The first three arguments are donated. On several devices the batch comes sharded over its first
  axis, so sums over it are those of the global batch; `sharding` is that of the results.
  """

  def train_step(state: Any, params: Any, model_state: Any, batch: Any, rng: Any) -> Any:
    gradients, loss, model_state = mean_gradients(
      workload, params, model_state, batch, rng, options
    )
    norm = optax.tree.norm(gradients)
    if options.grad_clip is not None:
      scale = jnp.minimum(1.0, options.grad_clip / (norm + 1e-6))
      gradients = jax.tree.map(lambda gradient: gradient * scale, gradients)
    updates, state = update(gradients, state, params)
    params = optax.apply_updates(params, updates)
    return state, params, model_state, {'loss': loss, 'grad_norm': norm}

  return jax.jit(train_step, donate_argnums=(0, 1, 2), out_shardings=sharding)


def mean_gradients(
  workload: spec.Workload,
  params: spec.ParameterContainer,
  model_state: spec.ModelAuxiliaryState,
  batch: dict[str, spec.Tensor],
  rng: spec.RandomState,
  options: StepOptions,
) -> tuple[Any, jax.Array, spec.ModelAuxiliaryState]:
  """Gradient of the mean loss over the valid examples, that loss, and the new model state."""

  def summed_loss(params: Any, batch: Any, rng: Any) -> tuple[jax.Array, Any]:
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

  differentiate = jax.value_and_grad(summed_loss, has_aux=True)
  if options.micro_batches > 1:
    gradients, summed, num_valid = _sums_over_parts(
      differentiate, params, batch, rng, options.micro_batches
    )
  else:
    (summed, (num_valid, model_state)), gradients = differentiate(params, batch, rng)
  gradients = jax.tree.map(lambda gradient: gradient / num_valid, gradients)
  return gradients, summed / num_valid, model_state


def _sums_over_parts(
  differentiate: Callable[..., Any], params: Any, batch: Any, rng: Any, num_parts: int
) -> tuple[Any, jax.Array, jax.Array]:
  """Gradients, losses and valid examples, summed over the parts of a batch one after the other."""

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
  """[batch, ...] -> [num_parts, batch / num_parts, ...], every num_parts-th example in a part.

  Strides instead of blocks, so that a batch sharded over devices is split without moving it.
  """

  def split(x: jax.Array) -> jax.Array:
    step_options.check_divisible(x.shape[0], num_parts)
    return jnp.moveaxis(x.reshape(x.shape[0] // num_parts, num_parts, *x.shape[1:]), 1, 0)

  return jax.tree.map(split, batch)


def _shared_sharding(params: spec.ParameterContainer) -> jax.sharding.Sharding | None:
  """The sharding of parameters on several devices; None on one, where nothing needs to be said."""
  sharding = jax.tree.leaves(params)[0].sharding
  return sharding if len(sharding.device_set) > 1 else None


# Schedules: learning rates by step, starting at 0.


def warmup_cosine(peak: float, *, step_hint: int, warmup_factor: float) -> optax.Schedule:
  """Linear to `peak` over `warmup_factor` of the step hint, then half a cosine to 0 at its end."""
  num_warmup = int(warmup_factor * step_hint)
  num_decay = max(step_hint - num_warmup, 1)
  return optax.warmup_cosine_decay_schedule(0.0, peak, num_warmup, num_warmup + num_decay)


def warmup_linear(
  peak: float,
  *,
  step_hint: int,
  warmup_factor: float,
  decay_steps_factor: float,
  end_factor: float,
) -> optax.Schedule:
  """Linear to `peak`, then linear to `end_factor * peak`, where it stays.

  The decay takes `decay_steps_factor` of the steps that the warm-up leaves of the step hint.
  """
  num_warmup = int(warmup_factor * step_hint)
  num_decay = max(int((step_hint - num_warmup) * decay_steps_factor), 1)
  warmup = optax.linear_schedule(0.0, peak, num_warmup)
  decay = optax.linear_schedule(peak, end_factor * peak, num_decay)
  return optax.join_schedules([warmup, decay], [num_warmup])


# The functions of a submission whose optimizer state is what `start` returns.


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
  """One training step; loss and gradient norm are logged now and then, without waiting for them."""
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
  """The next batch of the input queue."""
  return next(input_queue)
