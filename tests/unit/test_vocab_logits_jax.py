"""Large logits in JAX: an array like any other, which the loss knows by its identity in a trace."""

from __future__ import annotations

import functools
import gc

import numpy as np
import pytest
import token_loss_twin as twin

jax = pytest.importorskip('jax')
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402

from algorithmic_efficiency.layers import _jax_loss, chunks  # noqa: E402
from algorithmic_efficiency.layers import jax as layers  # noqa: E402

ONE = twin.case()
HIDDEN, KERNEL = (x.astype(np.float32) for x in (ONE.hidden, ONE.kernel))
VOCAB_SIZE = len(KERNEL)
LOSSES = twin.losses(ONE)


@pytest.fixture(autouse=True)
def cut(monkeypatch):
  """Has the logits of the case, and of one of its rows, cut into chunks."""
  twin.cut(monkeypatch, ONE, num_chunks=20)


def product(hidden, kernel):
  return hidden @ kernel.T


def loss_of(logits, targets=ONE.targets):
  return layers.token_loss(targets, logits)['summed']


def loss(hidden, kernel, targets=ONE.targets):
  return loss_of(layers.vocab_logits(hidden, kernel), targets)


def uses_chunks(function, *arguments):
  """Whether there is a loop over chunks in the program, and no array of all the logits."""
  text = jax.jit(function).lower(*arguments).as_text()
  assert 'while' not in text or f'x37x{VOCAB_SIZE}xf32' not in text
  return 'while' in text


def z_loss(x):
  return jnp.square(jax.nn.logsumexp(x, axis=-1))


def sampled_loss(x):
  """That of labels drawn from the model's own distribution."""
  labels = jax.random.categorical(jax.random.PRNGKey(0), x)
  return optax.softmax_cross_entropy_with_integer_labels(x, labels)


def through_a_carry(x):
  return jax.lax.scan(lambda carry, row: (carry * row.mean(), None), x, jnp.ones((3, 2)))[0]


def through_a_condition(x):
  return jax.lax.cond(x.sum() > 0, lambda y: 2 * y, lambda y: -y, x)


MATRIX = np.linspace(-1, 1, 2 * VOCAB_SIZE, dtype=np.float32).reshape(VOCAB_SIZE, 2)
OPERATIONS = {
  'add': lambda x: x + 1,
  'subtract_array': lambda x: np.ones(VOCAB_SIZE, np.float32) - x,
  'multiply': lambda x: 2 * x * x,
  'divide': lambda x: 1 / (3 + abs(x)),
  'matmul': lambda x: x @ MATRIX,
  'compare': lambda x: x * (x > 0),
  'astype': lambda x: x.astype(jnp.float32),
  'astype_bfloat16': lambda x: x.astype(jnp.bfloat16).astype(jnp.float32),
  'reshape': lambda x: x.reshape(-1, VOCAB_SIZE),
  'row': lambda x: x[1],
  'last': lambda x: x[..., -1],
  'at': lambda x: x.at[:, 0].set(0.5),
  'argmax': lambda x: jnp.take_along_axis(x, x.argmax(axis=-1, keepdims=True), axis=-1),
  'where': lambda x: jnp.where(x > 0, x, 0),
  'concatenate': lambda x: jnp.concatenate([x, x]),
  'lax_add': lambda x: jax.lax.add(x, x),
  'lax_reduce': lambda x: jax.lax.reduce(x, 0.0, jax.lax.add, (2,)),
  'lax_map': lambda x: jax.lax.map(lambda row: row**2, x),
  'softmax': jax.nn.softmax,
  'cross_entropy': lambda x: optax.softmax_cross_entropy_with_integer_labels(x, ONE.targets),
  'one_hot': lambda x: x * jax.nn.one_hot(ONE.targets, VOCAB_SIZE),
  'z_loss': z_loss,
  'sampled_loss': sampled_loss,
  'stop_gradient': lambda x: x * jax.lax.stop_gradient(x),
  'vmap': jax.vmap(z_loss),
  'carry': through_a_carry,
  'condition': through_a_condition,
  'remat': jax.checkpoint(z_loss),
  'jit': jax.jit(z_loss),
}


