"""The shared flax layers against plain twins."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip('jax')
import jax.numpy as jnp  # noqa: E402

from algorithmic_efficiency.layers import jax as layers  # noqa: E402


def dropped(x, rate, *, train=True, seed=0):
  return layers.Dropout().apply({}, x, rate, train=train, rngs={'dropout': jax.random.key(seed)})


def test_batch_norm_of_values_far_from_zero_is_accurate_in_float32():
  x = 1_000 + jax.random.normal(jax.random.key(0), (64, 4, 4, 3))
  norm = layers.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5)
  variables = norm.init(jax.random.key(0), x)
  y, updates = norm.apply(variables, x, mutable=['batch_stats'])
  exact = np.asarray(x, np.float64)
  deviation = exact - exact.mean((0, 1, 2))
  np.testing.assert_allclose(y, deviation / np.sqrt(exact.var((0, 1, 2)) + 1e-5), atol=1e-3)
  expected = 0.9 + 0.1 * exact.var((0, 1, 2))
  np.testing.assert_allclose(updates['batch_stats']['var'], expected, rtol=1e-5)


@pytest.mark.parametrize('function', [dropped, jax.jit(dropped)], ids=['number', 'traced'])
def test_dropout_zeroes_the_given_part_and_scales_the_rest(function):
  y = np.asarray(function(jnp.full((200, 200), 3.0), 0.25))
  assert set(np.unique(y)) == {np.float32(0), np.float32(4)}
  assert np.mean(y == 0) == pytest.approx(0.25, abs=0.01)


def test_dropout_follows_its_stream():
  x = jnp.ones((64,))
  assert np.array_equal(dropped(x, 0.5, seed=1), dropped(x, 0.5, seed=1))
  assert not np.array_equal(dropped(x, 0.5, seed=1), dropped(x, 0.5, seed=2))


def test_dropout_leaves_its_input_alone_outside_training_and_at_rate_zero():
  x = jnp.arange(8.0)
  for y in (
    layers.Dropout().apply({}, x, 0.9, train=False),
    layers.Dropout().apply({}, x, 0.0, train=True),
    jax.jit(dropped)(x, 0.0),
  ):
    np.testing.assert_array_equal(y, x)


def test_dropout_of_everything_has_finite_gradients():
  x = jnp.ones((8,))
  for function in (dropped, jax.jit(dropped)):
    gradient = jax.grad(lambda x, function=function: function(x, 1.0).sum())(x)
    np.testing.assert_array_equal(gradient, np.zeros(8))


@pytest.mark.parametrize('dtype', ['bfloat16', 'float32'])
def test_types_keep_parameters_in_float32(dtype):
  types = layers.types(jnp.dtype(dtype))
  assert types == {'dtype': jnp.dtype(dtype), 'param_dtype': jnp.float32}
