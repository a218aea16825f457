"""A randomization test of many pairs at once: flip the signs of whole blocks, look at the largest.

A block is a study on a workload, with a difference of log times for each pair of submissions. If
the two of a pair are equal, the sign of its difference says nothing. So all signs of a block are
flipped together, which keeps what pairs have in common. The p of a pair is the share of patterns of
signs that give any remaining pair a statistic as large as its own. That is step-down max-T
(Westfall and Young 1993, Romano and Wolf 2005). The pairs are all those of the leaderboard,
whatever the data say.

The chance of any false verdict among all pairs stays within 5 %. The test is made at `LEVEL`, a bit
below: where many entries miss, differences are skewed, and signs can be flipped only nearly.

The statistic is the sum of the differences over the root of the sum of their squares. It grows with
Student's t and is free of the scale of a pair, and its denominator is the same for all signs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVEL = 0.04
NUM_PATTERNS = 10_000  # drawn, where there are more
_MAX_EXACT = 14  # blocks up to which every pattern is looked at
_TOLERANCE = 1e-5  # of single precision


@dataclass(frozen=True, kw_only=True)
class Signs:
  """Patterns of signs: [pattern, block] of -1 and 1; exact if they are all that differ."""

  patterns: np.ndarray
  exact: bool

  @classmethod
  def of(cls, num_blocks: int, seed: int, num_patterns: int = NUM_PATTERNS) -> Signs:
    """All patterns where they are few, random ones elsewhere.

    The first sign stays, as turning all of them changes no statistic.
    """
    if num_blocks <= _MAX_EXACT:
      bits = np.arange(2 ** max(0, num_blocks - 1))[:, None] >> np.arange(num_blocks) & 1
      return cls(patterns=(1 - 2 * bits).astype(np.float32), exact=True)
    rng = np.random.default_rng([seed, 3, num_blocks])
    bits = rng.integers(2, size=(num_patterns, num_blocks), dtype=np.int8)
    return cls(patterns=(1 - 2 * bits).astype(np.float32), exact=False)


@dataclass(frozen=True, kw_only=True)
class PValues:
  """[pair] each: the statistic, p of the pair alone, and p that is adjusted for all pairs."""

  statistics: np.ndarray
  alone: np.ndarray
  adjusted: np.ndarray


def least_p(num_blocks: int) -> float:
  """The smallest p that any differences in so many blocks can have."""
  if num_blocks <= _MAX_EXACT:
    return 2.0 ** (1 - max(1, num_blocks))
  return 1.0 / (1 + NUM_PATTERNS)


def step_down(differences: np.ndarray, signs: Signs) -> PValues:
  """Two-sided p-values of the hypotheses that both of a pair are equal.

  Args:
    differences: [pair, block], weighted; 0 where a pair has no such block.
  """
  norms = np.sqrt(np.sum(np.square(differences), axis=1, keepdims=True))
  scaled = np.divide(differences, norms, out=np.zeros(differences.shape), where=norms > 0)
  observed = scaled.sum(axis=1)
  sizes = np.abs(observed)
  order = np.argsort(-sizes, kind='stable')
  flipped = np.abs(scaled[order].astype(np.float32) @ signs.patterns.T)
  reached = (sizes[order] - _TOLERANCE).astype(np.float32)[:, None]
  alone = _shares(flipped >= reached, signs)
  largest = flipped.copy()  # of this pair and of all below it
  for pair in range(len(largest) - 2, -1, -1):  # several times faster than to accumulate
    np.maximum(largest[pair], largest[pair + 1], out=largest[pair])
  adjusted = np.maximum.accumulate(_shares(largest >= reached, signs))
  places = np.argsort(order)
  return PValues(statistics=observed, alone=alone[places], adjusted=adjusted[places])


def _shares(extreme: np.ndarray, signs: Signs) -> np.ndarray:
  """[pair]: the share of patterns that are as extreme; drawn ones and the one that was seen."""
  counts = np.count_nonzero(extreme, axis=1)
  if signs.exact:
    return counts / len(signs.patterns)
  return (1 + counts) / (1 + len(signs.patterns))
