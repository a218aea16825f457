"""Loss and metrics of classifiers, whose targets are classes or probabilities of classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional as F


def class_loss(
  targets: torch.Tensor,
  logits: torch.Tensor,
  mask: torch.Tensor | None = None,
  label_smoothing: float = 0.0,
) -> dict[str, torch.Tensor]:
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
  logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
  targets = targets.long() if targets.dim() < logits.dim() else targets.to(logits.dtype)
  per_example = F.cross_entropy(logits, targets, reduction='none', label_smoothing=label_smoothing)
  if mask is None:
    mask = torch.ones_like(per_example)
  per_example = per_example * mask
  return {
    'summed': per_example.sum(),
    'n_valid_examples': mask.sum(),
    'per_example': per_example,
  }


def class_sums(
  targets: torch.Tensor,
  logits: torch.Tensor,
  losses: Mapping[str, torch.Tensor],
  weights: torch.Tensor,
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
  """Returns sum and weight of `accuracy` and `loss` of a classifier, for `eval_step`.

  Args:
    targets: the right class, int [batch], or of each part of an example, [batch, length].
    logits: [*targets, classes].
    losses: what the loss of the task gives for the same weights.
    weights: 1 for what counts and 0 for padding, in the shape of the targets.
  """
  is_correct = logits.argmax(dim=-1) == targets
  return {
    'accuracy': ((is_correct * weights).sum(), weights.sum()),
    'loss': (losses['summed'], losses['n_valid_examples']),
  }
