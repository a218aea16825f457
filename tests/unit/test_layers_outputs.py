"""Outputs with auxiliary losses act as their logits, in both frameworks."""

from __future__ import annotations

import numpy as np
import pytest

LOGITS = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
TARGETS = np.random.default_rng(1).integers(5, size=(3, 4))


class TestJax:
  @pytest.fixture(autouse=True)
  def frameworks(self):
    self.jax = pytest.importorskip('jax')
    self.optax = pytest.importorskip('optax')
    from algorithmic_efficiency.layers import jax as layers

    self.jnp, self.layers = self.jax.numpy, layers

  def outputs(self, logits):
    return self.layers.Outputs(logits, {'balance': self.jnp.square(logits).mean()})

  def test_they_compute_as_the_logits_do(self):
    jnp, nn = self.jnp, self.jax.nn
    logits = jnp.asarray(LOGITS)
    computations = (
      lambda x: x * 2 - 1,
      lambda x: 2 / (x + 5),
      lambda x: -x @ jnp.ones((5, 2)),
      lambda x: logits + x,
      lambda x: x + x,
      lambda x: x > 0,
      lambda x: x == logits,
      lambda x: x[..., :-1],
      lambda x: x.astype(jnp.float16).sum(axis=-1),
      lambda x: jnp.argmax(x, -1),
      lambda x: jnp.where(x > 0, x, 0),
      lambda x: jnp.concatenate([x, x], -1),
      lambda x: nn.softmax(x),
      lambda x: nn.log_softmax(x, axis=-1),
      lambda x: self.optax.softmax_cross_entropy_with_integer_labels(x, TARGETS),
      lambda x: self.optax.softmax_cross_entropy(x, nn.one_hot(TARGETS, 5)),
      lambda x: np.asarray(x),
      lambda x: jnp.stack(list(x)),
      lambda x: self.layers.token_loss(jnp.asarray(TARGETS), x)['per_example'],
    )
    for number, compute in enumerate(computations):
      found, expected = compute(self.outputs(logits)), compute(logits)
      assert not isinstance(found, self.layers.Outputs)
      np.testing.assert_allclose(found, expected, err_msg=str(number))
    outputs = self.outputs(logits)
    assert (outputs.shape, outputs.dtype, outputs.ndim, len(outputs)) == (
      *(logits.shape, logits.dtype, logits.ndim),
      3,
    )

  def test_they_are_auxiliaries_of_a_gradient_and_pass_through_jit(self):
    jax, jnp = self.jax, self.jnp

    def loss(params, wrap):
      logits = wrap(params * jnp.asarray(LOGITS))
      losses = self.optax.softmax_cross_entropy_with_integer_labels(logits, TARGETS)
      return jnp.mean(losses), logits

    differentiate = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    (value, outputs), gradient = differentiate(jnp.float32(2), self.outputs)
    (expected, logits), right = differentiate(jnp.float32(2), lambda x: x)
    assert isinstance(outputs, self.layers.Outputs)
    np.testing.assert_allclose((value, gradient), (expected, right))
    np.testing.assert_allclose(outputs, logits)
    doubled = jax.tree.map(lambda x: 2 * x, outputs)
    np.testing.assert_allclose(doubled.auxiliary['balance'], 2 * outputs.auxiliary['balance'])


class TestTorch:
  @pytest.fixture(autouse=True)
  def frameworks(self):
    self.torch = pytest.importorskip('torch')
    from algorithmic_efficiency.layers import torch as layers

    self.layers = layers

  def outputs(self, logits):
    return self.layers.Outputs(logits, {'balance': logits.square().mean()})

  def test_they_compute_as_the_logits_do(self):
    torch = self.torch
    functional = torch.nn.functional
    logits, targets = torch.tensor(LOGITS), torch.tensor(TARGETS)
    computations = (
      lambda x: x * 2 - 1,
      lambda x: 2 / (x + 5),
      lambda x: -x @ torch.ones(5, 2),
      lambda x: logits + x,
      lambda x: x + x,
      lambda x: x > 0,
      lambda x: x == logits,
      lambda x: x[..., :-1],
      lambda x: x.double().sum(-1),
      lambda x: torch.argmax(x, -1),
      lambda x: torch.where(x > 0, x, 0),
      lambda x: torch.cat([x, x], -1),
      lambda x: torch.softmax(x, dim=-1),
      lambda x: functional.log_softmax(x, dim=-1),
      lambda x: functional.cross_entropy(x.flatten(0, 1), targets.flatten(), reduction='none'),
      lambda x: functional.cross_entropy(x, targets[:, :1].expand(3, 5) % 4),
      lambda x: torch.from_numpy(np.asarray(x)),
      lambda x: torch.stack(list(x)),
      lambda x: self.layers.token_loss(targets, x)['per_example'],
    )
    for number, compute in enumerate(computations):
      found, expected = compute(self.outputs(logits)), compute(logits)
      assert isinstance(found, torch.Tensor)
      torch.testing.assert_close(found, expected, msg=str(number))
    outputs = self.outputs(logits)
    assert (outputs.shape, outputs.dtype, outputs.ndim, len(outputs)) == (
      *(logits.shape, logits.dtype, logits.ndim),
      3,
    )

  def test_they_have_a_gradient_and_compile(self):
    torch = self.torch
    scale = torch.tensor(2.0, requires_grad=True)

    def loss(wrap):
      logits = wrap(scale * torch.tensor(LOGITS))
      return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.tensor(TARGETS).flatten()
      )

    (found,) = torch.autograd.grad(loss(self.outputs), scale)
    (expected,) = torch.autograd.grad(loss(lambda x: x), scale)
    torch.testing.assert_close(found, expected)
    compiled = torch.compile(self.outputs, backend='eager', fullgraph=True)
    outputs = compiled(torch.tensor(LOGITS))
    assert isinstance(outputs, self.layers.Outputs)
    torch.testing.assert_close(outputs.auxiliary['balance'], torch.tensor(LOGITS).square().mean())
