"""Token cross entropy that need not hold the logits of a large vocabulary at once.

Shapes: hidden states [batch, length, dim], kernel [vocab, dim], logits [batch, length, vocab].
The loss is computed in float32, or in float64 where the logits are.

Logits are an ordinary array. While a program is traced, the loss finds the hidden states and the
kernel of large logits by the identity of the array. It then computes the logits in chunks, and XLA
removes the unused product.
"""

from __future__ import annotations

import functools
import math
import weakref
from typing import Any

import jax
import jax.numpy as jnp

from algorithmic_efficiency.layers._jax_plain import is_plain
from algorithmic_efficiency.layers.chunks import chunk_length

_NUM_ARRAYS = 2  # the logits of a chunk, and their gradient
_NUM_PARTS = 8  # of the vocabulary, in which a chunk's gradient is added to that of the kernel

Factors = tuple[jax.Array, jax.Array]  # hidden states and kernel

# By the id of traced logits: a weak reference to them, and their factors. An entry goes with its
# logits, when their trace ends at the latest. Only a failed trace may keep entries, since factors
# can lead back to the logits; so the oldest go where there are many.
_MAX_NUM_ENTRIES = 64
_factors_by_id: dict[int, tuple[weakref.ref[jax.Array], Factors]] = {}


def vocab_logits(hidden: jax.Array, kernel: jax.Array) -> jax.Array:
  """Returns the logits `hidden @ kernel.T`, of which `token_loss` need not hold all at once.

  Args:
    hidden: [batch, length, dim], in the type in which the logits are computed.
    kernel: [vocab, dim], in the type of the parameters, in which its gradient is accumulated.
  """
  logits = _project(hidden, kernel)
  if isinstance(logits, jax.core.Tracer) and _is_cut(hidden, kernel):
    key = id(logits)
    reference = weakref.ref(logits, lambda _: _factors_by_id.pop(key, None))
    _factors_by_id[key] = reference, (hidden, kernel)
    if len(_factors_by_id) > _MAX_NUM_ENTRIES:
      del _factors_by_id[next(iter(_factors_by_id))]
  return logits


def _factors(logits: jax.Array) -> Factors | None:
  """Hidden states and kernel of large logits that are traced; None for any other array.

  None within `plain_kernels`, too.
  """
  if is_plain():
    return None
  reference, factors = _factors_by_id.get(id(logits), (None, None))
  return factors if reference is not None and reference() is logits else None


def token_loss(
  targets: jax.Array,
  logits: jax.Array,
  mask: jax.Array | None = None,
  label_smoothing: float | jax.Array = 0.0,
) -> dict[str, jax.Array]:
  """Softmax cross entropy of every token, in nats.

  Cuts large logits into chunks of positions if they are the very array of `vocab_logits`, in the
  same trace. The gradient of `summed` is then computed along with it, chunk by chunk; that of
  `per_example` computes the logits a second time. Any other array is taken as it is.

  Args:
    targets: the right token, int [batch, length]; or the right class, int [batch].
    logits: [batch, length, vocab]; or [batch, classes].
    mask: weight of every token, [batch, length], or of every example, [batch].
    label_smoothing: the part of the target's probability that is spread evenly over the
      vocabulary. Chunked losses are not differentiated with respect to it.

  Returns:
    `summed`, `n_valid_examples` (the sum of the mask over tokens, or the number of tokens) and
    `per_example`, of the shape of the targets, which the mask multiplies.
  """
  dtype = _loss_dtype(logits)
  mask = jnp.ones(targets.shape, dtype) if mask is None else mask.astype(dtype)
  weights = spread_weights(mask, targets)
  factors = _factors(logits)
  if factors is not None:
    size = _chunk_length(*factors)
    summed, losses = _chunked_losses(size, *factors, targets, weights, label_smoothing)
    per_example = losses * weights
  else:
    per_example = _losses(logits, targets, label_smoothing) * weights
    summed = jnp.sum(per_example)
  return {
    'summed': summed,
    'n_valid_examples': jnp.sum(weights),
    'per_example': per_example,
  }


def spread_weights(weights: jax.Array, targets: jax.Array) -> jax.Array:
  """Returns weights of the shape of the targets.

  Args:
    weights: of examples, [batch], or of their parts, such as tokens, [batch, length].
    targets: [batch], or [batch, length].
  """
  ones = [1] * (targets.ndim - weights.ndim)
  return jnp.broadcast_to(weights.reshape(*weights.shape, *ones), targets.shape)


