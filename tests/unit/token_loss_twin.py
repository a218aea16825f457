"""The token loss as formulas in numpy, float64: what both frameworks are held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from algorithmic_efficiency.layers import chunks


@dataclass(frozen=True, kw_only=True)
class Case:
  """Inputs of the loss; `of_tokens` [batch, length] are weights for an objective of its own."""

  hidden: np.ndarray
  kernel: np.ndarray
  targets: np.ndarray
  mask: np.ndarray
  of_tokens: np.ndarray

  @property
  def logits(self) -> np.ndarray:
    return np.einsum('bld,vd->blv', self.hidden, self.kernel)


def case(
  batch_size: int = 3, length: int = 37, vocab_size: int = 50, dim: int = 8, seed: int = 0
) -> Case:
  rng = np.random.default_rng(seed)
  shape = (batch_size, length)
  return Case(
    hidden=rng.standard_normal((*shape, dim)),
    kernel=rng.standard_normal((vocab_size, dim)),
    targets=rng.integers(0, vocab_size, shape).astype(np.int32),
    mask=rng.integers(0, 2, shape) * rng.uniform(0.5, 1, shape),
    of_tokens=rng.standard_normal(shape),
  )


def cut(monkeypatch, one: Case, num_chunks: int = 5) -> int:
  """Has logits as large as those of the case, in float64, cut into so many chunks where two arrays
  of the size of one are held at once; returns the length of a chunk."""
  monkeypatch.setattr(chunks, '_WORK_BYTES', max(2 * 8 * one.logits.size // num_chunks, 1))
  return chunk_length(one, num_arrays=2)


def chunk_length(one: Case, num_arrays: int) -> int:
  batch_size, length, vocab_size = one.logits.shape
  sizes = {'batch_size': batch_size, 'length': length, 'vocab_size': vocab_size}
  return chunks.chunk_length(**sizes, itemsize=8, num_arrays=num_arrays)


def log_probs(one: Case) -> np.ndarray:
  shifted = one.logits - one.logits.max(-1, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def losses(one: Case, label_smoothing: float = 0.0) -> np.ndarray:
  """Of every token [batch, length], before any mask."""
  probs = (1 - label_smoothing) * one_hot(one) + label_smoothing / len(one.kernel)
  return -(probs * log_probs(one)).sum(-1)


def gradients(
  one: Case, of_tokens: np.ndarray, label_smoothing: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
  """To the hidden states and the kernel, of the sum of the losses with these weights."""
  probs = (1 - label_smoothing) * one_hot(one) + label_smoothing / len(one.kernel)
  of_logits = of_tokens[..., None] * (np.exp(log_probs(one)) - probs)
  return of_logits @ one.kernel, np.einsum('blv,bld->vd', of_logits, one.hidden)


def one_hot(one: Case) -> np.ndarray:
  return np.eye(len(one.kernel))[one.targets]


def assert_close(found: object, expected: np.ndarray, tolerance: float) -> None:
  """Within a part of the largest element."""
  found = np.asarray(found, np.float64)
  assert found.shape == expected.shape
  np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def sums(one: Case, target_bytes: np.ndarray) -> dict[str, tuple[float, float]]:
  """Of the tokens, weighted by the mask; the loss in nats, bits by byte of text."""
  summed, num_tokens = (losses(one) * one.mask).sum(), one.mask.sum()
  is_correct = one.logits.argmax(-1) == one.targets
  return {
    'loss': (summed, num_tokens),
    'accuracy': ((is_correct * one.mask).sum(), num_tokens),
    'bits_per_byte': (summed / np.log(2), (target_bytes * one.mask).sum()),
  }


def with_ties(one: Case) -> Case:
  """Each row of the kernel twice, whole numbers, and targets among the largest logits."""
  half = np.round(one.kernel[: len(one.kernel) // 2])
  tied = replace(one, hidden=np.round(one.hidden), kernel=np.concatenate([half, half]))
  best = tied.logits.argmax(-1)
  return replace(tied, targets=np.where(one.targets % 2, best, best + len(half)).astype(np.int32))


def rounded(one: Case, to: Callable[[np.ndarray], np.ndarray]) -> Case:
  """With hidden states and kernel that a narrower type holds exactly."""
  return replace(one, hidden=to(one.hidden), kernel=to(one.kernel))