@pytest.mark.parametrize('operation', OPERATIONS.values(), ids=OPERATIONS)
def test_an_operation_gives_the_values_and_gradients_of_the_product(operation):
  def outcome(logits_of):
    def objective(hidden, kernel):
      logits = logits_of(hidden, kernel)
      assert isinstance(logits, jax.Array)
      result = operation(logits)
      return jnp.sin(result).sum(), result

    return jax.jit(jax.grad(objective, argnums=(0, 1), has_aux=True))(HIDDEN, KERNEL)

  found, expected = map(outcome, (layers.vocab_logits, product))
  for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    twin.assert_close(x, np.asarray(y, np.float64), 2e-6)


def test_outside_of_a_trace_logits_are_plain_arrays():
  logits = layers.vocab_logits(HIDDEN, KERNEL)
  twin.assert_close(logits, ONE.logits, 2e-6)
  twin.assert_close(loss_of(logits), LOSSES.sum(), 2e-6)
  assert not _jax_loss._factors_by_id


# Where the loss finds its factors.


def rematerialized(hidden, kernel):
  return jax.checkpoint(loss)(hidden, kernel)


def by_row(hidden, kernel):
  def of_row(hidden, targets):
    return loss(hidden[None], kernel, targets[None])

  return jax.vmap(of_row)(hidden, ONE.targets).sum()


def in_micro_batches(hidden, kernel):
  def add(total, row):
    hidden, targets = row
    return total + loss(hidden[None], kernel, targets[None]), None

  return jax.lax.scan(add, jnp.zeros(()), (hidden, ONE.targets))[0]


def one_part_after_the_other(hidden, kernel):
  parts = [layers.vocab_logits(row[None], kernel) for row in hidden]
  return sum(map(loss_of, parts, ONE.targets[:, None]))


FINDING = [loss, rematerialized, by_row, in_micro_batches, one_part_after_the_other]


@pytest.mark.parametrize('function', FINDING)
def test_the_loss_of_the_very_array_is_cut(function):
  gradient = jax.value_and_grad(function, argnums=(0, 1))
  value, gradients = jax.jit(gradient)(HIDDEN, KERNEL)
  twin.assert_close(value, LOSSES.sum(), 2e-6)
  for found, expected in zip(gradients, twin.gradients(ONE, np.ones_like(ONE.mask)), strict=True):
    twin.assert_close(found, expected, 2e-6)
  assert uses_chunks(gradient, HIDDEN, KERNEL)
  assert not _jax_loss._factors_by_id


def through_a_copy(hidden, kernel):
  return loss_of(layers.vocab_logits(hidden, kernel) + 0)


def through_jit(hidden, kernel):
  return loss_of(jax.jit(layers.vocab_logits)(hidden, kernel))


def through_remat(hidden, kernel):
  return loss_of(jax.checkpoint(layers.vocab_logits)(hidden, kernel))


def through_a_tuple_of_jit(hidden, kernel):
  logits, _ = jax.jit(lambda *factors: (layers.vocab_logits(*factors), None))(hidden, kernel)
  return loss_of(logits)


def through_vmap(hidden, kernel):
  of_row = jax.vmap(lambda row: layers.vocab_logits(row[None], kernel)[0])
  return loss_of(of_row(hidden))


def through_scan(hidden, kernel):
  logits = layers.vocab_logits(hidden, kernel)
  return jax.lax.scan(lambda carry, _: (carry, loss_of(carry)), logits, None, length=1)[1][0]


LOSING = [through_a_copy, through_jit, through_remat, through_a_tuple_of_jit, through_vmap]


@pytest.mark.parametrize('function', [*LOSING, through_scan])
def test_the_loss_of_another_array_is_the_plain_one(function):
  value, gradients = jax.jit(jax.value_and_grad(function, argnums=(0, 1)))(HIDDEN, KERNEL)
  twin.assert_close(value, LOSSES.sum(), 2e-6)
  for found, expected in zip(gradients, twin.gradients(ONE, np.ones_like(ONE.mask)), strict=True):
    twin.assert_close(found, expected, 2e-6)


@pytest.mark.parametrize('function', LOSING)
def test_another_array_is_not_cut(function):
  assert not uses_chunks(function, HIDDEN, KERNEL)


def test_a_cast_loses_the_chunks_and_a_cast_to_the_same_type_does_not():
  def cast_to(dtype):
    return lambda hidden, kernel: loss_of(layers.vocab_logits(hidden, kernel).astype(dtype))

  assert uses_chunks(cast_to(jnp.float32), HIDDEN, KERNEL)
  assert not uses_chunks(cast_to(jnp.float32), HIDDEN.astype(jnp.bfloat16), KERNEL)


