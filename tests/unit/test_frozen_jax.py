"""Frozen parameters in JAX: they live in the model state, and keep their initial values."""

from __future__ import annotations

import dataclasses

import numpy as np
import optimizer_toys
import pytest

jax = pytest.importorskip('jax')

from flax import traverse_util  # noqa: E402

from algorithmic_efficiency import errors, spec, trust  # noqa: E402
from algorithmic_efficiency.backends import jax as backend_jax  # noqa: E402
from algorithmic_efficiency.backends.base import Devices, TaskCode  # noqa: E402
from algorithmic_efficiency.benchmark import registry  # noqa: E402
from algorithmic_efficiency.benchmark.check_rules import KINDS  # noqa: E402
from algorithmic_efficiency.optimizers import jax as optimizers  # noqa: E402

TRAIN, EVAL = spec.ForwardPassMode.TRAIN, spec.ForwardPassMode.EVAL
WORDS = np.array([1, 2], np.uint32)
WHOLE = registry.workload('quick_vision').for_smoke()
TASK = TaskCode.of(WHOLE, 'jax')
FIRST = {'Conv_0/kernel', 'BatchNorm_0/scale', 'BatchNorm_0/bias'}


def definition(*names):
  return dataclasses.replace(WHOLE, frozen_params={'jax': names})


@pytest.fixture(scope='module')
def backend():
  return backend_jax.start(Devices(platform='cpu', num_devices=1))


def begin(backend, *names):
  workload = backend.workload(definition(*names), TASK, next(iter(WHOLE.suites.values())))
  return workload, *workload.init_model_fn(backend.key(WORDS))


@pytest.fixture
def first(backend):
  """The workload, parameters and state of a model whose first layer is frozen."""
  return begin(backend, 'Conv_0', 'BatchNorm_0')


def flat(tree):
  return traverse_util.flatten_dict(tree, sep='/')


def batch(backend, seed=0):
  return backend.place(TASK.data.fake_batch(WHOLE, 8, seed))


def logits(workload, params, state, batch, mode=TRAIN, update=True):
  return workload.model_fn(params, batch, state, mode, WORDS, update_batch_norm=update)


def test_trained_and_frozen_parameters_are_those_of_the_whole_model(backend, first):
  _, params, state = first
  _, whole, stats = begin(backend)
  assert set(flat(state['frozen'])) == FIRST
  assert set(flat(params)) == set(flat(whole)) - FIRST
  jax.tree.map(np.testing.assert_array_equal, flat(state.pop('frozen')) | flat(params), flat(whole))
  jax.tree.map(np.testing.assert_array_equal, state, stats)


def test_what_a_submission_learns_of_parameters_is_of_those_that_are_trained(first):
  workload, params, _ = first
  found = (workload.param_shapes, workload.model_params_types, workload.parameter_roles)
  for tree in (*found, workload.matrix_views):
    jax.tree.map(lambda *_: None, params, tree)
  listed = backend_jax.parameters(definition('Conv_0', 'BatchNorm_0'), TASK)
  assert {one.name for one in listed if one.is_frozen} == FIRST


@pytest.mark.parametrize(('mode', 'update'), [(TRAIN, True), (TRAIN, False), (EVAL, False)])
def test_the_forward_pass_is_that_of_the_whole_model(backend, first, mode, update):
  found, state = logits(*first, batch(backend), mode, update)
  expected, stats = logits(*begin(backend), batch(backend), mode, update)
  np.testing.assert_array_equal(found, expected)
  jax.tree.map(np.testing.assert_array_equal, state, {**stats, 'frozen': first[2]['frozen']})
  if not update:
    assert state is first[2]


