"""Errors of the user, kept apart from bugs of the program."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable
from typing import Any

_MAX_SHOWN = 81  # letters of a value


class UserError(Exception):
  """A mistake that the user can correct: shown as one message without a traceback, exit code 2.

  The message states the rule, what was found, and what to do. It is `printable`, whatever it tells
  of others' text.
  """

  def __init__(self, message: str):
    super().__init__(printable(message))


def printable(text: str) -> str:
  """A text whose characters a terminal would obey or could not show are escaped as in Python.

  Line breaks stay.
  """
  return ''.join(c if c.isprintable() or c == '\n' else ascii(c)[1:-1] for c in text)


def shown(value: Any) -> str:
  """A value as messages show it: its middle is left out if it is long."""
  try:
    text = repr(value)
  except ValueError:  # an integer of more digits than Python prints
    return 'a very long number'
  part = (_MAX_SHOWN - 3) // 2
  return text if len(text) <= _MAX_SHOWN else f'{text[:part]}...{text[-part:]}'


def brief(message: str) -> str:
  """A message whose words of more than 300 letters, such as endless paths, lack their middle."""
  return re.sub(r'\S{301,}', lambda word: f'{word[0][:140]}...{word[0][-140:]}', message)


def unknown(kind: str, name: str, choices: Iterable[str]) -> UserError:
  """Returns the error for a name that is not in a closed set, with the nearest match."""
  choices = sorted(choices)
  near = nearest(name, choices)
  hint = '' if near is None else f' Did you mean {near!r}?'
  listed = ', '.join(choices) or 'none'
  return UserError(f'There is no {kind} {shown(name)}.{hint} Known: {listed}.')


def nearest(name: str, choices: Iterable[str]) -> str | None:
  """Returns the choice that a misspelt name is most like; None if it is like none of them."""
  if len(name) >= _MAX_SHOWN:
    return None
  return next(iter(difflib.get_close_matches(name, sorted(choices), n=1, cutoff=0.5)), None)


def renamed(old: str, new: str) -> None:
  """Warns that the user gave a former name, which is accepted until version 0.3."""
  warnings.warn(f'{old} is now {new}; the former name goes with version 0.3.', FutureWarning, 2)
