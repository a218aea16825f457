"""Questions that ask several questions of one kind at once, for contexts that are longer.

All that the questions give comes first, in their order. Then come their answers, in the same order.
The end of an answer is also what the next one follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from algorithmic_efficiency.data.sources import Example

from . import questions
from .data_records import TEXT, RowForm


class Questions(Protocol):
  """A source of questions of one kind."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Example: ...

  @property
  def lengths(self) -> np.ndarray:
    """Positions of each question, int64 [questions]."""
    ...


class Joined:
  """A source whose questions each join several of another; what is left over is left out.

  Args:
    source: gives questions of one kind.
    number: how many a question joins.
    apart: True joins questions that are far from each other in the source, False neighbors.
  """

  def __init__(self, source: Questions, number: int, *, apart: bool = False):
    self._source = source
    self._number = number
    self._apart = apart

  def __len__(self) -> int:
    return len(self._source) // self._number

  def __getitem__(self, index: int) -> Example:
    first, step = (index, len(self)) if self._apart else (index * self._number, 1)
    return question([self._source[first + step * part] for part in range(self._number)])

  @property
  def lengths(self) -> np.ndarray:
    """Positions of each question, int64 [questions]."""
    shape = (self._number, len(self)) if self._apart else (len(self), self._number)
    lengths = self._source.lengths[: len(self) * self._number].reshape(shape)
    return lengths.sum(axis=0 if self._apart else 1) + self._number - 1


def joined(source: Questions, form: RowForm, *, apart: bool = False) -> Questions:
  """Returns a source of as many questions at once as the form says; see `Joined`."""
  return source if form.num_joined == 1 else Joined(source, form.num_joined, apart=apart)


def question(parts: Sequence[Example]) -> Example:
  """Returns one question that asks others of its kind at once."""
  numbers = [int(part['num_targets']) for part in parts]
  given = [
    part['modality'][: 1 - number or None] for part, number in zip(parts, numbers, strict=True)
  ]
  texts = [part['text'][:-number] for part, number in zip(parts, numbers, strict=True)]
  answers = [part['text'][-number:] for part, number in zip(parts, numbers, strict=True)]
  media = {
    name: np.concatenate([part[name] for part in parts])
    for name in ('patches', 'frames')
    if name in parts[0]
  }
  return questions.question(
    task=int(parts[0]['task']),
    modality=np.concatenate([*given, np.full(sum(numbers) - 1, TEXT, np.int8)]),
    text=np.concatenate([*texts, *answers]),
    num_targets=sum(numbers),
    **media,
  )
