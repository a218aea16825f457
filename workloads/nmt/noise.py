"""Noise in training targets: words that are replaced at random."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from algorithmic_efficiency.data import random_numbers
from algorithmic_efficiency.data.random_numbers import ExampleRandom

from .data_records import ParallelText
from .text_files import Pair

_POOL_WORDS = 1_000_000
_MAX_TRIES = 20  # of drawing a word that differs; only a text of one word needs more


@dataclass(frozen=True)
class Noise:
  """Replaces each target word with a given probability by a word that occurs elsewhere.

  What is replaced depends on the seed and the number of the pair alone. A word that is replaced at
  a rate is replaced by the same word at each higher rate, so texts of one seed are comparable.

  Attributes:
    rate: probability of a word to be replaced.
    seed: seed of what is replaced, and by what.
    pool: words as they occur in the training targets: frequent words are drawn often.
  """

  rate: float
  seed: int
  pool: Sequence[str]

  @classmethod
  def of(cls, data: ParallelText, pairs: Callable[[], Iterable[Pair]]) -> Noise:
    """Takes the words of the first targets of the training text."""
    words = itertools.chain.from_iterable(pair.target.split() for pair in pairs())
    return cls(data.noise_rate, data.noise_seed, list(itertools.islice(words, _POOL_WORDS)))

  def replaced(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Yields the pairs with their noise."""
    for number, pair in enumerate(pairs):
      (key,) = random_numbers.keys(self.seed, np.zeros(1, np.int64), np.array([number])).tolist()
      random = ExampleRandom(key)
      yield pair._replace(target=' '.join(self._word(one, random) for one in pair.target.split()))

  def _word(self, word: str, random: ExampleRandom) -> str:
    # A word takes two draws whether it is replaced or not: others do not depend on it.
    is_kept, other = random.uniform() >= self.rate, random.integer(1 << 32)
    if is_kept:
      return word
    tries = (self.pool[(other + number) % len(self.pool)] for number in range(_MAX_TRIES))
    return next((found for found in tries if found != word), word)
