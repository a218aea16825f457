"""Moves every parameter by the learning rate, in the direction of its momentum."""

import jax
import jax.numpy as jnp
import optax


def scale_by_sign_of_momentum(momentum):
  """Replaces gradients by the sign of their running mean."""

  def init(params):
    return jax.tree.map(jnp.zeros_like, params)

  def update(gradients, means, params=None):
    means = jax.tree.map(lambda m, g: momentum * m + (1 - momentum) * g, means, gradients)
    return jax.tree.map(jnp.sign, means), means

  return optax.GradientTransformation(init, update)


def sign_momentum(learning_rate, momentum=0.9, weight_decay=0.0):
  """Returns the whole optimizer."""
  return optax.chain(
    scale_by_sign_of_momentum(momentum),
    optax.add_decayed_weights(weight_decay),
    optax.scale_by_learning_rate(learning_rate),
  )
