"""One step by hand, and both versions against each other."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sign_momentum import sign_momentum

GRADIENTS = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)


def test_a_step_moves_against_the_sign_of_the_gradient():
  optimizer = sign_momentum(0.1)
  params = jnp.array([1.0, 1.0, 1.0])
  updates, _ = optimizer.update(jnp.array([2.0, -0.5, 0.0]), optimizer.init(params), params)
  np.testing.assert_allclose(updates, [-0.1, 0.1, 0.0])


def test_weights_decay():
  optimizer = sign_momentum(0.1, weight_decay=0.5)
  params = jnp.array([2.0])
  updates, _ = optimizer.update(jnp.array([0.0]), optimizer.init(params), params)
  np.testing.assert_allclose(updates, [-0.1])


def test_both_frameworks_take_the_same_steps():
  torch = pytest.importorskip('torch')
  from sign_momentum_torch import SignMomentum

  there = torch.nn.Parameter(torch.ones(3))
  in_torch = SignMomentum([there], lr=0.1)
  in_jax = sign_momentum(0.1)
  here = jnp.ones(3)
  state = in_jax.init(here)
  for gradient in GRADIENTS:
    there.grad = torch.tensor(gradient)
    in_torch.step()
    updates, state = in_jax.update(gradient, state, here)
    here = optax.apply_updates(here, updates)
  np.testing.assert_allclose(here, there.detach().numpy(), rtol=1e-6)
