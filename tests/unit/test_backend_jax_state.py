"""Keeping and restoring the opaque state of a submission in JAX."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from flax import struct
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithmic_efficiency.backends._jax_state import overlay, pack
from algorithmic_efficiency.trial.checkpoint import Checkpoints


class Pair(NamedTuple):
  first: object
  second: object


@struct.dataclass
class Struct:
  value: jax.Array
  apply: object = struct.field(pytree_node=False)


@jax.tree_util.register_pytree_node_class
class Box:
  def __init__(self, content):
    self.content = content

  def tree_flatten(self):
    return (self.content,), None

  @classmethod
  def tree_unflatten(cls, _, children):
    return cls(*children)


class Averager:
  """Keeps and loads its own state, which grows."""

  def __init__(self):
    self.history = []

  def state_dict(self):
    return {'history': self.history, 'note': None}

  def load_state_dict(self, state):
    self.history = state['history']


def _params():
  return {'Dense_0': {'kernel': jnp.arange(6.0).reshape(2, 3), 'bias': jnp.ones(3)}}


def assert_same(tree, other):
  """Equal structure, types of leaves, data types and values, to the last bit."""
  assert jax.tree.structure(tree) == jax.tree.structure(other)
  for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
    if isinstance(a, jax.Array):
      assert isinstance(b, jax.Array)
      assert (a.dtype, a.committed) == (b.dtype, b.committed)
      if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
      assert a.weak_type == b.weak_type
      assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    else:
      assert type(a) is type(b)
      np.testing.assert_array_equal(a, b)


def test_adamw_state():
  optimizer = optax.adamw(optax.linear_schedule(0.1, 0.0, 10))
  fresh = optimizer.init(_params())
  _, state = optimizer.update(_params(), fresh, _params())
  restored = overlay(fresh, pack(state))
  assert_same(restored, state)
  assert type(restored) is type(state)


def test_functions_are_kept_from_the_fresh_state():
  old, new = (lambda: 'old'), (lambda: 'new')
  restored = overlay((jnp.zeros(2), new, {'f': jnp.sum}), pack((jnp.ones(2), old, {'f': jnp.max})))
  np.testing.assert_array_equal(restored[0], np.ones(2))
  assert restored[1] is new
  assert restored[2]['f'] is jnp.sum


def test_every_kind_of_container_and_leaf():
  def state(number):
    return {
      'pair': Pair(jnp.full((2,), number, jnp.int32), [np.arange(3) * number]),
      'struct': Struct(jnp.array(number, jnp.bfloat16), max),
      'box': Box((jnp.array(number > 1), None)),
      'key': jax.random.key(number),
      'keys': jax.random.split(jax.random.key(number, impl='rbg'), 2),
      'scalars': (number, float(number), str(number), number > 1, complex(0, number)),
      'numpy': (np.float32(number), np.int64(number)),
      'weak': (jnp.asarray(float(number)), jnp.full((2,), float(number))),
      'none': None,
      'empty': {},
      'small': jnp.ones((2, 2), ml_dtypes.float8_e4m3fn) * number,
      'no_rows': jnp.zeros((0, 3)),
    }

  assert_same(overlay(state(1), pack(state(2))), state(2))


def test_packed_values_are_plain():
  packed = pack({'a': [jnp.ones(2, jnp.bfloat16)], 'b': (1, None, 'x', len)})
  assert set(packed) == {"['a'][0]", "['b'][0]", "['b'][2]", '__structure__'}
  array = packed["['a'][0]"]
  assert type(array) is np.ndarray and array.dtype == ml_dtypes.bfloat16
  assert (packed["['b'][0]"], packed["['b'][2]"]) == (1, 'x')


def test_a_packed_array_is_a_copy():
  """On a CPU a view would share the array's memory, and keep the next step from reusing it."""
  array, host = jnp.zeros(1000), np.zeros(3)
  packed = pack([array, host])
  assert packed['[0]'].base is None
  jax.jit(lambda x: x + 1, donate_argnums=0)(array).block_until_ready()
  host[:] = 1
  assert not packed['[0]'].any() and not packed['[1]'].any()


def test_an_object_with_state_dict_keeps_its_own_state():
  old, fresh = Averager(), Averager()
  old.history = [jnp.ones(2), (1, 2.5, 'x'), {'k': np.arange(2)}, jax.random.key(3)]
  restored = overlay({'a': fresh}, pack({'a': old}))
  assert restored['a'] is fresh
  array, numbers, mapping, key = fresh.history
  np.testing.assert_array_equal(array, np.ones(2))
  assert numbers == [1, 2.5, 'x']
  np.testing.assert_array_equal(mapping['k'], np.arange(2))
  assert jnp.array_equal(jax.random.key_data(key), jax.random.key_data(jax.random.key(3)))


def test_a_python_number_that_became_an_array_is_one_again():
  """Entries begin with `step = 0` and go on with what jit returns."""
  restored = overlay({'step': 0}, pack({'step': jnp.array(7)}))
  assert isinstance(restored['step'], jax.Array) and int(restored['step']) == 7
  assert overlay({'step': jnp.array(0)}, pack({'step': 7})) == {'step': 7}


@pytest.mark.parametrize('leaf', [object(), {1, 2}, np.array([None])])
def test_what_cannot_be_kept_is_named(leaf):
  with pytest.raises(TypeError, match=r"\['deep'\]\[1\]"):
    pack({'deep': (0, leaf)})


