"""Options: fields of a record that users set, each stated once.

A record declares an option with `option(...)`. The commands, `submission_runner` and the checks of
values are all derived from `declared(Record)`, so that a new option needs no other declaration.
The derivation is our own: tyro and simple-parsing parse docstrings at every start, and have neither
the wording of our errors nor former names nor absl.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import types
import typing
from typing import Any, Literal

from algorithmic_efficiency import errors

_KEY = 'option'
_LARGEST = 2**63 - 1  # what records and generators of random numbers hold
Rule = Literal['positive', 'not negative']


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
  """An option as every command shows, reads and checks it.

  Attributes:
    field: the field of the record.
    flag: the flag, without dashes.
    kind: bool, int, float or str: the type of one value.
    is_many: True if the option has any number of values, which the record keeps as a tuple.
    choices: the values that are allowed; empty allows all.
    help: one line, without the default.
    group: the heading under which `--help` lists it.
    metavar: the placeholder of the value in `--help`.
    unset: what happens where nothing is given, in words; '' if the default says it.
    is_repeated: True if several values come from repeated flags; otherwise commas separate them.
    also: other names of the flag.
    former: names that the flag once had; each is accepted with a notice.
    rule: what a number must be.
    is_folder: True if the value names a directory, which need not exist.
    is_recorded: True if `trial.json` states it among the options, which a resumed trial keeps.
  """

  field: str
  flag: str
  kind: type
  is_many: bool
  choices: tuple[str, ...]
  default: Any
  help: str
  group: str
  metavar: str | None = None
  unset: str = ''
  is_repeated: bool = False
  also: tuple[str, ...] = ()
  former: tuple[str, ...] = ()
  rule: Rule = 'positive'
  is_folder: bool = False
  is_recorded: bool = False

  def check(self, value: Any) -> None:
    """Checks one value of the record.

    Raises:
      UserError: the value has the wrong type, is out of range or is not one of the choices.
    """
    if value is None and self.default is None:
      return
    if self.is_many and not isinstance(value, tuple):
      raise errors.UserError(
        f'--{self.flag} must be a tuple of names; it is {errors.shown(value)}.'
      )
    for one in value if self.is_many else (value,):
      self._check_one(one)

  def _check_one(self, value: Any) -> None:
    if self.kind in (int, float):
      check_number(self.flag, value, self.kind, self.rule)
    elif not isinstance(value, self.kind):
      raise errors.UserError(
        f'--{self.flag} must be {_NOUNS[self.kind]}; it is {errors.shown(value)}.'
      )
    elif self.is_folder:
      check_folder(f'--{self.flag}', str(value))
    elif self.choices and value not in self.choices:
      raise errors.unknown(f'choice of --{self.flag}', str(value), self.choices)


_NOUNS = {bool: 'true or false', str: 'a name', int: 'a whole number', float: 'a finite number'}


def option(default: Any, *, help: str, group: str, flag: str = '', **facts: Any) -> Any:
  """A field of a frozen record that is an option.

  Args:
    facts: further attributes of `Option`.
  """
  return dataclasses.field(
    default=default, metadata={_KEY: {'help': help, 'group': group, 'flag': flag, **facts}}
  )


@functools.cache
def declared(record: Any) -> tuple[Option, ...]:
  """The options of a record type, in the order of its fields."""
  hints = typing.get_type_hints(record)
  found = []
  for field in dataclasses.fields(record):
    if _KEY in field.metadata:
      facts = {**field.metadata[_KEY], **_type_facts(hints[field.name])}
      facts['flag'] = facts['flag'] or field.name
      found.append(Option(field=field.name, default=field.default, **facts))
  return tuple(found)


def check(record: Any) -> None:
  """Checks every option of a record.

  Raises:
    UserError: the value of an option is wrong.
  """
  for one in declared(record.__class__):
    one.check(getattr(record, one.field))


def check_number(flag: str, value: Any, kind: type = int, rule: Rule = 'positive') -> None:
  """Checks a number.

  Raises:
    UserError: the value is no number of this kind, is not finite, or breaks the rule.
  """
  number = isinstance(value, (int, float) if kind is float else int)
  if not number or isinstance(value, bool) or value != value or abs(value) == math.inf:
    raise errors.UserError(f'--{flag} must be {_NOUNS[kind]}; it is {errors.shown(value)}.')
  if value > _LARGEST:
    raise errors.UserError(f'--{flag} must be below 2^63; it is {errors.shown(value)}.')
  if value < 0 or (value == 0 and rule == 'positive'):
    raise errors.UserError(f'--{flag} must {_RULES[rule]}; it is {errors.shown(value)}.')


def check_folder(what: str, value: str, *, must_exist: bool = False) -> None:
  """Checks that a text names a directory, or a place where one can be made.

  Args:
    what: the flag or argument, for messages.

  Raises:
    UserError: the text is no path, there is something else in its place, or there is nothing and
      `must_exist` is True.
  """
  path = os.path.expanduser(value)
  reason = ''
  try:
    os.stat(path)
    if not os.path.isdir(path):
      reason = 'is not'
  except FileNotFoundError as error:
    if must_exist or not path or os.path.islink(path):  # an empty path, or a link to nowhere
      reason = f'is not: {error.strerror}'
  except OSError as error:
    reason = f'is not: {error.strerror}'
  except ValueError:
    reason = 'has a null character'
  if reason:
    raise errors.UserError(f'{what} must be a directory; {errors.shown(value)} {reason}.')


_RULES: dict[Rule, str] = {'positive': 'be positive', 'not negative': 'not be negative'}


def _type_facts(hint: Any) -> dict[str, Any]:
  """What a type such as `tuple[Literal['a', 'b'], ...]` or `int | None` says of an option."""
  if typing.get_origin(hint) in (types.UnionType, typing.Union):
    [hint] = [part for part in typing.get_args(hint) if part is not types.NoneType]
  is_many = typing.get_origin(hint) is tuple
  if is_many:
    hint = typing.get_args(hint)[0]
  choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
  return {'kind': str if choices else hint, 'is_many': is_many, 'choices': choices}
