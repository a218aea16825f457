"""Three entries as people have written them for AlgoPerf, from which `entries.py` makes others."""

from __future__ import annotations

SIZES = """
def get_batch_size(workload_name):
  sizes = {'criteo1tb': 262_144, 'imagenet_resnet': 1024, 'mnist': 1024}
  if workload_name not in sizes:
    raise ValueError(f'Unsupported workload name: {workload_name}.')
  return sizes[workload_name]


def data_selection(
    workload: spec.Workload,
    input_queue: Iterator[Dict[str, spec.Tensor]],
    optimizer_state: spec.OptimizerState,
    current_param_container: spec.ParameterContainer,
    model_state: spec.ModelAuxiliaryState,
    hyperparameters: spec.Hyperparameters,
    global_step: int,
    rng: spec.RandomState,
) -> Dict[str, spec.Tensor]:
  del workload, optimizer_state, current_param_container, model_state
  del hyperparameters, global_step, rng
  return next(input_queue)
"""

# In the manner of 2024: every array has a leading axis for the devices.
PMAP = (
  """
import functools
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from flax import jax_utils
import jax
from jax import lax
import jax.numpy as jnp
import optax

from algorithmic_efficiency import spec


def make_optimizer(hyperparameters):
  return optax.adamw(hyperparameters.learning_rate, b1=hyperparameters.beta1, weight_decay=1e-4)


def init_optimizer_state(
    workload: spec.Workload,
    model_params: spec.ParameterContainer,
    model_state: spec.ModelAuxiliaryState,
    hyperparameters: spec.Hyperparameters,
    rng: spec.RandomState,
) -> spec.OptimizerState:
  del model_params, model_state, rng
  zeros = jax.tree_map(lambda shape: jnp.zeros(shape.shape_tuple), workload.param_shapes)
  optimizer = make_optimizer(hyperparameters)
  return jax_utils.replicate(optimizer.init(zeros)), optimizer.update


@functools.partial(
    jax.pmap,
    axis_name='batch',
    in_axes=(None, None, 0, 0, 0, 0, 0, None),
    static_broadcasted_argnums=(0, 1),
    donate_argnums=(2, 3, 4))
def pmapped_train_step(workload, update_fn, optimizer_state, params, model_state, batch, rng,
                       label_smoothing):
  def summed_loss(params):
    logits, new_state = workload.model_fn(
        params, batch, model_state, spec.ForwardPassMode.TRAIN, rng, update_batch_norm=True)
    losses = workload.loss_fn(
        label_batch=batch['targets'],
        logits_batch=logits,
        mask_batch=batch.get('weights'),
        label_smoothing=label_smoothing)
    return losses['summed'], (losses['n_valid_examples'], new_state)

  (summed, (count, new_state)), grads = jax.value_and_grad(summed_loss, has_aux=True)(params)
  summed, count, grads = lax.psum((summed, count, grads), axis_name='batch')
  grads = jax.tree_map(lambda g: g / count, grads)
  updates, optimizer_state = update_fn(grads, optimizer_state, params)
  params = optax.apply_updates(params, updates)
  return optimizer_state, params, new_state, summed / count


def update_params(
    workload: spec.Workload,
    current_param_container: spec.ParameterContainer,
    current_params_types: spec.ParameterTypeTree,
    model_state: spec.ModelAuxiliaryState,
    hyperparameters: spec.Hyperparameters,
    batch: Dict[str, spec.Tensor],
    loss_type: spec.LossType,
    optimizer_state: spec.OptimizerState,
    eval_results: List[Tuple[int, float]],
    global_step: int,
    rng: spec.RandomState,
) -> spec.UpdateReturn:
  del current_params_types, loss_type, eval_results
  optimizer_state, update_fn = optimizer_state
  rngs = jax.random.split(rng, jax.local_device_count())
  label_smoothing = getattr(hyperparameters, 'label_smoothing', 0.0)
  optimizer_state, params, model_state, loss = pmapped_train_step(
      workload, update_fn, optimizer_state, current_param_container, model_state, batch, rngs,
      label_smoothing)
  if global_step % 10 == 0 and workload.metrics_logger is not None:
    workload.metrics_logger.append_scalar_metrics({'loss': loss[0]}, global_step)
  return (optimizer_state, update_fn), params, model_state

"""
  + SIZES
)