@pytest.mark.parametrize(
  ('fresh', 'saved', 'message'),
  [
    ({'a': 1, 'b': 2}, {'a': 1}, r"\['b'\] is not in the saved one"),
    ((1,), (1, 2), r'\[1\] was saved but is not in it'),
    ([1, 2], [1], r'\[1\] is not in the saved one'),
    ({'a': {'b': 1, 'c': 2}}, {'a': {'b': 1, 'd': 3}}, r"\['a'\]\['c'\] is not in the saved one"),
    ({'a': Pair(1, 2)}, {'a': (1, 2)}, r"\['a'\]\.first is not in the saved one"),
    ({'a': None}, {'a': Box((1, 2))}, r"\['a'\] is a .*Box, of which the fresh state has none"),
    ({'a': None}, {'a': Averager()}, r"\['a'\] was an object with state_dict"),
    ({'a': jnp.ones(2)}, {'a': jnp.ones(3)}, r"\['a'\] has the shape \(3,\).*\(2,\)"),
    ({'a': 1.0}, {'a': jnp.ones(3)}, r"\['a'\] has the shape \(3,\).*\(\)"),
    (jnp.ones(2), jnp.ones(3), 'its only leaf has the shape'),
    ({'a': len}, {'a': 1}, r"\['a'\] was saved but is not in it"),
    ({'a': 1}, {'a': len}, r"\['a'\] is not in the saved one"),
  ],
)
def test_a_state_that_does_not_fit_is_named(fresh, saved, message):
  with pytest.raises(ValueError, match=message):
    overlay(fresh, pack(saved))


@pytest.mark.parametrize(
  ('fresh', 'saved'),
  [
    ({'adam': 1, 'kept': None}, {'adam': 2, 'kept': {'kernel': jnp.ones((2, 3)), 'bias': None}}),
    ({'adam': 1}, {'adam': 2, 'kept': (jnp.ones(2), [3.5])}),
    ({'history': []}, {'history': [jnp.ones(2), {'x': jnp.zeros((), jnp.bfloat16)}]}),
    ([jnp.zeros(2)], [jnp.ones(2), jnp.arange(3)]),
    ({'a': {'b': [None]}}, {'a': {'b': [{7: jax.random.key(3)}]}}),
    ({'used': Pair(1, 2), 'kept': None}, {'used': Pair(3, 4), 'kept': Pair(5, (6,))}),
    ({'weak': None}, {'weak': (jnp.full((2,), 3.0), jnp.asarray(4))}),
    ({'once': {'x': jnp.ones(2)}, 'f': 1}, {'once': None, 'f': 2}),
    (None, {'a': 1}),
  ],
)
def test_a_structure_that_has_changed_since_the_start_comes_back(fresh, saved, tmp_path):
  """Regression: a slot that is None at first and a tree later could not be resumed."""
  Checkpoints(tmp_path).save(1, {'state': pack(saved)})
  assert_same(overlay(fresh, Checkpoints(tmp_path).load().payload['state']), saved)


def test_a_function_in_what_has_grown_is_named():
  with pytest.raises(ValueError, match=r"\['a'\]\[0\] is not in the saved one"):
    overlay({'a': None}, pack({'a': [len]}))


@pytest.mark.parametrize(
  ('fresh', 'saved'), [({'a': None}, {'a': 1}), ({}, {'a': 1}), ({'a': 1}, {'a': None})]
)
def test_parameters_do_not_change_their_structure(fresh, saved):
  with pytest.raises(ValueError, match=r"\['a'\] (was saved but is|is) not in"):
    overlay(fresh, pack(saved), may_grow=False)


def test_a_state_that_version_0_1_0_packed_is_laid_over_as_it_is():
  packed = pack({'a': jnp.ones(2), 'b': [1]})
  del packed['__structure__']
  assert_same(overlay({'a': jnp.zeros(2), 'b': [0]}, packed), {'a': jnp.ones(2), 'b': [1]})


def test_training_goes_on_bit_for_bit_without_compiling_again():
  optimizer = optax.adamw(0.1)

  @jax.jit
  def step(state, params, batch):
    grads = jax.grad(lambda p: jnp.sin(batch @ p['Dense_0']['kernel']).sum())(params)
    updates, state = optimizer.update(grads, state, params)
    return state, optax.apply_updates(params, updates)

  def fresh():
    params = _params()
    return optimizer.init(params), params

  def run(state, params, steps):
    for index in steps:
      state, params = step(state, params, np.full((4, 2), index, np.float32))
    return state, params

  uninterrupted = run(*fresh(), range(6))
  num_programs = step._cache_size()
  packed = pack(run(*fresh(), range(3)))
  assert_same(run(*overlay(fresh(), packed), range(3, 6)), uninterrupted)
  assert step._cache_size() == num_programs


_leaves = st.one_of(
  st.integers(-(2**31), 2**31 - 1),
  st.floats(width=32, allow_nan=False),
  st.booleans(),
  st.text(max_size=3),
  st.none(),
  st.integers(0, 3).map(lambda n: np.arange(n, dtype=np.float32)),
)
_trees = st.recursive(
  _leaves,
  lambda inner: st.one_of(
    st.lists(inner, max_size=3),
    st.tuples(inner, inner),
    st.dictionaries(st.text(max_size=3), inner, max_size=3),
    st.builds(Pair, inner, inner),
  ),
  max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(_trees)
def test_any_tree_survives_being_packed_and_laid_over_itself(tree):
  assert_same(overlay(tree, pack(tree)), tree)