@pytest.mark.parametrize('optimizer', ['optax.adamw', 'optax.contrib.muon'])
def test_training_with_donation_leaves_them_as_they_were(backend, first, optimizer):
  workload, params, state = first
  before = jax.device_get((params, state))
  settings = optimizer_toys.settings(optimizer, {'learning_rate': 0.1, 'weight_decay': 0.1})
  optimizer_state = optimizers.start(workload, params, state, settings)
  workload.remember_frozen(params, state)
  for step in range(3):
    optimizer_state, params, state = optimizers.update_params(
      workload, params, None, state, None, batch(backend, step), None, optimizer_state, [], step,
      WORDS,
    )  # fmt: skip
  assert optimizer_state[1]._cache_size() == 1
  jax.tree.map(np.testing.assert_array_equal, state['frozen'], before[1]['frozen'])
  assert not np.array_equal(
    flat(state)['batch_stats/BatchNorm_0/mean'], flat(before[1])['batch_stats/BatchNorm_0/mean']
  )
  for name, value in flat(params).items():
    assert not np.array_equal(value, flat(before[0])[name]), name
  workload.check_frozen(params, state)


def test_a_saved_state_has_them(backend, first):
  _, params, state = first
  packed = backend.pack({'params': params, 'model_state': state})
  fresh = begin(backend, 'Conv_0', 'BatchNorm_0')[1:]
  restored = backend.overlay(dict(zip(packed, fresh, strict=True)), packed, fixed=('params',))
  jax.tree.map(np.testing.assert_array_equal, restored['model_state'], state)


def test_a_change_is_found_at_an_evaluation(first):
  workload, params, state = first
  workload.remember_frozen(params, state)
  workload.check_frozen(params, jax.tree.map(lambda x: x + 0, state))
  kernel = state['frozen']['Conv_0']['kernel'].at[0, 0, 0, 0].add(1e-7)
  changed = {**state, 'frozen': {**state['frozen'], 'Conv_0': {'kernel': kernel}}}
  for wrong in (changed, {'batch_stats': state['batch_stats']}, None):
    with pytest.raises(trust.IntegrityError, match='Frozen parameters must keep') as caught:
      workload.check_frozen(params, wrong)
    assert caught.value.kind in KINDS


def test_nothing_is_looked_at_where_nothing_is_frozen(backend, monkeypatch):
  workload, params, state = begin(backend)
  assert 'frozen' not in state
  monkeypatch.setattr(jax, 'device_get', None)
  workload.remember_frozen(params, state)
  workload.check_frozen(params, state)


@pytest.mark.slow
def test_the_layout_with_a_device_axis_has_a_copy_for_each_device(backend, first):
  with_axis = backend.for_submission(frozenset({'jax.pmap'}))
  workload, params, state = begin(with_axis, 'Conv_0', 'BatchNorm_0')
  jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0], y), state, first[2])
  workload.remember_frozen(params, state)
  workload.check_frozen(params, state)
  batches = [{**TASK.data.fake_batch(WHOLE, 8, 0), 'weights': np.ones(8, np.float32)}]
  found = with_axis.eval_sums(workload, params, state, batches, WORDS)
  expected = backend.eval_sums(*first, batches, WORDS)
  assert found['loss'] == pytest.approx(expected['loss'])


def test_a_frozen_parameter_is_made_again_by_itself(first):
  values = flat(first[2]['frozen'])
  for name in FIRST:
    alone = backend_jax.frozen_param(definition(name), TASK, WORDS, name)
    np.testing.assert_array_equal(alone, values[name], err_msg=name)
  other = backend_jax.frozen_param(definition('Conv_0'), TASK, WORDS + 1, 'Conv_0/kernel')
  assert not np.array_equal(other, values['Conv_0/kernel'])
  with pytest.raises(errors.UserError, match="'Dense_0/bias' is none of quick_vision"):
    backend_jax.frozen_param(definition('Conv_0'), TASK, WORDS, 'Dense_0/bias')


@pytest.mark.parametrize('name', ['Conv', 'Conv_0/bias', 'conv1'])
def test_a_name_that_matches_nothing_is_an_error(backend, name):
  with pytest.raises(errors.UserError, match=f"nothing is called '{name}'. Its parameters: "):
    begin(backend, 'Conv_0', name)


def test_a_parameter_must_be_left_to_train(backend, first):
  with pytest.raises(errors.UserError, match='jax model of quick_vision it names all of them'):
    begin(backend, *first[1], *first[2]['frozen'])