# In the manner of 2025: ordinary arrays on a mesh.
JIT = (
  """
import functools
from typing import Any, Dict, Iterator, List, Optional, Tuple

import jax
import jax.numpy as jnp
import optax

from algoperf import jax_sharding_utils, spec

LEARNING_RATE = 0.01
DROPOUT_RATE = 0.1


def make_optimizer(workload):
  schedule = optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, 5, workload.step_hint)
  return optax.nadamw(schedule, weight_decay=1e-4)


def init_optimizer_state(
    workload: spec.Workload,
    model_params: spec.ParameterContainer,
    model_state: spec.ModelAuxiliaryState,
    hyperparameters: spec.Hyperparameters,
    rng: spec.RandomState,
) -> spec.OptimizerState:
  del model_params, model_state, rng
  assert hyperparameters is None
  zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape_tuple), workload.param_shapes)
  optimizer = make_optimizer(workload)
  return optimizer.init(zeros), optimizer.update


def mean_loss(params, workload, model_state, batch, rng, update_batch_norm=True):
  logits, new_state = workload.model_fn(
      params, batch, model_state, spec.ForwardPassMode.TRAIN, rng,
      update_batch_norm=update_batch_norm, dropout_rate=DROPOUT_RATE)
  losses = workload.loss_fn(
      label_batch=batch['targets'], logits_batch=logits, mask_batch=batch.get('weights'))
  return losses['summed'] / losses['n_valid_examples'], new_state


def train_step(workload, update_fn, optimizer_state, params, model_state, batch, rng):
  (loss, new_state), grads = jax.value_and_grad(mean_loss, has_aux=True)(
      params, workload, model_state, batch, rng)
  updates, optimizer_state = update_fn(transformed(grads), optimizer_state, params)
  return optimizer_state, optax.apply_updates(params, updates), new_state, loss


def transformed(grads):
  return grads


@functools.cache
def jitted_train_step():
  everywhere = jax_sharding_utils.get_replicate_sharding()
  cut = jax_sharding_utils.get_batch_dim_sharding()
  return jax.jit(
      train_step,
      static_argnums=(0, 1),
      donate_argnums=(2, 3, 4),
      in_shardings=(everywhere, everywhere, everywhere, cut, everywhere),
      out_shardings=everywhere)


def update_params(
    workload: spec.Workload,
    current_param_container: spec.ParameterContainer,
    current_params_types: spec.ParameterTypeTree,
    model_state: spec.ModelAuxiliaryState,
    hyperparameters: spec.Hyperparameters,
    batch: Dict[str, spec.Tensor],
    loss_type: spec.LossType,
    optimizer_state: spec.OptimizerState,
    eval_results: List[Tuple[int, float]],
    global_step: int,
    rng: spec.RandomState,
    train_state: Optional[Dict[str, Any]] = None,
) -> spec.UpdateReturn:
  assert not train_state['training_complete']
  optimizer_state, update_fn = optimizer_state
  optimizer_state, params, model_state, loss = jitted_train_step()(
      workload, update_fn, optimizer_state, current_param_container, model_state, batch, rng)
  return (optimizer_state, update_fn), params, model_state


def prepare_for_eval(
    workload: spec.Workload,
    current_param_container: spec.ParameterContainer,
    current_params_types: spec.ParameterTypeTree,
    model_state: spec.ModelAuxiliaryState,
    hyperparameters: spec.Hyperparameters,
    loss_type: spec.LossType,
    optimizer_state: spec.OptimizerState,
    eval_results: List[Tuple[int, float]],
    global_step: int,
    rng: spec.RandomState,
) -> spec.UpdateReturn:
  return optimizer_state, current_param_container, model_state

"""
  + SIZES
)

TORCH = (
  """
from typing import Any, Dict, Iterator, List, Optional, Tuple

import torch
import torch.distributed.nn as dist_nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from algorithmic_efficiency import spec
from algorithmic_efficiency.pytorch_utils import pytorch_setup

USE_PYTORCH_DDP = pytorch_setup()[0]
LEARNING_RATE = 0.01


def init_optimizer_state(
    workload: spec.Workload,
    model_params: spec.ParameterContainer,
    model_state: spec.ModelAuxiliaryState,
    hyperparameters: spec.Hyperparameters,
    rng: spec.RandomState,
) -> spec.OptimizerState:
  del model_state, rng
  optimizer = torch.optim.AdamW(
      model_params.parameters(), lr=getattr(hyperparameters, 'learning_rate', LEARNING_RATE))
  warmup = LinearLR(optimizer, start_factor=0.1, end_factor=1.0, total_iters=5)
  cosine = CosineAnnealingLR(optimizer, T_max=max(workload.step_hint - 5, 1))
  schedule = SequentialLR(optimizer, schedulers=[warmup, cosine], milestones=[5])
  return {'optimizer': optimizer, 'scheduler': schedule}


def mean_loss(workload, model, model_state, batch, rng, hyperparameters, update_batch_norm=True):
  logits, new_state = workload.model_fn(
      params=model,
      augmented_and_preprocessed_input_batch=batch,
      model_state=model_state,
      mode=spec.ForwardPassMode.TRAIN,
      rng=rng,
      update_batch_norm=update_batch_norm)
  losses = workload.loss_fn(
      label_batch=batch['targets'],
      logits_batch=logits,
      mask_batch=batch.get('weights'),
      label_smoothing=(
          hyperparameters.label_smoothing if hasattr(hyperparameters, 'label_smoothing') else 0.0))
  summed, count = losses['summed'], losses['n_valid_examples']
  if USE_PYTORCH_DDP:
    summed, count = dist_nn.all_reduce(summed), dist_nn.all_reduce(count)
  return summed / count, new_state


def update_params(
    workload: spec.Workload,
    current_param_container: spec.ParameterContainer,
    current_params_types: spec.ParameterTypeTree,
    model_state: spec.ModelAuxiliaryState,
    hyperparameters: spec.Hyperparameters,
    batch: Dict[str, spec.Tensor],
    loss_type: spec.LossType,
    optimizer_state: spec.OptimizerState,
    eval_results: List[Tuple[int, float]],
    global_step: int,
    rng: spec.RandomState,
) -> spec.UpdateReturn:
  del current_params_types, loss_type, eval_results
  model = current_param_container
  model.train()
  optimizer_state['optimizer'].zero_grad()
  loss, new_state = mean_loss(workload, model, model_state, batch, rng, hyperparameters)
  loss.backward()
  if getattr(hyperparameters, 'grad_clip', None):
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=hyperparameters.grad_clip)
  optimizer_state['optimizer'].step()
  optimizer_state['scheduler'].step()
  if workload.metrics_logger is not None and global_step % 10 == 0:
    workload.metrics_logger.append_scalar_metrics({'loss': loss.item()}, global_step)
  return optimizer_state, model, new_state

"""
  + SIZES
)