# What a match must not change.


def test_the_gradient_to_the_logits():
  """Inside of its own differentiation the array is another one."""

  @jax.jit
  def gradient(hidden, kernel):
    return jax.grad(loss_of)(layers.vocab_logits(hidden, kernel))

  expected = np.exp(twin.log_probs(ONE)) - twin.one_hot(ONE)
  twin.assert_close(gradient(HIDDEN, KERNEL), expected, 2e-6)


def test_stopped_logits_have_no_gradient():
  def stopped(hidden):
    return loss_of(jax.lax.stop_gradient(layers.vocab_logits(hidden, KERNEL)))

  assert not jax.jit(jax.grad(stopped))(HIDDEN).any()


def test_logits_and_their_loss_in_one_program():
  found, value = jax.jit(lambda *a: (lambda x: (x, loss_of(x)))(layers.vocab_logits(*a)))(
    HIDDEN, KERNEL
  )
  twin.assert_close(found, ONE.logits, 2e-6)
  twin.assert_close(value, LOSSES.sum(), 2e-6)


def test_logits_are_kept_over_a_step_that_donates_the_parameters():
  logits = jax.jit(layers.vocab_logits)(HIDDEN, KERNEL)
  eager = layers.vocab_logits(jnp.asarray(HIDDEN), kernel := jnp.array(KERNEL))

  @functools.partial(jax.jit, donate_argnums=0)
  def step(kernel, hidden):
    gradient, kept = jax.grad(
      lambda kernel: (loss_of(x := layers.vocab_logits(hidden, kernel)), x), has_aux=True
    )(kernel)
    return kernel - gradient, kept

  kernel, kept = step(kernel, HIDDEN)
  kernel, later = step(kernel, HIDDEN)
  for array in (logits, eager, kept):
    twin.assert_close(array, ONE.logits, 2e-6)
    twin.assert_close(loss_of(array), LOSSES.sum(), 2e-6)
  assert not np.allclose(later, ONE.logits)


def test_a_device_axis():
  by_device = jax.pmap(jax.value_and_grad(loss), in_axes=(0, None))
  value, gradient = by_device(HIDDEN[None], KERNEL)
  twin.assert_close(value, LOSSES.sum()[None], 2e-6)
  expected, _ = twin.gradients(ONE, np.ones_like(ONE.mask))
  twin.assert_close(gradient, expected[None], 2e-6)


# What is remembered, and how long.


@pytest.mark.parametrize(
  'transform',
  [
    pytest.param(jax.jit, marks=pytest.mark.slow),
    pytest.param(jax.grad, marks=pytest.mark.slow),
    lambda f: jax.jit(jax.grad(f)),
  ],
)
def test_nothing_is_left_of_a_trace(transform):
  gc.disable()  # what goes, goes at once
  try:
    with jax.checking_leaks():
      for function in FINDING:
        transform(function)(HIDDEN, KERNEL)
    assert not _jax_loss._factors_by_id
  finally:
    gc.enable()


def test_little_is_left_of_traces_that_fail(monkeypatch):
  """JAX keeps what a failing trace printed, and with it the logits."""
  monkeypatch.setattr(_jax_loss, '_MAX_NUM_ENTRIES', 4)

  def failing(hidden, kernel):
    jax.debug.print('{}', layers.vocab_logits(hidden, kernel).sum())
    raise ZeroDivisionError

  for _ in range(6):
    with pytest.raises(ZeroDivisionError):
      jax.jit(failing)(HIDDEN, KERNEL)
  gc.collect()
  assert len(_jax_loss._factors_by_id) <= 4
  assert uses_chunks(loss, HIDDEN, KERNEL)
  _jax_loss._factors_by_id.clear()


def test_an_id_that_is_used_again_finds_nothing():
  _jax_loss._factors_by_id[id(other := jnp.ones(3))] = (lambda: None), (HIDDEN, KERNEL)
  try:
    assert _jax_loss._factors(other) is None
  finally:
    _jax_loss._factors_by_id.clear()


def test_small_logits_are_not_remembered(monkeypatch):
  monkeypatch.setattr(chunks, '_WORK_BYTES', 2**30)
  seen = []

  @jax.jit
  def remembered(hidden, kernel):
    logits = layers.vocab_logits(hidden, kernel)
    seen.append(_jax_loss._factors(logits))
    return logits

  remembered(HIDDEN, KERNEL)
  assert seen == [None]
