"""Spelled numbers as tokens: the phrases of each split, and the pieces that they consist of."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.definition import Splits
from algorithmic_efficiency.data import records

from . import phrases
from .data_records import EOS_ID, FIRST_PIECE_ID, SpelledNumbers
from .phrases import Phrase

_SPLITS = ('train', 'validation', 'test')


class Tokens(NamedTuple):
  """The phrases of a definition.

  Attributes:
    vocabulary: pieces by token number; those before `FIRST_PIECE_ID` have no text.
    sides: English and German phrases of each split as tokens.
  """

  vocabulary: Sequence[str]
  sides: Mapping[str, tuple[records.Ragged, records.Ragged]]


@functools.lru_cache(maxsize=4)
def tokens(data: SpelledNumbers, splits: Splits) -> Tokens:
  """Returns the phrases of all splits as tokens.

  Raises:
    UserError: the phrases or their pieces differ from those of the record.
  """
  of_splits = _checked(data, splits)
  found = {
    split: [[phrases.pieces(phrase[side]) for phrase in own] for side in (0, 1)]
    for split, own in of_splits.items()
  }
  known = sorted(
    {piece for sides in found.values() for side in sides for one in side for piece in one}
  )
  if len(known) + FIRST_PIECE_ID != data.vocab_size:
    raise errors.UserError(
      f'vocab_size must be {len(known) + FIRST_PIECE_ID}: the pieces of the phrases and '
      f'{FIRST_PIECE_ID} others; it is {data.vocab_size}.'
    )
  longest = max(len(one) + 1 for sides in found.values() for side in sides for one in side)
  if longest > data.max_length:
    raise errors.UserError(
      f'max_length must be {longest} at least, for the longest phrase; it is {data.max_length}.'
    )
  number_of = {piece: number for number, piece in enumerate(known, FIRST_PIECE_ID)}
  return Tokens(
    [''] * FIRST_PIECE_ID + known,
    {
      split: (_ragged(sides[0], number_of), _ragged(sides[1], number_of))
      for split, sides in found.items()
    },
  )


def _ragged(sentences: Sequence[Sequence[str]], number_of: Mapping[str, int]) -> records.Ragged:
  """Returns the token numbers of sentences, each with its end."""
  lengths = [len(sentence) + 1 for sentence in sentences]
  values = [number for one in sentences for number in (*map(number_of.get, one), EOS_ID)]
  return records.Ragged(np.array(values, np.uint16), np.concatenate([[0], np.cumsum(lengths)]))


def _checked(data: SpelledNumbers, splits: Splits) -> Mapping[str, Sequence[Phrase]]:
  """
  Raises:
    UserError: the phrases differ from those that the target is defined on.
  """
  found = _phrases(data.seed, splits)
  sha256 = hashlib.sha256(repr(found).encode()).hexdigest()
  if data.sha256 and sha256 != data.sha256:
    raise errors.UserError(
      f'The target is defined on phrases with the SHA-256 {data.sha256[:12]}; those of these '
      f'settings have {sha256[:12]}. Use splits and seed of the definition, or leave sha256 empty.'
    )
  return found


@functools.lru_cache(maxsize=2)
def _phrases(seed: int, splits: Splits) -> Mapping[str, Sequence[Phrase]]:
  """Returns the phrases of each split; no phrase is twice among them."""
  sizes = {split: getattr(splits, split) or 0 for split in _SPLITS}
  distinct: dict[Phrase, None] = {}
  stream = phrases.drawn(seed)
  while len(distinct) < sum(sizes.values()):
    distinct[next(stream)] = None
  # Short numbers come early; by hash, each split has its share of them.
  mixed = sorted(distinct, key=lambda phrase: hashlib.sha256(phrase[0].encode()).digest())
  found, first = {}, 0
  for split, size in sizes.items():
    found[split] = mixed[first : first + size]
    first += size
  return found
