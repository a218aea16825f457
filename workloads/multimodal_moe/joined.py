"""Questions of several turns, for longer contexts: each turn asks a question of the same kind.

A turn sees those before it with their answers, as in a document of text, images and audio.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from algorithmic_efficiency.data.sources import Example

from . import questions
from .data_records import RowForm


class Questions(Protocol):
  """A source of questions of one kind."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Example: ...

  @property
  def lengths(self) -> np.ndarray:
    """Positions of each question, int64 [questions]."""
    ...


class Joined:
  """A source whose questions have turns, from another source; what is left over is left out.

  Args:
    source: gives questions of one kind.
    number: turns of a question.
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
    return questions.conversation(self._source[first + step * turn] for turn in range(self._number))

  @property
  def lengths(self) -> np.ndarray:
    """Positions of each question, int64 [questions]."""
    shape = (self._number, len(self)) if self._apart else (len(self), self._number)
    lengths = self._source.lengths[: len(self) * self._number].reshape(shape)
    return lengths.sum(axis=0 if self._apart else 1)


def joined(source: Questions, form: RowForm, *, apart: bool = False) -> Questions:
  """Returns a source of questions with as many turns as the form says; see `Joined`."""
  return source if form.num_turns == 1 else Joined(source, form.num_turns, apart=apart)
