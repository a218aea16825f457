"""The dry run of a JAX optimizer: a few steps on a linear regression."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.backends import _jax_state, _jax_workload
from algorithmic_efficiency.optimizers import jax as jax_optimizers
from algorithmic_efficiency.optimizers.dry_run_batch import NUM_STEPS, STEP_HINT, batch
from algorithmic_efficiency.optimizers.settings import Settings
from algorithmic_efficiency.spec import ShapeTuple


def run(settings: Settings) -> None:
  """Trains, evaluates, saves, restores, and trains again.

  Raises:
    UserError: the optimizer does not support the settings, or its steps increase the loss.
  """
  workload = _workload()
  params, state = _start(workload, settings)
  climbs = []
  for step in range(NUM_STEPS):
    before, gradients = _copied(params), jax.grad(_mean_loss)(params)
    params, state = _step(workload, params, state, step)
    change = jax.tree.map(jnp.subtract, params, before)
    climbs.append(
      sum(jnp.vdot(x, y) for x, y in zip(*map(jax.tree.leaves, (change, gradients)), strict=True))
    )
  if all(climb >= 0 for climb in climbs) and any(climb > 0 for climb in climbs):
    raise errors.UserError(
      f'An optimizer must move against the gradient; {settings.optimizer} moved along it in all '
      f'{NUM_STEPS} steps. It is a part of an optimizer, or its learning rate is negative.'
    )
  fresh_params, fresh = _start(workload, settings)
  fresh_params = _jax_state.overlay(fresh_params, _jax_state.pack(params))
  fresh = _jax_state.overlay(fresh, _jax_state.pack(state))
  _step(workload, fresh_params, fresh, NUM_STEPS)


def _copied(tree: Any) -> Any:
  return jax.tree.map(jnp.copy, tree)  # the step donates its arguments


def _start(workload: Any, settings: Settings) -> tuple[Any, Any]:
  params = _params()
  return params, jax_optimizers.start(workload, params, None, settings)


def _step(workload: Any, params: Any, state: Any, step: int) -> tuple[Any, Any]:
  common = {
    'workload': workload,
    'current_params_types': None,
    'model_state': None,
    'hyperparameters': None,
    'loss_type': None,
    'eval_results': [],
    'global_step': step,
    'rng': jax.random.PRNGKey(step),
  }
  state, params, _ = jax_optimizers.update_params(
    current_param_container=params, optimizer_state=state, batch=batch(), **common
  )
  state, params, _ = jax_optimizers.prepare_for_eval(
    current_param_container=params, optimizer_state=state, **common
  )
  return params, state


def _params() -> dict[str, Any]:
  random = np.random.default_rng(1)
  shapes = {'hidden': (6, 8), 'head': (8, 3)}
  return {
    name: {
      'kernel': jnp.asarray(random.normal(size=shape, scale=0.4), jnp.float32),
      'bias': jnp.zeros(shape[1]),
    }
    for name, shape in shapes.items()
  }


def _forward(params: Any, inputs: Any) -> jax.Array:
  hidden = jnp.tanh(inputs @ params['hidden']['kernel'] + params['hidden']['bias'])
  return hidden @ params['head']['kernel'] + params['head']['bias']


def _mean_loss(params: Any) -> jax.Array:
  example = batch()
  return ((_forward(params, example['inputs']) - example['targets']) ** 2).sum(1).mean()


def _workload() -> Any:
  params = _params()
  described = _jax_workload.described(
    params, _jax_workload.param_types(params), lambda name: name.startswith('head')
  )
  return SimpleNamespace(
    step_hint=STEP_HINT,
    metrics_logger=None,
    independent_examples=True,
    param_shapes=jax.tree.map(lambda x: ShapeTuple(x.shape), params),
    parameter_roles=jax.tree.map(lambda one: one.role, described),
    matrix_views=jax.tree.map(lambda one: one.matrix_view, described),
    model_fn=lambda params, batch, model_state, *_, **__: (
      _forward(params, batch['inputs']),
      model_state,
    ),
    loss_fn=_loss,
  )


def _loss(label_batch: jax.Array, logits_batch: jax.Array, **_: Any) -> dict[str, Any]:
  summed = ((logits_batch - label_batch) ** 2).sum()
  return {'summed': summed, 'n_valid_examples': len(label_batch)}
