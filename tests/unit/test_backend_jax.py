"""The JAX backend in one process on one device."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import jax_toy
import numpy as np
import pytest
from flax import linen as nn

from algorithmic_efficiency import errors, spec
from algorithmic_efficiency.backends import _jax_backend, _jax_workload
from algorithmic_efficiency.backends import jax as backend_jax
from algorithmic_efficiency.backends.base import Devices, TaskCode
from algorithmic_efficiency.layers import jax as layers
from algorithmic_efficiency.spec import ForwardPassMode, ParameterType

WORDS = np.array([1, 2], np.uint32)
TRAIN, EVAL = ForwardPassMode.TRAIN, ForwardPassMode.EVAL
REFERENCE = Path(__file__).parents[3] / 'shared' / 'reference'


@pytest.fixture(scope='module')
def backend():
  return backend_jax.start(Devices(platform='cpu', num_devices=1))


@pytest.fixture(scope='module')
def toy(backend):
  """The toy workload, its parameters, its state and a placed batch."""
  workload = backend.workload(jax_toy.definition(), jax_toy.task(), jax_toy.BUDGET)
  params, state = workload.init_model_fn(backend.key(WORDS))
  return workload, params, state, backend.place(jax_toy.batch(16, 0))


# Starting.


def test_more_devices_than_there_are_is_a_user_error(backend):
  with pytest.raises(errors.UserError, match='64 devices were asked for, but JAX finds'):
    backend_jax.start(Devices(platform='cpu', num_devices=64))


def test_an_absent_platform_is_a_user_error(backend):
  with pytest.raises(
    errors.UserError, match=r'--platform tpu needs .*, and JAX finds only cpu\. Give --platform cpu'
  ):
    backend_jax.start(Devices(platform='tpu'))


def test_devices_must_divide_over_the_processes():
  with pytest.raises(errors.UserError, match='3 devices do not over 2 processes'):
    backend_jax.start(Devices(platform='cpu', num_devices=3, world_size=2, address='localhost:1'))


def test_a_missing_framework_is_a_user_error_with_the_install_line(monkeypatch):
  monkeypatch.setitem(sys.modules, 'jax', None)
  with pytest.raises(errors.UserError, match=r"'jax'.*algorithmic-efficiency\[jax\]"):
    backend_jax.start(Devices(platform='cpu'))


# Keys and batches.


def test_a_key_serves_jax_random_and_flax_as_an_array_of_jax_would(backend):
  key, array = backend.key(WORDS), jnp.array(WORDS)

  def draws(key):
    dropout = nn.Dropout(0.5, deterministic=False)
    return (
      jax.random.split(key, 3),
      jax.random.fold_in(key, 7),
      jax.random.normal(key, (4,)),
      jax.random.bernoulli(key, shape=(4,)),
      dropout.apply({}, jnp.ones(8), rngs={'dropout': key}),
    )

  for ours, theirs in ((draws(key), draws(array)), (jax.jit(draws)(key), draws(array))):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_place_keeps_values_structure_and_missing_weights(backend):
  batch = {'inputs': (np.ones((4, 2)), np.arange(4)), 'weights': None}
  placed = backend.place(batch)
  assert placed['weights'] is None
  assert isinstance(placed['inputs'], tuple)
  assert all(isinstance(array, jax.Array) for array in placed['inputs'])
  np.testing.assert_array_equal(placed['inputs'][1], np.arange(4))


# Waiting.


@jax.jit
def _long(x):
  return jax.lax.fori_loop(0, 30, lambda _, a: jnp.tanh(a @ x / 500), x)


@pytest.fixture(scope='module')
def slow_input():
  x = jnp.ones((600, 600))
  _long(x).block_until_ready()
  return x


def _in_flight(x):
  """What is still being computed, also where this process is held up for a while."""
  for _ in range(20):
    output = _long(x)
    if not output.is_ready():
      return output
  raise AssertionError('it is computed before it can be looked at')


def test_synchronize_waits_for_the_given_outputs(backend, slow_input):
  output = _in_flight(slow_input)
  backend.synchronize({'a': [output], 'b': 'no array', 'c': None})
  assert output.is_ready()


def test_synchronize_waits_for_everything_in_flight(backend, slow_input):
  output = _in_flight(slow_input)
  backend.synchronize()
  assert output.is_ready()


def test_synchronize_waits_for_work_whose_outputs_were_dropped(backend, slow_input):
  # Processor time of all threads: that of work which is not waited for is yet to come.
  start = time.process_time()
  _long(slow_input).block_until_ready()
  work_sec = time.process_time() - start
  start = time.process_time()
  _long(slow_input)
  backend.synchronize()
  assert time.process_time() - start > work_sec / 2


def test_synchronize_waits_for_side_effects(backend, slow_input):
  seen = []
  jax.jit(lambda x: jax.debug.callback(lambda y: seen.append(y), _long(x)[0, 0]))(slow_input)
  backend.synchronize()
  assert len(seen) == 1


def test_synchronize_accepts_deleted_arrays(backend):
  gone = jnp.ones(3)
  gone.delete()
  backend.synchronize([gone])
  backend.synchronize()


# The workload.


def test_init_gives_plain_dicts_shapes_and_types(toy):
  workload, params, state, _ = toy
  assert type(params) is dict and type(params['Dense_0']) is dict
  assert set(state) == {'batch_stats'}
  assert jax.tree.structure(workload.param_shapes) == jax.tree.structure(params)
  assert workload.param_shapes['Dense_0']['kernel'].shape_tuple == (6, 8)
  assert workload.model_params_types == {
    'Dense_0': {'kernel': ParameterType.WEIGHT, 'bias': ParameterType.BIAS},
    'BatchNorm_0': {
      'scale': ParameterType.BATCH_NORM_SCALE,
      'bias': ParameterType.BATCH_NORM_BIAS,
    },
    'Dense_1': {'kernel': ParameterType.WEIGHT, 'bias': ParameterType.BIAS},
  }
  assert workload.is_output_params('Dense_1') and not workload.is_output_params('Dense_0')


def test_fresh_parameters_are_free_to_move(toy):
  """Otherwise what a submission makes beside them compiles to a second program after step one."""
  _, params, state, batch = toy
  assert not any(leaf.committed for leaf in jax.tree.leaves((params, state, batch)))


def test_init_depends_on_the_key_alone(backend, toy):
  workload, params, _, _ = toy
  again, _ = workload.init_model_fn(backend.key(WORDS))
  other, _ = workload.init_model_fn(backend.key(WORDS + 1))
  jax.tree.map(np.testing.assert_array_equal, params, again)
  assert not np.array_equal(params['Dense_0']['kernel'], other['Dense_0']['kernel'])


def test_model_fn_takes_algoperfs_order_inside_jit(toy):
  workload, params, state, batch = toy

  @jax.jit
  def positional(params, batch, state, rng):
    return workload.model_fn(params, batch, state, TRAIN, rng, True, None, 0.0)

  by_keyword = workload.model_fn(
    params=params,
    augmented_and_preprocessed_input_batch=batch,
    model_state=state,
    mode=TRAIN,
    rng=WORDS,
    update_batch_norm=True,
    use_running_average_bn=None,
    dropout_rate=0.0,
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    positional(params, batch, state, WORDS),
    by_keyword,
  )


def test_a_workload_is_a_static_argument_of_jit(toy):
  workload, params, state, batch = toy
  step = jax.jit(
    lambda workload, params: workload.model_fn(params, batch, state, EVAL, WORDS, False)[0],
    static_argnums=0,
  )
  assert step(workload, params).shape == (16, jax_toy.NUM_CLASSES)


def test_training_updates_batch_statistics_only_when_asked(toy):
  workload, params, state, batch = toy
  _, updated = workload.model_fn(params, batch, state, TRAIN, WORDS, update_batch_norm=True)
  _, kept = workload.model_fn(params, batch, state, TRAIN, WORDS, update_batch_norm=False)
  assert kept is state
  hidden = batch['inputs'] @ params['Dense_0']['kernel'] + params['Dense_0']['bias']
  stats = updated['batch_stats']['BatchNorm_0']
  np.testing.assert_allclose(stats['mean'], 0.1 * hidden.mean(0), rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(stats['var'], 0.9 + 0.1 * hidden.var(0), rtol=1e-4)


@pytest.mark.parametrize('running_average_bn', [False, True])
def test_batch_norm_normalises_by_the_batch_in_training_unless_the_suite_or_the_call_say_otherwise(
  backend, toy, running_average_bn
):
  _, params, state, batch = toy
  workload = backend.workload(
    jax_toy.definition(),
    jax_toy.task(),
    jax_toy.BUDGET,
    running_average_bn=running_average_bn,
  )

  def logits(mode=TRAIN, **options):
    return workload.model_fn(params, batch, state, mode, WORDS, dropout_rate=0.0, **options)[0]

  by_batch = logits(update_batch_norm=True)
  by_running = logits(EVAL, update_batch_norm=False)
  assert not np.allclose(by_batch, by_running)
  np.testing.assert_array_equal(
    logits(update_batch_norm=False), by_running if running_average_bn else by_batch
  )
  np.testing.assert_array_equal(
    by_batch, logits(update_batch_norm=False, use_running_average_bn=False)
  )
  np.testing.assert_array_equal(
    by_running, logits(update_batch_norm=True, use_running_average_bn=True)
  )
  np.testing.assert_array_equal(
    by_running, logits(update_batch_norm=False, use_running_average_bn=True)
  )


def test_evaluation_refuses_to_update_batch_statistics(toy):
  workload, params, state, batch = toy
  with pytest.raises(ValueError, match='cannot be updated during evaluation'):
    workload.model_fn(params, batch, state, EVAL, WORDS, update_batch_norm=True)


def test_dropout_is_the_calls_else_inits_else_the_definitions(backend):
  workload = backend.workload(jax_toy.definition(), jax_toy.task(), jax_toy.BUDGET)
  params, state = workload.init_model_fn(WORDS)
  batch = jax_toy.batch(16, 0)

  def logits(mode=TRAIN, **options):
    return np.asarray(
      workload.model_fn(params, batch, state, mode, WORDS, mode is TRAIN, **options)[0]
    )

  without = logits(dropout_rate=0.0)
  by_definition = logits()
  assert not np.allclose(by_definition, without)
  np.testing.assert_array_equal(by_definition, logits(dropout_rate=0.5))
  np.testing.assert_array_equal(logits(EVAL), logits(EVAL, dropout_rate=0.9))
  workload.init_model_fn(WORDS, dropout_rate=0.0)
  np.testing.assert_array_equal(logits(), without)


def test_a_second_dropout_rate_is_that_of_init_and_for_training_alone(backend):
  given = []

  def forward(model, batch, *, aux_dropout_rate=0.0, **options):
    given.append(aux_dropout_rate)
    return toy_code.forward(model, batch, **options)

  task = jax_toy.task()
  toy_code = task.model
  model = SimpleNamespace(**{**vars(toy_code), 'forward': forward})
  workload = backend.workload(jax_toy.definition(), replace(task, model=model), jax_toy.BUDGET)
  batch = jax_toy.batch(16, 0)
  for rate in (None, 0.25):
    params, state = workload.init_model_fn(WORDS, 0.0, rate)
    given.clear()
    for mode in (TRAIN, EVAL):
      workload.model_fn(params, batch, state, mode, WORDS, mode is TRAIN)
    assert given == [rate or 0.0, 0.0]


@pytest.mark.parametrize(
  ('mode', 'update_batch_norm', 'told'),
  [
    (TRAIN, True, {'train': True, 'use_running_average': False, 'dropout_rate': 0.5}),
    (TRAIN, False, {'train': True, 'use_running_average': False, 'dropout_rate': 0.5}),
    (EVAL, False, {'train': False, 'use_running_average': True, 'dropout_rate': 0.0}),
  ],
)
def test_what_a_forward_function_is_told(backend, mode, update_batch_norm, told):
  calls = []

  def forward(model, batch, **options):
    calls.append(options)
    return model(batch['inputs'])

  task = _task(build=lambda definition: nn.Dense(2), forward=forward)
  workload = backend.workload(jax_toy.definition(), task, jax_toy.BUDGET)
  params, state = workload.init_model_fn(WORDS)
  assert calls.pop() == {'train': False, 'use_running_average': True, 'dropout_rate': 0.0}
  workload.model_fn(params, jax_toy.batch(4, 0), state, mode, WORDS, update_batch_norm)
  assert calls == [told]


def _task(**changes):
  """The toy task with other functions in its model module."""
  model = SimpleNamespace(**{**vars(jax_toy.task().model), **changes})
  return TaskCode(data=jax_toy.task().data, model=model)


@pytest.mark.parametrize(
  ('device', 'expected'),
  [
    ({'platform': 'cpu'}, 'float32'),
    ({'platform': 'tpu'}, 'bfloat16'),
    ({'platform': 'gpu', 'compute_capability': '9.0'}, 'bfloat16'),
    ({'platform': 'gpu', 'compute_capability': '7.0'}, 'float32'),
    ({'platform': 'gpu', 'compute_capability': 'gfx942'}, 'bfloat16'),
  ],
)
def test_models_compute_in_the_definition_s_type_on_accelerators_that_have_it(
  device, expected, monkeypatch
):
  backend = backend_jax.start(Devices(platform='cpu', num_devices=1))
  monkeypatch.setattr(backend, '_local_devices', [SimpleNamespace(**device)])
  definition = jax_toy.definition(accelerator_dtype='bfloat16')
  told = []

  def build(definition, *, dtype=jnp.float32):
    told.append(dtype)
    return nn.Dense(2)

  task = _task(build=build)
  backend.workload(definition, task, jax_toy.BUDGET)
  assert told == [jnp.dtype(expected)]


def test_a_model_without_state_has_none(backend):
  task = _task(
    build=lambda definition: nn.Dense(2),
    forward=lambda model, batch, **options: model(batch['inputs']),
  )
  workload = backend.workload(jax_toy.definition(), task, jax_toy.BUDGET)
  params, state = workload.init_model_fn(WORDS)
  assert state is None
  _, state = workload.model_fn(params, jax_toy.batch(4, 0), None, TRAIN, WORDS, True)
  assert state is None


def test_loss_and_activation(toy):
  workload, params, state, batch = toy
  logits, _ = workload.model_fn(params, batch, state, EVAL, WORDS, False)
  mask = jnp.array([1.0] * 10 + [0.0] * 6)
  loss = workload.loss_fn(
    label_batch=batch['targets'], logits_batch=logits, mask_batch=mask, label_smoothing=0.1
  )
  assert set(loss) == {'summed', 'n_valid_examples', 'per_example'}
  assert float(loss['n_valid_examples']) == 10
  np.testing.assert_allclose(loss['summed'], loss['per_example'].sum(), rtol=1e-6)
  np.testing.assert_allclose(workload.output_activation_fn(logits).sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize(
  ('loss_type', 'expected'),
  [
    (spec.LossType.MEAN_SQUARED_ERROR, [0.0, 2.0]),
    (spec.LossType.MEAN_ABSOLUTE_ERROR, [0.0, 2.0]),
    (spec.LossType.SIGMOID_CROSS_ENTROPY, [0.5, 0.880797]),
    (spec.LossType.CTC_LOSS, [0.119203, 0.880797]),
  ],
)
def test_output_activation_follows_the_loss(backend, loss_type, expected):
  definition = jax_toy.definition(loss_type=loss_type)
  workload = backend.workload(definition, jax_toy.task(), jax_toy.BUDGET)
  activated = workload.output_activation_fn(jnp.array([0.0, 2.0]), framework='jax')
  np.testing.assert_allclose(activated, expected, rtol=1e-5)


def test_predictions_are_those_of_the_logits_beside_auxiliary_losses(toy):
  logits = jnp.array([[0.0, 2.0, 1.0]])
  outputs = layers.Outputs(logits, {'balance': jnp.ones(())})
  np.testing.assert_array_equal(
    toy[0].output_activation_fn(outputs), toy[0].output_activation_fn(logits)
  )


# Losses by task.


@pytest.fixture
def tasks(backend):
  """A workload of three tasks, and a function of logits that gives the losses by task."""
  definition = jax_toy.definition(task_names=('a', 'b', 'c'))
  workload = backend.workload(definition, jax_toy.task(), jax_toy.BUDGET)
  batch = jax_toy.batch(8, 0, 6)

  def by_task(logits, task, mask=batch['weights']):
    return workload.task_losses(batch['targets'], logits, mask, jnp.asarray(task))

  return workload, batch, by_task


LOGITS = np.random.default_rng(5).normal(size=(8, jax_toy.NUM_CLASSES)).astype(np.float32)
TASK = np.array([0, 2, 0, 2, 2, 0, 0, 2], np.int32)


def test_each_task_has_the_loss_of_its_examples(tasks):
  workload, batch, by_task = tasks
  found = jax.jit(by_task)(LOGITS, TASK)
  for index in range(3):
    rows = index == TASK
    alone = workload.loss_fn(batch['targets'][rows], LOGITS[rows], batch['weights'][rows])
    for name in ('summed', 'n_valid_examples'):
      np.testing.assert_allclose(found[name][index], alone[name], rtol=1e-6, err_msg=name)
  assert found['n_valid_examples'].tolist() == [3, 0, 3]
  assert by_task(LOGITS, TASK, None)['n_valid_examples'].tolist() == [4, 0, 4]


def test_a_task_out_of_range_belongs_to_none(tasks):
  _, _, by_task = tasks
  found = by_task(LOGITS, [0, 0, 0, 0, 0, -1, 3, 0])
  assert found['n_valid_examples'].tolist() == [5, 0, 0]


def test_a_loss_by_task_is_differentiated_by_itself(tasks):
  workload, batch, by_task = tasks
  found = jax.jacrev(lambda logits: by_task(logits, TASK)['summed'])(LOGITS)
  whole = jax.grad(lambda x: workload.loss_fn(batch['targets'], x, batch['weights'])['summed'])(
    LOGITS
  )
  for index, gradient in enumerate(found):
    np.testing.assert_allclose(gradient, np.where((index == TASK)[:, None], whole, 0), rtol=1e-6)


def test_losses_of_tokens_are_summed_over_their_sequences(backend):
  definition = jax_toy.definition(task_names=('a', 'b'))
  per_example = jnp.arange(6.0).reshape(2, 3)
  task = _task(loss=lambda *_, **__: {'per_example': per_example})
  workload = backend.workload(definition, task, jax_toy.BUDGET)
  number = jnp.array([1, 0])
  mask = jnp.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
  for given, counts in ((mask, [1, 2]), (mask[:, 0] * 2, [6, 6]), (None, [3, 3])):
    found = workload.task_losses(None, None, given, number)
    assert found['summed'].tolist() == [12, 3]
    assert found['n_valid_examples'].tolist() == counts


def test_rows_may_hold_several_tasks(backend):
  definition = jax_toy.definition(task_names=('a', 'b'))
  losses = jnp.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
  task = _task(loss=lambda *_, **__: {'per_example': losses})
  workload = backend.workload(definition, task, jax_toy.BUDGET)
  number = jnp.array([[0, 1, 1], [1, 0, -1]])
  mask = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
  for given, counts in ((mask, [2, 2]), (mask[:, 1] * 2, [4, 6]), (None, [2, 3])):
    found = workload.task_losses(None, None, given, number)
    assert found['summed'].tolist() == [4, 6]
    assert found['n_valid_examples'].tolist() == counts


def test_a_definition_without_tasks_has_no_losses_by_task(toy):
  with pytest.raises(ValueError, match='need a definition with task_names; toy has none'):
    toy[0].task_losses(None, None, None, jnp.zeros(2, int))


def test_parameters_are_listed_without_allocating(backend):
  gc.collect()  # of what earlier tests have left
  before = len(jax.live_arrays())
  listed = backend_jax.parameters(jax_toy.definition(), jax_toy.task())
  named = {one.name: (one.shape, one.type.name, one.role.value) for one in listed}
  assert named['Dense_0/kernel'] == ((6, 8), 'WEIGHT', 'hidden_matrix')
  assert named['Dense_1/kernel'] == ((8, 3), 'WEIGHT', 'head')
  assert named['BatchNorm_0/scale'] == ((8,), 'BATCH_NORM_SCALE', 'norm')
  assert len(named) == 6
  assert len(jax.live_arrays()) == before


def test_roles_and_views_are_trees_like_the_parameters(backend):
  workload = backend.workload(jax_toy.definition(), jax_toy.task(), jax_toy.BUDGET)
  with pytest.raises(ValueError, match='parameter_roles is known once init_model_fn'):
    _ = workload.parameter_roles
  params, _ = workload.init_model_fn(jax.random.PRNGKey(0))
  rows = jax.tree.map(
    lambda x, view: len(view.split(x)) * 10 if view else 0, params, workload.matrix_views
  )
  assert rows['Dense_0'] == {'kernel': 10, 'bias': 0}
  roles = jax.tree.map(lambda x, role: role.value, params, workload.parameter_roles)
  assert roles['Dense_1'] == {'kernel': 'head', 'bias': 'bias'}
  eval_workload = backend.workload(jax_toy.definition(), jax_toy.task(), jax_toy.BUDGET)
  eval_workload.copy_metadata(workload)
  assert eval_workload.parameter_roles is workload.parameter_roles
  assert eval_workload.matrix_views is workload.matrix_views


# Parameter types.


@pytest.mark.parametrize(
  ('path', 'kind'),
  [
    ('Encoder/Conv_0/kernel', 'CONV_WEIGHT'),
    ('Encoder/Conv_0/bias', 'BIAS'),
    ('BatchNorm_init/bias', 'BATCH_NORM_BIAS'),
    ('decoder/encoderdecoder_layernorm/scale', 'LAYER_NORM_SCALE'),
    ('decoder/encoderdecoder_layernorm/bias', 'LAYER_NORM_BIAS'),
    ('shared_embedding/embedding', 'EMBEDDING'),
    ('edge_embedding/kernel', 'EMBEDDING'),
    ('edge_embedding/bias', 'BIAS'),
    ('MultiHeadDotProductAttention_0/key/kernel', 'ATTENTION_K'),
    ('MultiHeadDotProductAttention_0/query/kernel', 'ATTENTION_Q'),
    ('MultiHeadDotProductAttention_0/value/kernel', 'ATTENTION_V'),
    ('MultiHeadDotProductAttention_0/out/kernel', 'ATTENTION_OUT'),
    ('MultiHeadDotProductAttention_0/out/bias', 'ATTENTION_BIAS'),
    ('MultiHeadDotProductAttention_0/QueryScaler_0/scale', 'WEIGHT'),
    ('SelfAttention_0/in_proj_weight', 'ATTENTION_QKV'),
    ('blocks_0/CausalAttn_0/query/kernel', 'ATTENTION_Q'),
    ('blocks_0/CausalAttn_0/key/kernel', 'ATTENTION_K'),
    ('blocks_0/CausalAttn_0/value/kernel', 'ATTENTION_V'),
    ('blocks_0/CausalAttn_0/attn_out_proj/kernel', 'ATTENTION_OUT'),
    ('blocks_0/CausalAttn_0/attn_scale', 'WEIGHT'),
    ('blocks_0/RMSNorm_0/scale', 'LAYER_NORM_SCALE'),
    ('out_ln/scale', 'LAYER_NORM_SCALE'),
    ('embed/embedding', 'EMBEDDING'),
    ('MAPHead_0/probe', 'WEIGHT'),
    ('Dense_7/kernel', 'WEIGHT'),
    ('Dense_7/bias', 'BIAS'),
  ],
)
def test_parameter_types_follow_algoperfs_names(path, kind):
  tree: object = None
  for name in reversed(path.split('/')):
    tree = {name: tree}
  leaves = jax.tree.leaves_with_path(_jax_workload.param_types(tree))  # type: ignore[arg-type]
  [(found, value)] = leaves
  assert jax.tree_util.keystr(found, simple=True, separator='/') == path
  assert value.name == kind


@pytest.mark.parametrize('module', ['BatchNorm_0', 'LayerNorm_0', 'SelfAttention_0'])
def test_a_name_that_tells_no_type_is_an_error(module):
  with pytest.raises(ValueError, match=f'{module.lower()}/odd does not tell its type'):
    _jax_workload.param_types({module: {'odd': None}})


def test_every_algoperf_parameter_has_a_type():
  path = REFERENCE / 'parameters_jax.json'
  if not path.is_file():
    pytest.skip(f'{path} is not there')
  for entry in json.loads(path.read_text()).values():
    tree: dict = {}
    for name in entry.get('params', ()):
      *modules, leaf = name.split('/')
      node = tree
      for module in modules:
        node = node.setdefault(module, {})
      node[leaf] = None
    _jax_workload.param_types(tree)


# Evaluation and what surrounds it.


def test_evaluation_counts_every_example_once(backend, toy):
  _, params, state, _ = toy
  examples = jax_toy.batch(50, 5)
  expected = _reference_sums(examples, params)
  for batch_size in (1, 7, 50, 64):
    workload = backend.workload(
      jax_toy.definition(), jax_toy.task(), jax_toy.BUDGET, eval_batch_size=batch_size
    )
    sums = backend.eval_sums(workload, params, state, _batches(examples, batch_size), WORDS)
    assert sums['num_examples'] == (50.0, 1.0)
    assert sums['accuracy'] == (expected['accuracy'], 50.0)
    assert sums['loss'] == (pytest.approx(expected['loss'], rel=1e-5), 50.0)
    assert workload._eval_step._cache_size() == 1


def _batches(examples, batch_size):
  for start in range(0, len(examples['targets']), batch_size):
    rows = {name: values[start : start + batch_size] for name, values in examples.items()}
    missing = batch_size - len(rows['targets'])
    yield {
      name: np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])
      for name, values in rows.items()
    }


def _reference_sums(examples, params):
  """The toy model with its initial running statistics, in numpy."""
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  hidden = examples['inputs'] @ params['Dense_0']['kernel'] + params['Dense_0']['bias']
  hidden = np.maximum(hidden / np.sqrt(1 + 1e-5), 0)
  logits = hidden @ params['Dense_1']['kernel'] + params['Dense_1']['bias']
  log_sum = np.log(np.exp(logits).sum(-1))
  targets = examples['targets']
  return {
    'loss': (log_sum - logits[np.arange(len(targets)), targets]).sum(),
    'accuracy': float((logits.argmax(-1) == targets).sum()),
  }


def test_evaluation_accumulates_in_float64_on_the_host(backend, toy):
  """In float32 a sum stops growing by ones at 2**24."""
  workload, params, state, _ = toy
  big, small = jax_toy.batch(16, 0), jax_toy.batch(16, 0, num_valid=1)
  big['weights'][:] = 2**20
  sums = backend.eval_sums(workload, params, state, [big, small], WORDS)
  assert sums['accuracy'][1] == 16 * 2**20 + 1
  assert sums['num_examples'] == (17.0, 1.0)


def test_evaluation_leaves_the_caller_s_batches_alone(backend, toy):
  _, params, state, _ = toy
  workload = backend.workload(
    jax_toy.definition(), jax_toy.task(), jax_toy.BUDGET, eval_batch_size=8
  )
  batch = jax_toy.batch(5, 0)
  backend.eval_sums(workload, params, state, [batch], WORDS)
  jax.tree.map(np.testing.assert_array_equal, batch, jax_toy.batch(5, 0))


def test_evaluation_counts_examples_whose_parts_have_weights(backend, toy):
  """Tokens have weights of their own; an example counts if any of them does."""
  _, params, state, _ = toy
  task = _task(eval_step=lambda definition, batch, logits: ({}, {}))
  workload = backend.workload(jax_toy.definition(), task, jax_toy.BUDGET, eval_batch_size=4)
  batch = jax_toy.batch(3, 0)
  batch['weights'] = np.array([[1, 1], [1, 0], [0, 0]], np.float32)
  assert backend.eval_sums(workload, params, state, [batch], WORDS) == {'num_examples': (2.0, 1.0)}


def test_a_process_without_rows_takes_part_in_the_evaluation():
  """One example over two processes leaves the first without any."""
  batch = {name: values[:0] for name, values in jax_toy.batch(1, 0).items()}
  padded = _jax_backend._pad_rows(batch, 1, 2)
  assert {len(values) for values in padded.values()} == {2}
  assert not padded['weights'].any()


def test_evaluation_of_nothing_counts_nothing(backend, toy):
  workload, params, state, _ = toy
  assert backend.eval_sums(workload, params, state, [], WORDS) == {'num_examples': (0.0, 1.0)}


def test_all_finite(backend, toy):
  _, params, _, _ = toy
  assert backend.all_finite(params)
  for bad in (np.nan, np.inf):
    kernel = params['Dense_1']['kernel'].at[0, 0].set(bad)
    assert not backend.all_finite({**params, 'Dense_1': {'kernel': kernel}})


def test_scalars_come_as_floats(backend):
  values = {'a': jnp.float32(0.5), 'b': 2, 'c': np.float64(3), 'd': jnp.ones((1,), jnp.bfloat16)}
  assert backend.scalars(values) == {'a': 0.5, 'b': 2.0, 'c': 3.0, 'd': 1.0}


def test_a_change_marker_sees_a_replaced_parameter(backend, toy):
  _, params, _, _ = toy
  params = jax.tree.map(lambda x: x, params)
  before = backend.change_marker(params)
  assert backend.change_marker(params) == before
  params['Dense_0']['bias'] = params['Dense_0']['bias'] + 0
  assert backend.change_marker(params) != before


def test_one_process_needs_no_other(backend):
  assert backend.sync_max(1.5) == 1.5
  backend.barrier()
  backend.seed(3)
  backend.stop()


def test_what_the_environment_record_needs(backend):
  described = backend.describe()
  assert described['versions']['jax'] == jax.__version__
  assert (described['platform'], described['num_devices']) == ('cpu', 1)
  assert described['num_threads'] == len(os.sched_getaffinity(0))  # which nobody has asked for
  json.dumps(described)
  assert backend.peak_memory_bytes()['host'] > 1e7
