"""Token cross entropy that need not hold the logits of a large vocabulary at once.

Shapes: hidden states [batch, length, dim], kernel [vocab, dim], logits [batch, length, vocab].
The loss is computed in float32, or in float64 where the logits are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional as F

from algorithmic_efficiency.layers._torch_logits import Factors, LazyLogits, product
from algorithmic_efficiency.layers._torch_plain import is_plain
from algorithmic_efficiency.layers.chunks import chunk_length

# Arrays as large as the logits of a chunk that are held at once.
_NUM_ARRAYS = 2  # the logits and what is computed of them
_NUM_ARRAYS_IN_PLACE = 1  # the logits, which become their gradient block by block
# Each block is a dozen calls, so that there are fewer of small ones; more would save little memory.
_MIN_BLOCK_BYTES = 16 * 2**20
_MAX_NUM_BLOCKS = 8


def vocab_logits(hidden: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
  """Returns the logits `hidden @ kernel.T`, of which `token_loss` need not hold all at once.

  Large logits are computed when an operation first asks for them; see `LazyLogits`.

  Args:
    hidden: [batch, length, dim], in the type in which the logits are computed.
    kernel: [vocab, dim], in the type of the parameters, in which its gradient is accumulated.
  """
  if not is_plain() and _chunk_length(hidden, kernel) < hidden.shape[1]:
    return LazyLogits.of(hidden, kernel)
  return product(hidden, kernel)


def token_loss(
  targets: torch.Tensor,
  logits: torch.Tensor,
  mask: torch.Tensor | None = None,
  label_smoothing: float = 0.0,
) -> dict[str, torch.Tensor]:
  """Softmax cross entropy of every token, in nats.

  Cuts large logits into chunks of positions if they are the very tensor of `vocab_logits`, and
  nothing has asked for their values or their gradient. The gradient of `summed` is then computed
  along with it, chunk by chunk; that of `per_example` computes the logits a second time. Any other
  tensor is taken as it is.

  Args:
    targets: the right token, int [batch, length]; or the right class, int [batch].
    logits: [batch, length, vocab]; or [batch, classes].
    mask: weight of every token, [batch, length], or of every example, [batch].
    label_smoothing: the part of the target's probability that is spread evenly over the
      vocabulary.

  Returns:
    `summed`, `n_valid_examples` (the sum of the mask over tokens, or the number of tokens) and
    `per_example`, of the shape of the targets, which the mask multiplies.

  Raises:
    RuntimeError: the parameters have changed since these large logits were asked of the model.
  """
  if mask is None:
    mask = torch.ones(targets.shape, device=targets.device)
  weights = spread_weights(mask, targets).to(_loss_dtype(logits))
  factors = _factors(logits)
  if factors is not None and torch.is_grad_enabled():
    summed, losses = _ChunkedLosses.apply(*factors, targets, weights, label_smoothing)
    per_example = losses * weights
  else:
    per_example = _losses_of(logits, factors, targets, label_smoothing) * weights
    summed = per_example.sum()
  return {
    'summed': summed,
    'n_valid_examples': weights.sum(),
    'per_example': per_example,
  }


def spread_weights(weights: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
  """Returns weights of the shape of the targets.

  Args:
    weights: of examples, [batch], or of their parts, such as tokens, [batch, length].
    targets: [batch], or [batch, length].
  """
  ones = [1] * (targets.dim() - weights.dim())
  return weights.reshape(*weights.shape, *ones).expand(targets.shape)


@torch.no_grad()
def token_sums(
  targets: torch.Tensor,
  logits: torch.Tensor,
  weights: torch.Tensor,
  target_bytes: torch.Tensor | None = None,
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
  """Sum and weight of every metric over the tokens that count; without gradients.

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
  weights = weights.to(losses.dtype)
  summed, num_tokens = (losses * weights).sum(), weights.sum()
  sums = {
    'loss': (summed, num_tokens),
    'accuracy': ((is_correct * weights).sum(), num_tokens),
  }
  if target_bytes is not None:
    sums['bits_per_byte'] = (summed / math.log(2), (target_bytes * weights).sum())
  return sums


