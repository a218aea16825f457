"""Trains a byte-pair vocabulary (Sennrich et al., 2016).

Training repeatedly merges the most frequent pair of tokens in the words of the text into a new
token. Of equally frequent pairs, it merges the one with the older tokens. The result depends only
on the counts and not on their order.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

from algorithmic_efficiency.data.vocabulary import BYTE_TOKENS

_Pair = tuple[int, int]


def train(
  counts: Mapping[str, int], num_merges: int, progress: Callable[[int], None]
) -> list[tuple[bytes, bytes]]:
  """Returns the first `num_merges` merges, or fewer if the text has no more pairs.

  Args:
    counts: number of occurrences of each word.
    num_merges: largest number of merges.
    progress: called with the number of merges so far.
  """
  text = _Text(counts)
  tokens = list(BYTE_TOKENS)
  numbers = {token: number for number, token in enumerate(tokens)}
  merges: list[tuple[bytes, bytes]] = []
  for pair in text.most_frequent():
    if len(merges) == num_merges:
      break
    left, right = tokens[pair[0]], tokens[pair[1]]
    merged = numbers.setdefault(left + right, len(tokens))
    if merged == len(tokens):  # two pairs can make the same token
      tokens.append(left + right)
      merges.append((left, right))
      progress(len(merges))
    text.merge(pair, merged)
  return merges


class _Text:
  """The distinct words as token numbers, with the count and the words of each pair."""

  def __init__(self, counts: Mapping[str, int]):
    byte_number = {token[0]: number for number, token in enumerate(BYTE_TOKENS)}
    self._words = [[byte_number[byte] for byte in word.encode()] for word in counts]
    self._counts = list(counts.values())
    self._pairs: Counter[_Pair] = Counter()
    self._places: defaultdict[_Pair, set[int]] = defaultdict(set)
    for place in range(len(self._words)):
      self._count(self._pairs, place, 1)
    self._heap = [(-count, pair) for pair, count in self._pairs.items()]
    heapq.heapify(self._heap)

  def most_frequent(self) -> Iterator[_Pair]:
    """Yields the currently most frequent pair; skips entries that a merge has outdated."""
    while self._heap:
      count, pair = heapq.heappop(self._heap)
      if self._pairs[pair] == -count and count:
        yield pair

  def merge(self, pair: _Pair, merged: int) -> None:
    """Replaces the pair by one token in all words."""
    changes: Counter[_Pair] = Counter()
    for place in self._places.pop(pair):
      self._count(changes, place, -1)
      self._words[place] = _replaced(self._words[place], pair, merged)
      self._count(changes, place, 1)
    for changed, change in changes.items():
      if change:
        self._pairs[changed] += change
        heapq.heappush(self._heap, (-self._pairs[changed], changed))

  def _count(self, pairs: Counter[_Pair], place: int, sign: int) -> None:
    """Adds (or subtracts) the pairs of a word and records the word for each."""
    amount = sign * self._counts[place]
    for pair in pairwise(self._words[place]):
      pairs[pair] += amount
      if sign > 0:
        self._places[pair].add(place)


def _replaced(word: Sequence[int], pair: _Pair, merged: int) -> list[int]:
  result: list[int] = []
  position = 0
  while position < len(word):
    if tuple(word[position : position + 2]) == pair:
      result.append(merged)
      position += 2
    else:
      result.append(word[position])
      position += 1
  return result
