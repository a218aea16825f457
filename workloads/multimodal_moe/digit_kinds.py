"""Kinds of questions about digits: what is given, what is answered, and which digits are drawn.

An operand is a digit that a question gives as a word, an image or a recording.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from . import words
from .data_records import AUDIO, IMAGE, TEXT

NUM_DIGITS = 10
_HELD_OUT = 7


@dataclass(frozen=True, kw_only=True)
class Kind:
  """A kind of question.

  Attributes:
    template: words, and a modality where the next operand is given.
    answer: returns the words of the answer to digits.
    draw: returns digits, int64 [number, operands], for a generator and a number.
    is_sum: whether digits are added, so that pairs are held out.
  """

  template: tuple[str | int, ...]
  answer: Callable[..., tuple[str, ...]]
  draw: Callable[[np.random.Generator, int], np.ndarray]
  is_sum: bool = False

  @property
  def modalities(self) -> tuple[int, ...]:
    """The modality of each operand, in order."""
    return tuple(part for part in self.template if isinstance(part, int))

  @property
  def num_answer_words(self) -> int:
    """The number of words of every answer, without the end token."""
    return len(self.answer(*[0] * len(self.modalities)))


def is_held_out(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Returns True for the 10 of 100 pairs of digits whose sums are held out: (a + 3 b) % 10 = 7."""
  return (first + 3 * second) % NUM_DIGITS == _HELD_OUT


def _any_digits(number: int) -> Callable[[np.random.Generator, int], np.ndarray]:
  """Returns the draw of so many independent digits."""
  return lambda random, size: random.integers(NUM_DIGITS, size=(size, number))


def pairs(*, held_out: bool) -> Callable[[np.random.Generator, int], np.ndarray]:
  """Returns the draw of pairs that are all held out, or of pairs none of which is."""

  def draw(random: np.random.Generator, size: int) -> np.ndarray:
    first, second = np.divmod(np.arange(NUM_DIGITS**2), NUM_DIGITS)
    allowed = np.flatnonzero(is_held_out(first, second) == held_out)
    return np.stack(np.divmod(allowed[random.integers(len(allowed), size=size)], NUM_DIGITS), 1)

  return draw


def _one_of_three(random: np.random.Generator, size: int) -> np.ndarray:
  """Draws a digit, then three different ones of which one is equal to it."""
  shown = random.permuted(np.tile(np.arange(NUM_DIGITS), (size, 1)), axis=1)[:, :3]
  which = random.integers(3, size=size)
  return np.column_stack([shown[np.arange(size), which], shown])


def _read(*digits: int) -> tuple[str, ...]:
  return tuple(words.NUMBERS[digit] for digit in digits)


def _add(first: int, second: int) -> tuple[str, ...]:
  return (words.NUMBERS[first + second],)


def _compare(first: int, second: int) -> tuple[str, ...]:
  return ('yes' if first > second else 'no',)


def _find(wanted: int, *shown: int) -> tuple[str, ...]:
  return (words.ORDINALS[shown.index(wanted)],)


def _reading(*modalities: int) -> Kind:
  template: list[str | int] = [words.START]
  for number, modality in enumerate(modalities):
    template += ['and', modality] if number else [modality]
  return Kind(template=(*template, 'reads'), answer=_read, draw=_any_digits(len(modalities)))


def _sum(first: int, second: int) -> Kind:
  return Kind(
    template=(words.START, first, 'plus', second, 'equals'),
    answer=_add,
    draw=pairs(held_out=False),
    is_sum=True,
  )


def _comparison(first: int, second: int) -> Kind:
  return Kind(
    template=(words.START, first, 'larger', 'than', second, 'is'),
    answer=_compare,
    draw=_any_digits(2),
  )


KINDS: Mapping[str, Kind] = {
  'read_image': _reading(IMAGE),
  'read_two_images': _reading(IMAGE, IMAGE),
  'transcribe': _reading(AUDIO),
  'transcribe_two': _reading(AUDIO, AUDIO),
  'add_words': _sum(TEXT, TEXT),
  'add_image_and_word': _sum(IMAGE, TEXT),
  'add_images': _sum(IMAGE, IMAGE),
  'add_spoken_and_image': _sum(AUDIO, IMAGE),
  'compare_images': _comparison(IMAGE, IMAGE),
  'compare_spoken_and_image': _comparison(AUDIO, IMAGE),
  'find_spoken_image': Kind(
    template=(words.START, AUDIO, 'matches', IMAGE, IMAGE, IMAGE, 'is'),
    answer=_find,
    draw=_one_of_three,
  ),
}