def token_results(targets: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
  """Loss of every token in nats, and whether it has the largest logit; without gradients.

  Args:
    targets: the right token, int [batch, length].
    logits: [batch, length, vocab], cut as those of `token_loss` are. Of equal ones, the first
      counts as the largest.

  Returns:
    Losses, float32 or wider, and bool, both [batch, length].
  """
  losses, is_correct = [], []
  factors = _factors(logits)
  parts = [(logits, targets)] if factors is None else _logit_chunks(*factors, targets)
  for array, part_targets in parts:
    losses.append(_losses(array, part_targets, 0.0))
    is_correct.append(array.argmax(dim=-1) == part_targets)
  return torch.cat(losses, dim=1), torch.cat(is_correct, dim=1)


def _factors(logits: torch.Tensor) -> Factors | None:
  """Hidden states and kernel of logits that are still to be computed; None for any other tensor.

  None within `plain_kernels`, too.
  """
  return logits.factors() if isinstance(logits, LazyLogits) and not is_plain() else None


def _loss_dtype(tensor: torch.Tensor) -> torch.dtype:
  return torch.promote_types(tensor.dtype, torch.float32)


def _chunk_length(hidden: torch.Tensor, kernel: torch.Tensor, num_arrays: int = _NUM_ARRAYS) -> int:
  """Positions of a chunk of the logits."""
  batch_size, length, _ = hidden.shape
  return chunk_length(
    batch_size=batch_size,
    length=length,
    vocab_size=len(kernel),
    itemsize=_loss_dtype(hidden).itemsize,
    num_arrays=num_arrays,
  )


def _chunks(
  hidden: torch.Tensor,
  kernel: torch.Tensor,
  *per_token: torch.Tensor,
  num_arrays: int = _NUM_ARRAYS,
) -> Iterator[tuple[torch.Tensor, ...]]:
  """Parts of the length: of the hidden states, and of tensors [batch, length]."""
  size = _chunk_length(hidden, kernel, num_arrays)
  return zip(*(x.split(size, dim=1) for x in (hidden, *per_token)), strict=True)


def _logit_chunks(
  hidden: torch.Tensor, kernel: torch.Tensor, *per_token: torch.Tensor
) -> Iterator[tuple[torch.Tensor, ...]]:
  """As `_chunks`, with the logits in place of the hidden states."""
  kernel = kernel.to(hidden.dtype)
  for part, *rest in _chunks(hidden, kernel, *per_token):
    yield product(part, kernel), *rest


def _losses(logits: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
  """Losses [batch, length] of logits."""
  losses = F.cross_entropy(
    logits.to(_loss_dtype(logits)).flatten(0, -2),
    targets.long().flatten(),
    reduction='none',
    label_smoothing=label_smoothing,
  )
  return losses.view(targets.shape)


def _losses_of(
  logits: torch.Tensor, factors: Factors | None, targets: torch.Tensor, label_smoothing: float
) -> torch.Tensor:
  if factors is None:
    return _losses(logits, targets, label_smoothing)
  return _losses_by_chunk(*factors, targets, label_smoothing)


def _losses_by_chunk(
  hidden: torch.Tensor, kernel: torch.Tensor, targets: torch.Tensor, label_smoothing: float
) -> torch.Tensor:
  parts = _logit_chunks(hidden, kernel, targets)
  return torch.cat([_losses(array, rows, label_smoothing) for array, rows in parts], dim=1)


class _ChunkedLosses(torch.autograd.Function):
  """The weighted sum of the losses, and the losses [batch, length], chunk by chunk.

  The forward pass also computes the gradients of the sum, and the backward pass only scales them in
  place. The backward pass computes the chunks again if it runs a second time, or if the gradients
  depend on single losses. For gradients of gradients it holds all chunks.
  """

  @staticmethod
  def forward(
    ctx: Any,
    hidden: torch.Tensor,
    kernel: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    label_smoothing: float,
  ) -> tuple[torch.Tensor, torch.Tensor]:
    losses, *ctx.gradients = _losses_and_gradients(
      hidden, kernel, targets, weights, label_smoothing
    )
    ctx.save_for_backward(hidden, kernel, targets, weights, losses)
    ctx.label_smoothing = label_smoothing
    ctx.set_materialize_grads(False)
    return (losses * weights).sum(), losses

  @staticmethod
  def backward(ctx: Any, of_sum: torch.Tensor | None, of_losses: torch.Tensor | None) -> Any:
    hidden, kernel, targets, weights, losses = ctx.saved_tensors
    gradients, ctx.gradients = ctx.gradients, None
    of_tokens = 0 if of_losses is None else of_losses
    of_tokens = of_tokens if of_sum is None else of_tokens + of_sum * weights
    if torch.is_grad_enabled():
      again = _losses_by_chunk(hidden, kernel, targets, ctx.label_smoothing)
      gradients = [
        torch.autograd.grad(again, x, of_tokens, create_graph=True)[0] if is_needed else None
        for x, is_needed in zip((hidden, kernel), ctx.needs_input_grad, strict=False)
      ]
    elif gradients is None or of_losses is not None:
      _, *gradients = _losses_and_gradients(hidden, kernel, targets, of_tokens, ctx.label_smoothing)
    else:
      for gradient in gradients:
        gradient.mul_(of_sum)
    of_weights = None if of_sum is None else of_sum * losses
    return *gradients, None, of_weights, None


@torch.no_grad()
def _losses_and_gradients(
  hidden: torch.Tensor,
  kernel: torch.Tensor,
  targets: torch.Tensor,
  weights: torch.Tensor,
  label_smoothing: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
  """The losses, and the gradients of their weighted sum to the hidden states and the kernel."""
  narrow = kernel.to(hidden.dtype)
  kernel_gradient = torch.zeros_like(kernel)
  chunks = _chunks(hidden, narrow, targets, weights, num_arrays=_NUM_ARRAYS_IN_PLACE)
  parts = [
    _add_chunk(kernel_gradient, narrow, *chunk, label_smoothing=label_smoothing) for chunk in chunks
  ]
  losses, hidden_gradients = zip(*parts, strict=True)
  return torch.cat(losses, dim=1), torch.cat(hidden_gradients, dim=1), kernel_gradient


def _add_chunk(
  kernel_gradient: torch.Tensor,
  kernel: torch.Tensor,
  hidden: torch.Tensor,
  targets: torch.Tensor,
  weights: torch.Tensor,
  *,
  label_smoothing: float,
) -> tuple[torch.Tensor, torch.Tensor]:
  """Adds a chunk's gradient to that of the kernel; gives its losses, and that to hidden states."""
  logits = product(hidden, kernel)
  rows = logits.view(-1, logits.shape[-1])
  size = _block_length(rows)
  columns = (rows, targets.reshape(-1, 1), weights.reshape(-1, 1))
  losses = [
    _into_gradient(*block, label_smoothing=label_smoothing)
    for block in zip(*(column.split(size) for column in columns), strict=True)
  ]
  _add_product(kernel_gradient, rows.T, hidden.flatten(0, 1))
  return torch.cat(losses).view(targets.shape), logits @ kernel


def _block_length(rows: torch.Tensor) -> int:
  """Rows of a block of the logits [rows, vocab]; a compiler fuses what is done to all of them."""
  if torch.compiler.is_compiling():
    return len(rows)
  num_bytes = rows.numel() * torch.promote_types(rows.dtype, torch.float32).itemsize
  num_blocks = max(1, min(num_bytes // _MIN_BLOCK_BYTES, _MAX_NUM_BLOCKS))
  return -(-len(rows) // num_blocks)


def _into_gradient(
  logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, *, label_smoothing: float
) -> torch.Tensor:
  """Puts into the place of logits [rows, vocab] the gradient of the weighted sum of their losses.

  Args:
    targets, weights: [rows, 1].

  Returns:
    The losses [rows, 1].
  """
  log_probs = torch.log_softmax(logits, dim=-1, dtype=weights.dtype)
  index = targets.long()
  of_targets = log_probs.gather(-1, index)
  losses = -of_targets
  if label_smoothing:
    losses = (1 - label_smoothing) * losses - label_smoothing * log_probs.mean(-1, keepdim=True)
  gradient = log_probs.exp_()
  gradient.scatter_add_(-1, index, torch.full_like(of_targets, label_smoothing - 1))
  if label_smoothing:
    gradient -= label_smoothing / logits.shape[-1]
  torch.mul(gradient, weights, out=logits)
  return losses


def _add_product(total: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> None:
  """Adds x @ y, in place where the types are the same."""
  if total.dtype == x.dtype:
    total.addmm_(x, y)
  else:
    total += x @ y
