"""Loss and metrics of classifiers, whose targets are classes or probabilities of classes."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp


def class_loss(
  targets: jax.Array,
  logits: jax.Array,
  mask: jax.Array | None = None,
  label_smoothing: float | jax.Array = 0.0,
) -> dict[str, jax.Array]:
  """Softmax cross entropy of every example, in nats, in float32 or wider.

  Args:
    targets: the right class, int [batch]; or the probability of each class, [batch, classes], as
      mixed examples have it (Zhang et al., 2018, "mixup").
    logits: [batch, classes].
    mask: weight of every example, [batch].
    label_smoothing: the part of the targets' probability that is spread evenly over the classes.

  Returns:
    `summed`, `n_valid_examples` (the sum of the mask, or the number of examples) and `per_example`
    [batch], which the mask multiplies.
  """
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  num_classes = logits.shape[-1]
  if targets.ndim < logits.ndim:
    targets = jax.nn.one_hot(targets, num_classes, dtype=logits.dtype)
  targets = (1 - label_smoothing) * targets + label_smoothing / num_classes
  per_example = -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)
  if mask is None:
    mask = jnp.ones_like(per_example)
  per_example = per_example * mask
  return {
    'summed': jnp.sum(per_example),
    'n_valid_examples': jnp.sum(mask),
    'per_example': per_example,
  }


def class_sums(
  targets: jax.Array,
  logits: jax.Array,
  losses: Mapping[str, jax.Array],
  weights: jax.Array,
) -> dict[str, tuple[jax.Array, jax.Array]]:
  """Returns sum and weight of `accuracy` and `loss` of a classifier, for `eval_step`.

  Args:
    targets: the right class, int [batch], or of each part of an example, [batch, length].
    logits: [*targets, classes].
    losses: what the loss of the task gives for the same weights.
    weights: 1 for what counts and 0 for padding, in the shape of the targets.
  """
  is_correct = jnp.argmax(logits, axis=-1) == targets
  return {
    'accuracy': (jnp.sum(is_correct * weights), jnp.sum(weights)),
    'loss': (losses['summed'], losses['n_valid_examples']),
  }