def token_sums(
  targets: jax.Array,
  logits: jax.Array,
  weights: jax.Array,
  target_bytes: jax.Array | None = None,
) -> dict[str, tuple[jax.Array, jax.Array]]:
  """Sum and weight of every metric over the tokens that count.

  Args:
    targets: the right token, int [batch, length].
    logits: [batch, length, vocab], cut as those of `token_loss` are.
    weights: 1 for a token that counts and 0 for padding, [batch, length].
    target_bytes: the bytes of text that each target stands for, [batch, length]; None if unknown.

  Returns:
    `loss` in nats a token, `accuracy` (of logits that tie, the first counts), and `bits_per_byte`
    where the bytes are known.
  """
  losses, is_correct = token_results(targets, logits)
  weights = weights.astype(losses.dtype)
  summed, num_tokens = jnp.sum(losses * weights), jnp.sum(weights)
  sums = {
    'loss': (summed, num_tokens),
    'accuracy': (jnp.sum(is_correct * weights), num_tokens),
  }
  if target_bytes is not None:
    sums['bits_per_byte'] = (summed / math.log(2), jnp.sum(target_bytes * weights))
  return sums


def token_results(targets: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Loss of every token in nats, and whether it has the largest logit.

  Args:
    targets: the right token, int [batch, length].
    logits: [batch, length, vocab], cut as those of `token_loss` are. Of equal ones, the first
      counts as the largest.

  Returns:
    Losses, float32 or wider, and bool, both [batch, length].
  """

  def evaluated(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _losses(logits, targets, 0.0), jnp.argmax(logits, axis=-1) == targets

  factors = _factors(logits)
  if factors is None:
    return evaluated(logits, targets)
  hidden, kernel = factors
  size = _chunk_length(hidden, kernel)
  chunks = (_split(hidden, size), _split(targets, size))
  kernel = kernel.astype(hidden.dtype)
  results = jax.lax.map(lambda chunk: evaluated(_project(chunk[0], kernel), chunk[1]), chunks)
  losses, is_correct = (_join(result, targets.shape[1]) for result in results)
  return losses, is_correct


def _loss_dtype(array: jax.Array) -> Any:
  return jnp.promote_types(array.dtype, jnp.float32)


def _is_cut(hidden: jax.Array, kernel: jax.Array) -> bool:
  return _chunk_length(hidden, kernel) < hidden.shape[1]


def _chunk_length(hidden: jax.Array, kernel: jax.Array) -> int:
  """Positions of a chunk of the logits."""
  batch_size, length, _ = hidden.shape
  return chunk_length(
    batch_size=batch_size,
    length=length,
    vocab_size=len(kernel),
    itemsize=jnp.dtype(_loss_dtype(hidden)).itemsize,
    num_arrays=_NUM_ARRAYS,
  )


def _project(hidden: jax.Array, kernel: jax.Array) -> jax.Array:
  """Logits, in the type of the hidden states."""
  return jnp.einsum('bld,vd->blv', hidden, kernel.astype(hidden.dtype))


def _losses(logits: jax.Array, targets: jax.Array, label_smoothing: float | jax.Array) -> jax.Array:
  """Losses [batch, length] of logits."""
  log_probs = _log_probs(logits)
  # Not a gather, whose gradient is a scatter with a buffer of its own.
  losses = -jnp.sum(log_probs * _is_target(logits, targets), axis=-1)
  if isinstance(label_smoothing, (int, float)) and label_smoothing == 0:
    return losses
  return (1 - label_smoothing) * losses - label_smoothing * jnp.mean(log_probs, axis=-1)


def _log_probs(logits: jax.Array) -> jax.Array:
  return jax.nn.log_softmax(logits.astype(_loss_dtype(logits)))


def _is_target(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Bool [batch, length, vocab]."""
  return jnp.arange(logits.shape[-1]) == targets[..., None]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _chunked_losses(
  size: int,
  hidden: jax.Array,
  kernel: jax.Array,
  targets: jax.Array,
  weights: jax.Array,
  label_smoothing: float | jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """The weighted sum of the losses, and the losses [batch, length], in chunks of `size`."""
  losses = _losses_by_chunk(size, hidden, kernel, targets, label_smoothing)
  return jnp.sum(losses * weights), losses


@_chunked_losses.defjvp
def _chunked_losses_jvp(size: int, primals: Any, tangents: Any) -> Any:
  """Gradients of the sum are known before the tangents are, so its transpose only scales them.

  What belongs to the losses themselves is dead code where their cotangent is zero.
  """
  hidden, kernel, targets, weights, label_smoothing = primals
  hidden_dot, kernel_dot, _, weights_dot, _ = tangents
  losses, hidden_gradient, kernel_gradient = _losses_and_gradients(size, *primals)
  summed_dot = (
    _dot(hidden_gradient, hidden_dot)
    + _dot(kernel_gradient, kernel_dot)
    + _dot(losses, weights_dot)
  )
  _, losses_dot = jax.jvp(
    lambda hidden, kernel: _losses_by_chunk(size, hidden, kernel, targets, label_smoothing),
    (hidden, kernel),
    (hidden_dot, kernel_dot),
  )
  return (jnp.sum(losses * weights), losses), (summed_dot, losses_dot)


def _losses_by_chunk(
  size: int,
  hidden: jax.Array,
  kernel: jax.Array,
  targets: jax.Array,
  label_smoothing: float | jax.Array,
) -> jax.Array:
  @jax.checkpoint
  def losses(chunk: tuple[jax.Array, jax.Array]) -> jax.Array:
    hidden, targets = chunk
    return _losses(_project(hidden, kernel), targets, label_smoothing)

  return _join(jax.lax.map(losses, (_split(hidden, size), _split(targets, size))), targets.shape[1])


def _losses_and_gradients(
  size: int,
  hidden: jax.Array,
  kernel: jax.Array,
  targets: jax.Array,
  weights: jax.Array,
  label_smoothing: float | jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The losses, and the gradients of their weighted sum to the hidden states and the kernel."""
  narrow = kernel.astype(hidden.dtype)

  @jax.checkpoint
  def add_chunk(kernel_gradient: jax.Array, chunk: Any) -> tuple[jax.Array, Any]:
    hidden, targets, weights = chunk
    logits = _project(hidden, narrow)
    wide = logits.astype(weights.dtype)
    highest = jnp.max(wide, axis=-1, keepdims=True)
    log_sum = jnp.log(jnp.sum(jnp.exp(wide - highest), axis=-1, keepdims=True))
    is_target = _is_target(logits, targets)
    of_target = jnp.sum((wide - highest) * is_target, axis=-1)
    losses = log_sum[..., 0] - (1 - label_smoothing) * of_target
    losses -= label_smoothing * jnp.mean(wide - highest, axis=-1)
    weights = weights[..., None]
    gradient = (jnp.exp(wide - highest - log_sum) - label_smoothing / len(kernel)) * weights
    gradient -= is_target * ((1 - label_smoothing) * weights)
    gradient = gradient.astype(hidden.dtype)
    kernel_gradient = _add_by_parts(kernel_gradient, gradient, hidden)
    return kernel_gradient, (losses, gradient @ narrow)

  chunks = tuple(_split(x, size) for x in (hidden, targets, weights))
  kernel_gradient, per_token = jax.lax.scan(add_chunk, jnp.zeros_like(kernel), chunks)
  losses, hidden_gradient = (_join(x, hidden.shape[1]) for x in per_token)
  return losses, hidden_gradient, kernel_gradient


def _add_by_parts(kernel_gradient: jax.Array, gradient: jax.Array, hidden: jax.Array) -> jax.Array:
  """Adds the gradient of a chunk to the kernel's, a part of the vocabulary at a time, so that no
  second array of the kernel's size is held."""
  vocab_size = len(kernel_gradient)
  size = -(-vocab_size // _NUM_PARTS)

  def add_part(part: jax.Array, kernel_gradient: jax.Array) -> jax.Array:
    first = jnp.minimum(part * size, vocab_size - size)  # the last part reaches back
    words = jax.lax.dynamic_slice_in_dim(gradient, first, size, axis=-1)
    words *= first + jnp.arange(size) >= part * size
    added = jnp.einsum('blv,bld->vd', words, hidden, preferred_element_type=kernel_gradient.dtype)
    added += jax.lax.dynamic_slice_in_dim(kernel_gradient, first, size)
    return jax.lax.dynamic_update_slice_in_dim(kernel_gradient, added, first, 0)

  return jax.lax.fori_loop(0, _NUM_PARTS, add_part, kernel_gradient)


def _split(x: jax.Array, size: int) -> jax.Array:
  """[batch, length, ...] -> [chunks, batch, size, ...], with zeros after the last position."""
  x = jnp.pad(x, [(0, 0), (0, -x.shape[1] % size), *[(0, 0)] * (x.ndim - 2)])
  return jnp.moveaxis(x.reshape(x.shape[0], -1, size, *x.shape[2:]), 1, 0)


def _join(x: jax.Array, length: int) -> jax.Array:
  """[chunks, batch, size, ...] -> [batch, length, ...], the inverse of `_split`."""
  x = jnp.moveaxis(x, 0, 1)
  return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :length]


def _dot(x: jax.Array, y: jax.Array) -> jax.Array:
  """The sum of the products, in float32 or wider: its cotangent, which scales x, is not rounded."""
  dtype = jnp.promote_types(x.dtype, jnp.float32)
  return jnp.sum(x.astype(dtype) * y.astype(dtype))
