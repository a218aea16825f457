"""Batches of generated pairs of sentences, in the forms of training and of evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EOS = 2
FIRST = 3  # the first token that is neither padding nor a mark


@dataclass(frozen=True)
class Pair:
  """Tokens of a source and a target, each with its end."""

  source: np.ndarray
  target: np.ndarray


def pairs(count: int, *, vocab_size: int, max_length: int, seed: int) -> list[Pair]:
  """Pairs of all lengths from 2 on."""
  random = np.random.default_rng(seed)

  def sentence() -> np.ndarray:
    length = random.integers(2, max_length + 1)
    return np.append(random.integers(FIRST, vocab_size, length - 1), EOS).astype(np.int32)

  return [Pair(sentence(), sentence()) for _ in range(count)]


def one_a_row(rows: list[Pair], length: int) -> dict[str, np.ndarray]:
  """The batch of an evaluation, padded to a length."""
  inputs, targets = (
    np.stack([np.pad(one, (0, length - len(one))) for one in side])
    for side in ([row.source for row in rows], [row.target for row in rows])
  )
  return {'inputs': inputs, 'targets': targets, 'weights': (targets > 0).astype(np.float32)}


def packed(rows: list[list[Pair]], length: int) -> dict[str, np.ndarray]:
  """The batch of training, whose rows hold several pairs."""
  batch = {}
  for side, name in (('source', 'inputs'), ('target', 'targets')):
    tokens = [[getattr(pair, side) for pair in row] for row in rows]
    parts = {
      name: tokens,
      f'{name}_position': [[np.arange(len(one)) for one in row] for row in tokens],
      f'{name}_segmentation': [
        [np.full(len(one), number) for number, one in enumerate(row, 1)] for row in tokens
      ],
    }
    for key, content in parts.items():
      joined = [np.concatenate(row) for row in content]
      batch[key] = np.stack([np.pad(one, (0, length - len(one))) for one in joined])
  batch = {key: array.astype(np.int32) for key, array in batch.items()}
  return {**batch, 'weights': (batch['targets'] > 0).astype(np.float32)}
