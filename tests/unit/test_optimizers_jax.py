"""Any optimizer of optax: every kind trains, and goes on after a restart as if none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import optimizer_toys
import pytest
from optimizer_toys import OPTAX, settings

from algorithmic_efficiency.errors import UserError
from algorithmic_efficiency.spec import MatrixView, ParameterRole, ShapeTuple
from tests.unit import training_toys as toys

jax = pytest.importorskip('jax')
optax = pytest.importorskip('optax')

from algorithmic_efficiency.backends import _jax_state  # noqa: E402
from algorithmic_efficiency.optimizers import jax as jax_optimizers  # noqa: E402
from algorithmic_efficiency.optimizers import jax_dry_run  # noqa: E402

NUM_STEPS = 30


def _workload(step_hint=NUM_STEPS, **options):
  return optimizer_toys.with_roles(toys.JaxWorkload(step_hint, **options), outputs_first=False)


def _params():
  return jax.tree.map(jax.numpy.asarray, toys.params())


def _start(given, workload=None):
  workload = workload or _workload()
  params = _params()
  return workload, params, jax_optimizers.start(workload, params, None, given)


def _run(workload, params, state, steps, batch=None):
  batch = toys.batches(1)[0] if batch is None else batch
  for step in steps:
    state, params, _ = jax_optimizers.update_params(
      current_param_container=params,
      model_state=None,
      batch=batch,
      optimizer_state=state,
      **toys.update_arguments(workload, None, step, np.array([step, 2], np.uint32)),
    )
  return params, state


def _prepare(workload, params, state):
  state, params, _ = jax_optimizers.prepare_for_eval(
    current_param_container=params,
    model_state=None,
    optimizer_state=state,
    **toys.update_arguments(workload, None, 1, None),
  )
  return params, state


def _loss(params):
  workload, batch = toys.JaxWorkload(), toys.batches(1)[0]
  logits, _ = workload.model_fn(params, batch, None, None, None, True)
  loss = workload.loss_fn(batch['targets'], logits, batch['weights'])
  return float(loss['summed'] / loss['n_valid_examples'])


def _assert_equal(left, right):
  jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.mark.parametrize('name', OPTAX)
def test_every_kind_trains_and_goes_on_after_a_restart(name):
  given = settings(name, OPTAX[name], dropout_rate=0.1)
  workload, params, state = _start(given)
  before = _loss(params)
  params, state = _run(workload, params, state, range(NUM_STEPS - 5))
  params, state = _prepare(workload, params, state)
  assert _loss(params) < 0.8 * before
  saved = _jax_state.pack(params), _jax_state.pack(state)
  params, state = _run(workload, params, state, range(NUM_STEPS - 5, NUM_STEPS))

  workload, resumed, fresh = _start(given)
  resumed = _jax_state.overlay(resumed, saved[0])
  fresh = _jax_state.overlay(fresh, saved[1])
  resumed, fresh = _run(workload, resumed, fresh, range(NUM_STEPS - 5, NUM_STEPS))
  _assert_equal(params, resumed)


def test_the_step_is_that_of_a_native_submission():
  point = toys.POINT
  module = toys.submission('external', 'adamw', 'jax')
  workload, params, state = _start(
    settings(
      'optax.adamw',
      {
        'learning_rate': point.learning_rate,
        'b1': 1 - point.one_minus_beta1,
        'b2': point.beta2,
        'weight_decay': point.weight_decay,
      },
      schedule='warmup_cosine',
      warmup=point.warmup_factor,
      grad_clip=point.grad_clip,
      label_smoothing=point.label_smoothing,
      dropout_rate=point.dropout_rate,
    )
  )
  params, _ = _run(workload, params, state, range(6))
  native = _params()
  native_state = module.init_optimizer_state(workload, native, None, point, None)
  for step in range(6):
    native_state, native, _ = module.update_params(
      current_param_container=native,
      model_state=None,
      batch=toys.batches(1)[0],
      optimizer_state=native_state,
      **toys.update_arguments(workload, point, step, np.array([step, 2], np.uint32)),
    )
  _assert_equal(params, native)


# Schedules.


def _moves(given, num_steps=20):
  """How far each step of a workload whose gradient is constant goes."""
  workload = _workload(step_hint=num_steps)
  optimizer = jax_optimizers.transformation(workload, given)
  params = {'x': jax.numpy.zeros(())}
  state = optimizer.init(params)
  moves = []
  for _ in range(num_steps):
    updates, state = optimizer.update({'x': jax.numpy.ones(())}, state, params)
    moves.append(-float(updates['x']))
  return moves


def without_schedules(learning_rate: float = 0.1):
  """An optimizer whose learning rate is a number."""
  return optax.scale(-learning_rate)


@pytest.mark.parametrize('name', ['optax.sgd', f'{__name__}.without_schedules'])
@pytest.mark.parametrize('schedule', ['constant', 'linear', 'warmup_cosine', 'wsd'])
def test_the_schedule_multiplies_the_learning_rate(schedule, name):
  moves = _moves(settings(name, {'learning_rate': 0.5}, schedule=schedule, warmup=0.2))
  np.testing.assert_allclose(moves[:5:2], [0, 0.25, 0.5], atol=1e-6)
  late = {'constant': 0.5, 'linear': 0.25, 'warmup_cosine': 0.25, 'wsd': 0.5}[schedule]
  np.testing.assert_allclose(moves[12], late, rtol=1e-5)
  if schedule != 'warmup_cosine':
    last = {'constant': 0.5, 'linear': 0.5 / 16, 'wsd': 0.5 / 4}[schedule]
    np.testing.assert_allclose(moves[19], last, rtol=1e-5)


def test_every_learning_rate_follows_the_schedule():
  rates = {}

  def two(learning_rate: optax.ScalarOrSchedule, adam_learning_rate: optax.ScalarOrSchedule = 0.1):
    rates.update(locals())
    return optax.sgd(learning_rate)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(f'{__name__}.without_schedules', two)
    _moves(settings(f'{__name__}.without_schedules', {'learning_rate': 0.5}, schedule='linear'))
  assert float(rates['adam_learning_rate'](0)) == 0
  assert float(rates['adam_learning_rate'](1)) == pytest.approx(0.1, rel=1e-5)


def test_without_a_schedule_the_rate_stays_a_number():
  workload = _workload()
  plain = jax_optimizers.transformation(workload, settings('optax.sgd', {'learning_rate': 0.5}))
  assert not any(
    isinstance(leaf, optax.ScaleByScheduleState)
    for leaf in jax.tree.leaves(plain.init(_params()), is_leaf=lambda x: hasattr(x, 'count'))
  )


# Schedule-free averages.


def test_the_average_is_evaluated_and_the_training_goes_on_from_where_it_was():
  given = settings('optax.contrib.schedule_free_sgd', {'learning_rate': 0.1})
  workload, params, state = _start(given)
  params, state = _run(workload, params, state, range(5))
  trained = jax.device_get(params)
  expected = optax.contrib.schedule_free_eval_params(jax.device_get(state[0][0]), trained)
  for _ in range(2):  # the second time there is nothing left to do
    params, state = _prepare(workload, params, state)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), params, expected)

  other_workload, other, other_state = _start(given)
  other, other_state = _run(other_workload, other, other_state, range(5))
  params, state = _run(workload, params, state, range(5, 8))
  other, other_state = _run(other_workload, other, other_state, range(5, 8))
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), params, other)


def test_an_optimizer_without_averages_evaluates_what_it_trains():
  workload, params, state = _start(settings('optax.adamw', {'learning_rate': 0.1}))
  assert _prepare(workload, params, state)[0] is params


# Matrices.


@pytest.mark.parametrize(
  ('shape', 'view', 'expected'),
  [
    ((6, 8), (1, 6, 8), ((0,), (1,))),
    ((3, 3, 4, 8), (1, 36, 8), ((0, 1, 2), (3,))),
    ((12, 3, 4), (1, 12, 12), ((0,), (1, 2))),
    ((3, 4, 12), (1, 12, 12), ((0, 1), (2,))),
    ((5, 8, 16), (5, 8, 16), ((1,), (2,))),
  ],
)
def test_axes_of_matrices(shape, view, expected):
  num_matrices, rows, columns = view
  found = jax_optimizers._dimensions(
    ShapeTuple(shape),
    ParameterRole.HIDDEN_MATRIX,
    MatrixView(num_matrices=num_matrices, rows=rows, columns=columns),
  )
  assert found == expected


def test_fused_projections_with_an_axis_of_their_own():
  view = MatrixView(num_matrices=3, rows=12, columns=16, by_columns=True)
  dimensions = jax_optimizers._dimensions(
    ShapeTuple((12, 3, 2, 8)), ParameterRole.HIDDEN_MATRIX, view
  )
  assert dimensions == ((0,), (2, 3))


def test_hidden_matrices_go_to_muon_and_the_rest_to_adam():
  workload, params, state = _start(
    settings('optax.contrib.muon', {'learning_rate': 0.0, 'adam_learning_rate': 0.1})
  )
  before = jax.device_get(params)
  params, _ = _run(workload, params, state, range(2))
  moved = {name for name in before if not np.array_equal(params[name], before[name])}
  assert moved == {'bias_0', 'kernel_1', 'bias_1'}


def test_a_model_without_hidden_matrices_is_refused():
  workload = _workload()
  workload.parameter_roles = dict.fromkeys(workload.parameter_roles, ParameterRole.BIAS)
  with pytest.raises(UserError, match=r'optax\.contrib\.muon trains hidden matrices .* has none'):
    _start(settings('optax.contrib.muon', {'learning_rate': 0.1}), workload)


# More than gradients.


def test_an_optimizer_that_evaluates_the_loss_takes_no_parts():
  workload, params, state = _start(settings('optax.lbfgs', {}, micro_batches=2))
  with pytest.raises(UserError, match='leave micro_batches at 1'):
    _run(workload, params, state, [0])


# The dry run.


@pytest.mark.parametrize(
  ('name', 'hyperparameters', 'message'),
  [
    ('optax.scale_by_adam', {}, r'optax\.scale_by_adam moved along it in all 3 steps'),
    ('optax.adamw', {}, 'needs a value for learning_rate'),
    ('optax.adamw', {'lr': 1}, 'calls its learning rate learning_rate, not lr'),
    ('optax.adamw', {'learning_rate': 'fast'}, 'must be a number, or an object by its import name'),
    ('optax.constant_schedule', {'value': 0.1}, 'optax GradientTransformation; .* returns a func'),
  ],
)
def test_a_dry_run_finds_what_is_wrong(name, hyperparameters, message):
  with pytest.raises(UserError, match=message):
    jax_dry_run.run(settings(name, hyperparameters))


@pytest.mark.parametrize('name', ['optax.sgd', 'optax.contrib.schedule_free_adamw'])
def test_dry_runs(name):
  jax_dry_run.run(settings(name, {'learning_rate': 0.1}, schedule='wsd'))


# Several devices.


@pytest.mark.parametrize(
  'names',
  [
    pytest.param(
      ['optax.contrib.schedule_free_adamw', 'optax.contrib.muon'], marks=pytest.mark.slow
    ),
    pytest.param([*OPTAX], marks=pytest.mark.long, id='all'),
  ],
)
def test_devices_train_as_one_does(names):
  script = Path(__file__).with_name('optimizer_devices_script.py')
  subprocess.run([sys.executable, str(script), *names], check=True, timeout=500)
