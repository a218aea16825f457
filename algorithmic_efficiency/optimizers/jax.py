"""Training steps around any function that returns an optax transformation, by import name."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from algorithmic_efficiency import errors, spec
from algorithmic_efficiency.optimizers import arguments, requirements
from algorithmic_efficiency.optimizers.settings import Settings
from algorithmic_efficiency.training import jax as training
from algorithmic_efficiency.training.jax import update_params

__all__ = ['prepare_for_eval', 'start', 'transformation', 'update_params']

_DECAY_FACTOR = 0.2  # of the step hint, at the end of a wsd schedule
_DIMENSIONS = 'muon_weight_dimension_numbers'


def start(
  workload: spec.Workload,
  model_params: spec.ParameterContainer,
  model_state: spec.ModelAuxiliaryState,
  settings: Settings,
) -> tuple[Any, Callable[..., Any]]:
  """Returns the optimizer state: a tree of arrays and the function that updates it.

  Raises:
    UserError: the optimizer or the model does not support the settings.
  """
  state, train_step = training.start(
    workload, model_params, model_state, transformation(workload, settings), settings.step
  )
  if _schedule_free(state) is None:
    return state, train_step
  return (state, False), _ScheduleFreeStep(train_step)


def transformation(workload: spec.Workload, settings: Settings) -> optax.GradientTransformation:
  """Returns the optax transformation, with the schedule in it.

  Raises:
    UserError: the optimizer does not support the settings, or is no optimizer.
  """
  optimizer = arguments.load(settings.optimizer)
  values = requirements.bound(optimizer, settings.optimizer, settings.hyperparameters)
  rates = requirements.rates(optimizer, values) if settings.is_scheduled else {}
  schedule = _schedule(settings, workload.step_hint)
  scheduled = {
    key: schedule(rate)
    for key, rate in rates.items()
    if requirements.takes_schedule(optimizer, key)
  }
  if requirements.needs_of(optimizer).step == 'matrices' and _DIMENSIONS not in values:
    values[_DIMENSIONS] = _dimension_numbers(workload, settings.optimizer)
  try:
    result = optimizer(**{**values, **scheduled})
  except (TypeError, ValueError, AssertionError) as error:
    raise errors.UserError(f'{settings.optimizer} refuses its arguments: {error}.') from error
  if not isinstance(result, optax.GradientTransformation):
    raise requirements.not_an_optimizer_error(
      settings.optimizer, f'returns a {type(result).__name__}'
    )
  if settings.is_scheduled and not scheduled:
    return optax.chain(result, optax.scale_by_schedule(schedule(1.0)))
  return result


def _schedule(settings: Settings, step_hint: int) -> Callable[[float], optax.Schedule]:
  schedules: Mapping[str, Callable[..., optax.Schedule]] = {
    'constant': training.warmup_constant,
    'linear': functools.partial(training.warmup_linear, decay_steps_factor=1.0, end_factor=0.0),
    'warmup_cosine': training.warmup_cosine,
    'wsd': functools.partial(training.warmup_stable_decay, decay_factor=_DECAY_FACTOR),
  }
  return functools.partial(
    schedules[settings.options['schedule']],
    step_hint=step_hint,
    warmup_factor=settings.options['warmup'],
  )


# Optimizers that train only matrices, and apply Adam to the rest by themselves.


def _dimension_numbers(workload: spec.Workload, name: str) -> Any:
  """Returns the dimension numbers for optax's Muon; None for parameters that it leaves to Adam."""
  numbers = jax.tree.map(
    _dimensions, workload.param_shapes, workload.parameter_roles, workload.matrix_views
  )
  if not jax.tree.leaves(numbers):
    raise requirements.no_matrices_error(name)
  return numbers


def _dimensions(
  shape: spec.ShapeTuple, role: spec.ParameterRole, view: spec.MatrixView
) -> optax.contrib.MuonDimensionNumbers | None:
  """Returns the axes of the rows and of the columns; the remaining axes count matrices.

  Matrices side by side along one axis, as in a fused projection, count as one.
  """
  if role not in requirements.MATRIX_ROLES:
    return None
  if view.by_columns:
    sizes = (view.rows, view.num_matrices, view.columns)
    rows, _, columns = _grouped(shape.shape_tuple, sizes)
  else:
    _, rows, columns = _grouped(shape.shape_tuple, (view.num_matrices, view.rows, view.columns))
  return optax.contrib.MuonDimensionNumbers(reduction_axis=rows, output_axis=columns)


def _grouped(shape: tuple[int, ...], sizes: tuple[int, ...]) -> list[tuple[int, ...]]:
  """Splits the axes of a shape into consecutive groups with the given numbers of elements."""
  groups, axis = [], 0
  for size in sizes:
    first = axis
    while math.prod(shape[first:axis]) < size:
      axis += 1
    groups.append(tuple(range(first, axis)))
  return groups


# Optimizers that evaluate and train different parameters.


class _ScheduleFreeStep:
  """A training step for optax's schedule-free optimizers (Defazio et al., 2024).

  They train y, an interpolation of the average x and the sequence z, and evaluate x. The state is
  the optimizer's state and a flag, true if the parameters are x.
  """

  def __init__(self, train_step: training.TrainStep):
    self._train_step = train_step
    self._average = jax.jit(_average, donate_argnums=1)
    self._interpolate = jax.jit(_interpolate, donate_argnums=1)

  def __call__(
    self, state: tuple[Any, bool], params: Any, model_state: Any, batch: Any, rng: Any
  ) -> tuple[Any, Any, Any, dict[str, jax.Array]]:
    inner, is_average = state
    if is_average:
      params = self._interpolate(_schedule_free(inner), params)
    inner, params, model_state, metrics = self._train_step(inner, params, model_state, batch, rng)
    return (inner, False), params, model_state, metrics

  def averaged(self, state: tuple[Any, bool], params: Any) -> tuple[tuple[Any, bool], Any]:
    """Returns the state and the parameters x."""
    inner, is_average = state
    if not is_average:
      params = self._average(_schedule_free(inner), params)
    return (inner, True), params


def _average(state: optax.contrib.ScheduleFreeState, params: Any) -> Any:
  return optax.contrib.schedule_free_eval_params(state, params)


def _interpolate(state: optax.contrib.ScheduleFreeState, average: Any) -> Any:
  return jax.tree.map(lambda x, z: state.b1 * x + (1 - state.b1) * z, average, state.z)


def _schedule_free(state: Any) -> optax.contrib.ScheduleFreeState | None:
  """Returns the state of a schedule-free optimizer within a state, or None."""

  def is_it(node: Any) -> bool:
    return isinstance(node, optax.contrib.ScheduleFreeState)

  return next(filter(is_it, jax.tree.leaves(state, is_leaf=is_it)), None)


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
  state, train_step = optimizer_state
  params = current_param_container
  if isinstance(train_step, _ScheduleFreeStep):
    state, params = train_step.averaged(state, params)
  return (state, train_step), params, model_state
