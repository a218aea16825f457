"""The names of the characters of Unicode 3.2, which every version of Python has unchanged."""

from __future__ import annotations

import functools
import hashlib
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from algorithmic_efficiency import errors

SHA256 = '03ce3aea0397e841afdbafb4f732c6cb6fdca0bdb370d0a9cdbdbdcae33a3ee3'
NUM_NAMES = 12_886

# Tens of thousands of names that follow a rule, from a code point or from syllables.
_MADE_BY_RULE = ('CJK UNIFIED IDEOGRAPH-', 'CJK COMPATIBILITY', 'HANGUL SYLLABLE')

# Unicode 3.2 has no name outside of these.
_CODE_POINTS = (range(0x30000), range(0xE0000, 0xE1000))


@functools.cache
def as_tokens(separator: str) -> tuple[list[str], Mapping[str, np.ndarray]]:
  """Returns the characters by token number, and the names of each split, uint16 [tokens].

  The separator is one of the characters and follows each name.

  Raises:
    UserError: the names differ from those that the target is defined on.
  """
  texts = {split: ''.join(f'{name}{separator}' for name in own) for split, own in _split().items()}
  characters = sorted(set().union(*texts.values()))
  numbers = {character: number for number, character in enumerate(characters)}
  streams = {
    split: np.array([numbers[character] for character in text], np.uint16)
    for split, text in texts.items()
  }
  return characters, streams


def _split() -> Mapping[str, Sequence[str]]:
  """Splits the names: by code point, number i is validation if i % 20 is 18, and test if it is 19.

  Within a split, names are sorted by hash, so that adjacent names are unrelated.

  Raises:
    UserError: the names differ from those that the target is defined on.
  """
  names = _all()
  if hashlib.sha256('\n'.join(names).encode()).hexdigest() != SHA256:
    raise errors.UserError(
      f'The target is defined on the {NUM_NAMES:,} names of Unicode 3.2; those of this Python, '
      f'{len(names):,}, differ. Use a build of Python whose unicodedata.ucd_3_2_0 is complete.'
    )
  splits: dict[str, list[str]] = {'train': [], 'validation': [], 'test': []}
  for number, name in enumerate(names):
    splits[{18: 'validation', 19: 'test'}.get(number % 20, 'train')].append(name)
  return {
    split: sorted(own, key=lambda name: hashlib.sha256(name.encode()).digest())
    for split, own in splits.items()
  }


def _all() -> list[str]:
  names = (unicodedata.ucd_3_2_0.name(chr(code), '') for points in _CODE_POINTS for code in points)
  return [name for name in names if name and not name.startswith(_MADE_BY_RULE)]
