"""The token loss in JAX: in chunks or whole, it is the plain one."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import token_loss_twin as twin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

jax = pytest.importorskip('jax')
import jax.numpy as jnp  # noqa: E402

from algorithmic_efficiency.layers import chunks  # noqa: E402
from algorithmic_efficiency.layers import jax as layers  # noqa: E402

# Of the largest element; each sum runs over some hundred terms at most.
TOLERANCE = {'float32': 2e-6, 'float64': 1e-12}


def arrays(one, dtype='float32'):
  return jnp.asarray(one.hidden, dtype), jnp.asarray(one.kernel, dtype)


def product(hidden, kernel):
  """Logits that the loss takes as they are."""
  return hidden @ kernel.T


def loss_of(one, hidden, kernel, *, masked=True, label_smoothing=0.1):
  logits = layers.vocab_logits(hidden, kernel)
  mask = jnp.asarray(one.mask, hidden.dtype) if masked else None
  return layers.token_loss(one.targets, logits, mask, label_smoothing)


def sums_of(one, factors, weights, target_bytes):
  return layers.token_sums(one.targets, layers.vocab_logits(*factors), weights, target_bytes)


def mean(one, loss):
  return loss['summed'] / loss['n_valid_examples']


def by_token(one, loss):
  return jnp.sum(loss['per_example'] * one.of_tokens) + 2 * loss['summed']


@pytest.mark.parametrize('label_smoothing', [0.0, 0.1])
def test_losses_of_classes_are_those_of_sequences_of_one_token(label_smoothing):
  logits = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
  targets, weights = jnp.array([0, 3, 1, 1, 2]), jnp.array([1.0, 0.0, 1.0, 2.0, 1.0])
  found = layers.token_loss(targets, logits, weights, label_smoothing)
  expected = layers.token_loss(targets[:, None], logits[:, None], weights[:, None], label_smoothing)
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value.reshape(found[name].shape), rtol=1e-6)


def test_without_bytes_there_are_the_other_sums():
  logits = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
  targets, weights = jnp.zeros((2, 3), int), jnp.array([[1.0] * 3, [0.0] * 3])
  with_bytes = layers.token_sums(targets, logits, weights, weights)
  del with_bytes['bits_per_byte']
  assert layers.token_sums(targets, logits, weights) == with_bytes


def test_weights_of_examples_are_those_of_each_of_their_tokens():
  logits = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
  targets = jnp.zeros((2, 3), int)
  found = layers.token_loss(targets, logits, jnp.array([1.0, 0.0]))
  expected = layers.token_loss(targets, logits, jnp.array([[1.0] * 3, [0.0] * 3]))
  for name, value in expected.items():
    np.testing.assert_array_equal(found[name], value)
  assert found['n_valid_examples'] == 3


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
@pytest.mark.parametrize(
  ('objective', 'of_tokens', 'options'),
  [
    (mean, lambda one: np.full_like(one.mask, 1 / one.mask.size), (False, 0.0)),
    (by_token, lambda one: one.mask * (one.of_tokens + 2), (True, 0.1)),
  ],
  ids=['mean', 'by_token'],
)
def test_chunks_give_the_values_and_gradients_of_the_formulas(
  monkeypatch, objective, of_tokens, options, dtype
):
  masked, label_smoothing = options
  one, tolerance = twin.case(), TOLERANCE[dtype]
  assert twin.cut(monkeypatch, one) == 8  # 37 positions are no multiple of it

  @jax.jit
  def everything(hidden, kernel):
    def objective_of(hidden, kernel):
      loss = loss_of(one, hidden, kernel, masked=masked, label_smoothing=label_smoothing)
      return objective(one, loss), loss

    return jax.grad(objective_of, argnums=(0, 1), has_aux=True)(hidden, kernel)

  with jax.enable_x64(dtype == 'float64'):
    gradients, loss = everything(*arrays(one, dtype))
  assert {array.dtype for array in (*loss.values(), *gradients)} == {np.dtype(dtype)}
  weights = one.mask if masked else np.ones_like(one.mask)
  expected = twin.losses(one, label_smoothing) * weights
  twin.assert_close(loss['per_example'], expected, tolerance)
  twin.assert_close(loss['summed'], expected.sum(), tolerance)
  twin.assert_close(loss['n_valid_examples'], weights.sum(), tolerance)
  expected = twin.gradients(one, of_tokens(one), label_smoothing)
  for found, wanted in zip(gradients, expected, strict=True):
    twin.assert_close(found, wanted, tolerance)


@pytest.mark.slow
@settings(
  max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
  sizes=st.tuples(*(st.integers(1, 9) for _ in range(4))),
  num_chunks=st.integers(1, 12),
  seed=st.integers(0, 99),
)
def test_any_shape_in_any_number_of_chunks(monkeypatch, sizes, num_chunks, seed):
  one = twin.case(*sizes, seed=seed)
  twin.cut(monkeypatch, one, num_chunks)
  with jax.enable_x64(True):
    gradients, loss = jax.jit(
      jax.grad(lambda *a: (loss_of(one, *a)['summed'],) * 2, argnums=(0, 1), has_aux=True)
    )(*arrays(one, 'float64'))
  twin.assert_close(loss, (twin.losses(one, 0.1) * one.mask).sum(), 1e-12)
  for found, wanted in zip(gradients, twin.gradients(one, one.mask, 0.1), strict=True):
    np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-13)


def test_a_tied_kernel_gets_both_its_gradients(monkeypatch):
  one = twin.case()
  twin.cut(monkeypatch, one)

  def tied(kernel, logits_of):
    logits = logits_of(jnp.tanh(kernel[one.targets[:, ::-1]]), kernel)
    return layers.token_loss(one.targets, logits, one.mask)['summed']

  with jax.enable_x64(True):
    gradient = jax.jit(jax.grad(tied), static_argnums=1)
    found, expected = (gradient(one.kernel, of) for of in (layers.vocab_logits, product))
  twin.assert_close(found, np.asarray(expected), 1e-12)


def test_forward_mode_and_second_derivatives(monkeypatch):
  """What an entry may ask for that estimates curvature."""
  one = twin.case(2, 9, 11, 4)
  twin.cut(monkeypatch, one)
  with jax.enable_x64(True):
    primals = arrays(one, 'float64')
    tangents = jax.tree.map(jnp.cos, primals)

    def chunked(*primals):
      return loss_of(one, *primals)['summed']

    def plain(hidden, kernel):
      logits = product(hidden, kernel)
      return layers.token_loss(one.targets, logits, one.mask, 0.1)['summed']

    for derivative in (lambda f: f, lambda f: jax.grad(f, argnums=(0, 1))):
      found, expected = (
        jax.jit(functools.partial(jax.jvp, derivative(f)))(primals, tangents)
        for f in (chunked, plain)
      )
      for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        twin.assert_close(x, np.asarray(y), 1e-12)


def test_logits_pass_through_the_transformations_of_jax(monkeypatch):
  """Each example by itself with vmap; with pmap a device axis, as older entries have it."""
  one = twin.case()
  twin.cut(monkeypatch, one, num_chunks=20)
  hidden, kernel = arrays(one)
  expected = (twin.losses(one) * one.mask).sum(-1)

  def summed(hidden, targets, mask):
    logits = layers.vocab_logits(hidden[None], kernel)
    return layers.token_loss(targets[None], logits, mask[None])['summed']

  assert 'while' in jax.jit(jax.vmap(summed)).lower(hidden, one.targets, one.mask).as_text()
  twin.assert_close(jax.vmap(summed)(hidden, one.targets, one.mask), expected, 2e-6)

  by_device = jax.pmap(jax.vmap(summed))
  arguments = [x[None] for x in (hidden, one.targets, one.mask)]
  assert 'while' in by_device.lower(*arguments).as_text()
  twin.assert_close(by_device(*arguments), expected[None], 2e-6)


def test_a_second_call_compiles_nothing(monkeypatch):
  one = twin.case()
  twin.cut(monkeypatch, one)
  kernel = one.kernel.astype(np.float32)

  @jax.jit
  @jax.grad
  def step(hidden, label_smoothing):
    return loss_of(one, hidden, kernel, label_smoothing=label_smoothing)['summed']

  hidden, _ = arrays(one)
  first, second = step(hidden, 0.1), step(hidden + 1, 0.2)
  assert step._cache_size() == 1
  twin.assert_close(first, twin.gradients(one, one.mask, 0.1)[0], 2e-6)
  assert not np.array_equal(first, second)


def test_small_logits_are_neither_cut_nor_computed_twice():
  one = twin.case()
  gradient = jax.jit(jax.grad(lambda *a: loss_of(one, *a)['summed'], argnums=(0, 1)))
  text = gradient.lower(*arrays(one)).as_text()
  assert 'while' not in text
  assert text.count('stablehlo.dot_general') == 3


def test_large_logits_are_never_there_at_once_and_computed_once(monkeypatch):
  """4 x 256 tokens, a vocabulary of 65,536: 256 MiB."""
  monkeypatch.setattr(chunks, '_WORK_BYTES', 32 * 2**20)
  hidden = jax.ShapeDtypeStruct((4, 256, 8), jnp.float32)
  kernel = jax.ShapeDtypeStruct((65_536, 8), jnp.float32)
  targets = np.zeros((4, 256), np.int32)

  def summed(hidden, kernel):
    return layers.token_loss(targets, layers.vocab_logits(hidden, kernel))['summed']

  compiled = jax.jit(jax.value_and_grad(summed, argnums=(0, 1))).lower(hidden, kernel).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < 256 * 2**20 / 3
  assert compiled.as_text().count(' dot(') == 3


@pytest.mark.parametrize('num_chunks', [1, 5])
def test_sums_are_those_of_the_formulas(monkeypatch, num_chunks):
  one = twin.case()
  twin.cut(monkeypatch, one, num_chunks)
  target_bytes = 1 + np.abs(one.of_tokens)
  with jax.enable_x64(True):
    sums = jax.jit(lambda *factors: sums_of(one, factors, one.mask, target_bytes))
    factors = arrays(one, 'float64')
    assert ('while' in sums.lower(*factors).as_text()) == (num_chunks > 1)
    found = sums(*factors)
  expected = twin.sums(one, target_bytes)
  assert set(found) == set(expected)
  for name, values in expected.items():
    np.testing.assert_allclose(found[name], values, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize('num_chunks', [1, 5])
def test_of_logits_that_tie_the_first_counts(monkeypatch, num_chunks):
  one = twin.with_ties(twin.case())
  twin.cut(monkeypatch, one, num_chunks)
  ones = np.ones(one.targets.shape, np.float32)
  sums = jax.jit(lambda *factors: sums_of(one, factors, ones, ones))
  total, weight = sums(*arrays(one))['accuracy']
  assert weight == one.targets.size
  assert 0 < total == (one.logits.argmax(-1) == one.targets).sum() < weight


@pytest.mark.parametrize('num_chunks', [1, 5])
def test_low_precision_logits_have_a_loss_and_a_kernel_gradient_in_float32(monkeypatch, num_chunks):
  one = twin.rounded(twin.case(), lambda x: np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64))
  twin.cut(monkeypatch, one, num_chunks)
  hidden, kernel = jnp.asarray(one.hidden, jnp.bfloat16), jnp.asarray(one.kernel, jnp.float32)

  @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
  def gradients_and_loss(hidden, kernel):
    loss = loss_of(one, hidden, kernel)
    return loss['summed'], loss

  gradients, loss = jax.jit(gradients_and_loss)(hidden, kernel)
  assert {array.dtype for array in loss.values()} == {np.dtype('float32')}
  assert [array.dtype for array in gradients] == [jnp.bfloat16, np.float32]
  twin.assert_close(loss['per_example'], twin.losses(one, 0.1) * one.mask, 1e-2)
  for found, wanted in zip(gradients, twin.gradients(one, one.mask, 0.1), strict=True):
    twin.assert_close(found.astype(np.float32), wanted, 2e-2)


@pytest.mark.slow
def test_eight_devices_share_the_loss_without_gathering_the_batch():
  script = Path(twin.__file__).with_name('token_loss_devices.py')
  path = os.pathsep.join([str(script.parent), os.environ.get('PYTHONPATH', '')])
  found = subprocess.run(
    [sys.executable, str(script)],
    env={**os.environ, 'PYTHONPATH': path},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert found.returncode == 0, found.stderr
  result = json.loads(found.stdout)
  assert result['num_devices'] == 8
  assert result['was_cut']
  assert not result['moves'], 'activations move between devices'
  assert result['is_sharded']
  for name in ('jit', 'pmap'):
    assert max(result[name]) < 2e-6, name
