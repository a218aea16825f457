"""Flags of the command line: those of several verbs, and those derived from records of options.

A flag that one verb has stands in that verb's file. Every flag has a help text and a group.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Never, TypeVar

from algorithmic_efficiency import backends, errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.suites import SUITES
from algorithmic_efficiency.launchers import slurm_options
from algorithmic_efficiency.option_fields import Option, check_folder, declared
from algorithmic_efficiency.trial.run_options import RunOptions

USER_ERROR = 2
GROUPS = (
  'what to run',
  'optimizer, instead of a submission',
  'hyperparameters and repetitions',
  'evaluation and stopping',
  'data and results',
  'devices',
  slurm_options.GROUP,
  'cost limits',
  'scoring',
  'own folders',
  'output',
)
RUN, OPTIMIZER, TUNING, STOPPING, RESULTS, DEVICES, _, COST, SCORING, FOLDERS, OUTPUT = GROUPS
_Value = TypeVar('_Value', int, float)
_Record = TypeVar('_Record')


class Parser(argparse.ArgumentParser):
  """A parser whose flags stand under the headings of `GROUPS`.

  A flag may be spelled with dashes or underscores, and may have other names. A wrong command line
  is reported in one line and ends the process with exit code 2.
  """

  def __init__(self, **facts: Any):
    super().__init__(**facts, allow_abbrev=False)
    self._by_title = {title: self.add_argument_group(title) for title in GROUPS}
    self._also: dict[str, str] = {}  # the flag of another name, without dashes
    self._former: dict[str, str] = {}

  def add(
    self,
    name: str,
    *,
    group: str,
    help: str,
    unset: str = '',
    short: str = '',
    also: Sequence[str] = (),
    former: Sequence[str] = (),
    **facts: Any,
  ) -> None:
    """Adds a flag.

    Args:
      short: a letter that stands for the flag; '' for none.
      unset: what happens where the flag is not given, in words; '' shows the default itself.
      also: other names that are accepted.
      former: names that are accepted with a notice.
      facts: as for `add_argument`.
    """
    self._also |= dict.fromkeys(also, name)
    self._former |= dict.fromkeys(former, name)
    shown = unset or _shown(facts.get('default'))
    text = f'{help}; default: {shown}' if shown else help
    names = [f'-{short}'] * bool(short) + [f'--{name}']
    self._by_title[group].add_argument(*names, help=text.replace('%', '%%'), **facts)

  def filled(self, values: Mapping[str, Any]) -> argparse.Namespace:
    """Gives the arguments of this parser from Python values, by the names of flags without dashes.

    Raises:
      UserError: a name is unknown, a value is wrong, or one that is required is missing.
    """
    actions = {action.dest: action for action in self._actions if action.dest != 'help'}
    given: dict[str, Any] = {}
    for said, value in values.items():
      name = said if said in actions else self._also.get(said, said)
      if name not in actions:
        raise errors.unknown('option', name, actions)
      if name in given:
        raise errors.UserError(f'{said} is another name of {name}; give one of them.')
      if value is not None:
        given[name] = value
    for name, action in actions.items():
      if action.required and name not in given:
        raise errors.UserError(f'{name} must be given.')
    found = {name: action.default for name, action in actions.items()}
    return argparse.Namespace(
      **found | {name: _from_python(actions[name], value) for name, value in given.items()}
    )

  def parse_known_args(self, args=None, namespace=None):
    """Parses the words of this parser; those that it does not know end the process."""
    words = sys.argv[1:] if args is None else args
    found, unknown = super().parse_known_args(list(self._spelled(words)), namespace)
    if unknown:
      self.error(f'unexpected arguments: {" ".join(unknown)}')
    return found, unknown

  def _spelled(self, words: Sequence[str]) -> Iterator[str]:
    """Gives the words with each flag as it was added; one that is not known ends the process."""
    left = iter(words)
    for word in left:
      if word == '--' or (self._subparsers is not None and not word.startswith('-')):
        yield word  # what follows is not ours
        break
      yield self._flag(word) if word.startswith('--') else word
    yield from left

  def _flag(self, word: str) -> str:
    given, sign, value = word.partition('=')
    plain = given[2:].replace('-', '_')
    flags = {
      name[2:].replace('-', '_'): name
      for name in self._option_string_actions
      if name.startswith('--')
    }
    if plain in self._former and plain not in flags:
      errors.renamed(given, f'--{self._former[plain]}')
    names = {**self._former, **self._also}
    known = {**{name: flags[flag] for name, flag in names.items()}, **flags}
    if plain not in known:
      near = errors.nearest(plain, known)
      hint = '' if near is None else f'; did you mean {known[near]}?'
      self.error(f'there is no flag {given}{hint}')
    return f'{known[plain]}{sign}{value}'

  def error(self, message: str) -> Never:
    text = errors.brief(errors.printable(message)).rstrip('.')
    stop = '' if text.endswith('?') else '.'
    self.exit(USER_ERROR, f'{self.prog}: {text}{stop} See {self.prog} --help.\n')


def _shown(default: Any) -> str:
  """A default as `--help` shows it; '' where it goes without saying."""
  if isinstance(default, (list, tuple)):
    return ','.join(default)
  if default is None or isinstance(default, bool):
    return 'on' if default else ''
  return str(default)


def _from_python(action: argparse.Action, value: Any) -> Any:
  """The value of an argument, checked as its text is.

  Raises:
    UserError: the value is wrong.
  """
  if action.nargs == 0:  # a switch
    if not isinstance(value, bool):
      raise errors.UserError(f'{action.dest} must be true or false; it is {errors.shown(value)}.')
    return value
  if isinstance(action.default, list):  # repeated
    if isinstance(value, Mapping):
      value = [f'{name}={one}' for name, one in value.items()]
    several = value if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(one, (str, os.PathLike)) for one in several):
      raise errors.UserError(f'{action.dest} must be text or a list; it is {errors.shown(value)}.')
    return [os.fspath(one) for one in several]
  many = isinstance(value, (list, tuple))
  text = ','.join(map(str, value)) if many else str(value)
  try:
    result = action.type(text) if callable(action.type) else text
  except argparse.ArgumentTypeError as error:
    raise errors.UserError(f'{action.dest} {error}.') from None
  if action.choices is not None and result not in action.choices:
    raise errors.unknown(f'choice of {action.dest}', text, action.choices)
  return result


# Values.


def names(text: str) -> tuple[str, ...]:
  """The names in a list with commas; there must be one."""
  found = tuple(name.strip() for name in text.split(',') if name.strip())
  if not found:
    raise argparse.ArgumentTypeError(f'must be a list of names; it is {errors.shown(text)}')
  return found


def frameworks(text: str) -> tuple[str, ...]:
  """The frameworks in a list with commas."""
  found = names(text)
  for name in found:
    if name not in backends.FRAMEWORKS:
      raise argparse.ArgumentTypeError(str(errors.unknown('framework', name, backends.FRAMEWORKS)))
  return found


def whole(text: str) -> int:
  """A whole number."""
  return _number(text, int, 'a whole number')


def seed(text: str) -> int:
  """A whole number from 0 on."""
  value = whole(text)
  if value < 0:
    raise argparse.ArgumentTypeError(f'must not be negative; it is {errors.shown(value)}')
  return value


def number(text: str) -> float:
  """A finite number."""
  return _number(text, float, 'a finite number')


def positive(text: str) -> float:
  """A finite number above zero."""
  value = number(text)
  if value <= 0:
    raise argparse.ArgumentTypeError(f'must be positive; it is {text}')
  return value


def folder(text: str) -> str:
  """A directory, or a place where one can be made."""
  return _folder(text, must_exist=False)


def present_folder(text: str) -> str:
  """A directory that exists."""
  return _folder(text, must_exist=True)


def _folder(text: str, *, must_exist: bool) -> str:
  try:
    check_folder('it', text, must_exist=must_exist)
  except errors.UserError as error:
    raise argparse.ArgumentTypeError(str(error).removeprefix('it ').removesuffix('.')) from None
  return text


def _number(text: str, kind: type[_Value], noun: str) -> _Value:
  try:
    value = kind(text)
    if math.isfinite(value):
      return value
  except (ValueError, OverflowError):
    pass
  raise argparse.ArgumentTypeError(f'must be {noun}; it is {errors.shown(text)}')


_KINDS = {int: whole, float: number, str: str}


# Flags of several verbs.

_PATHS: Mapping[str, Any] = {
  'action': 'append',
  'default': [],
  'metavar': 'DIR',
  'group': FOLDERS,
}
_SHARED: Mapping[str, Mapping[str, Any]] = {
  'framework': {
    'group': RUN,
    'also': ('frameworks',),
    'choices': backends.FRAMEWORKS,
    'help': 'framework of the submission',
  },
  'frameworks': {
    'group': RUN,
    'also': ('framework',),
    'type': frameworks,
    'metavar': 'A,B',
    'help': f'frameworks of every submission, from {", ".join(backends.FRAMEWORKS)}',
  },
  'suite': {
    'group': RUN,
    'metavar': 'NAME',
    'help': f'take budgets and rules from a suite: {", ".join(SUITES)}, or a .toml file',
  },
  'ruleset': {
    'group': RUN,
    'also': ('tuning_ruleset',),
    'choices': ('external', 'self'),
    'default': 'external',
    'help': 'ruleset of tuning',
  },
  'workloads': {
    'group': RUN,
    'also': ('workload',),
    'type': names,
    'metavar': 'A,B',
    'help': 'run these workloads only',
  },
  'trials': {
    'group': TUNING,
    'also': ('num_tuning_trials',),
    'type': whole,
    'metavar': 'N',
    'help': 'hyperparameter points of one study',
  },
  'studies': {
    'group': TUNING,
    'type': whole,
    'metavar': 'N',
    'help': 'number of studies, numbered from 1',
  },
  'seed': {
    'group': TUNING,
    'also': ('rng_seed',),
    'type': seed,
    'metavar': 'N',
    'help': 'seed from which all others follow',
    'unset': 'the seed of the runs found, else a new one, which is recorded',
  },
  'experiment_dir': {
    'group': RESULTS,
    'type': folder,
    'default': 'runs',
    'metavar': 'DIR',
    'help': 'write the runs below DIR',
  },
  'overwrite': {
    'group': RESULTS,
    'action': 'store_true',
    'help': 'replace trials that exist',
  },
  'retry_failed': {
    'group': RESULTS,
    'action': 'store_true',
    'help': 'run trials that failed or are invalid again',
  },
  'num_processes': {
    'group': DEVICES,
    'type': whole,
    'metavar': 'N',
    'help': 'processes of one trial',
    'unset': 'one (JAX), one a device (PyTorch)',
  },
  'workers': {
    'group': DEVICES,
    'type': whole,
    'metavar': 'N',
    'help': 'trials that run at the same time',
    'unset': 'one, or one a group of GPUs',
  },
  'output_dir': {'group': OUTPUT, 'type': folder, 'metavar': 'DIR', 'help': 'write to DIR'},
  'mix_hosts': {
    'group': SCORING,
    'action': 'store_true',
    'help': 'score seconds of different hosts together',
  },
  'max_hours': {
    'group': COST,
    'type': number,
    'metavar': 'H',
    'help': 'probe first, and refuse to start if more than H device-hours may be needed',
  },
  'path': {**_PATHS, 'help': 'also find workloads and submissions below DIR (repeatable)'},
  'workload_path': {**_PATHS, 'help': 'also find the task in the folder DIR (repeatable)'},
  'json': {'group': OUTPUT, 'action': 'store_true', 'help': 'print JSON'},
  'quiet': {'group': OUTPUT, 'action': 'store_true', 'help': 'print no progress'},
}


def add(parser: Parser, *shared: str, **changes: Any) -> None:
  """Adds flags that several verbs have.

  Args:
    changes: what is special to this verb, such as another help.
  """
  for name in shared:
    parser.add(name, **{**_SHARED[name], **changes})


def find_own(args: argparse.Namespace) -> None:
  """Registers the folders of --path and --workload_path.

  Raises:
    UserError: one of them is no such folder.
  """
  for folder in args.path:
    registry.add_root(folder)
  for folder in args.workload_path:
    registry.add_task(folder)


def given(args: argparse.Namespace) -> dict[str, Any]:
  """The flags of a command, as `flags_<n>.json` states them."""
  return {
    name: list(value) if isinstance(value, tuple) else value
    for name, value in vars(args).items()
    if name not in ('run', 'verb')
  }


# Flags of records.


def add_options(
  parser: Parser,
  record: type,
  *,
  only: Collection[str] = (),
  fixed: Collection[str] = (),
  **changes: Any,
) -> None:
  """Adds the options of a record.

  Args:
    only: the fields to add; empty adds all.
    fixed: fields that the verb sets itself.
    changes: what is special to this verb, such as another help.
  """
  for one in declared(record):
    if one.field not in fixed and (not only or one.field in only):
      parser.add(one.flag, **{**_facts(one), **changes})


def _facts(one: Option) -> dict[str, Any]:
  """An option as `Parser.add` takes it."""
  facts = {
    name: getattr(one, name) for name in ('group', 'help', 'unset', 'default', 'also', 'former')
  }
  if one.kind is bool:
    return {**facts, 'action': 'store_true' if one.default is False else _Switch}
  facts['type'] = _KINDS[one.kind]
  if one.metavar:
    facts['metavar'] = one.metavar
  if one.is_repeated:
    return {**facts, 'action': 'append', 'default': list(one.default)}
  if one.is_many:
    return {**facts, 'type': names}
  return {**facts, 'choices': one.choices or None}


class _Switch(argparse.BooleanOptionalAction):
  """`--name` and `--no-name`; `Parser.add` has put the default into the help."""

  def __init__(self, *, default: bool | None, **facts: Any):
    super().__init__(default=None, **facts)
    self.default = default


def options_of(args: argparse.Namespace) -> RunOptions:
  """The run options of a command.

  Raises:
    UserError: the value of an option is wrong.
  """
  return RunOptions(**_values(args, RunOptions))


def record_of(args: argparse.Namespace, record: Callable[..., _Record]) -> _Record:
  """The options of a record that the verb has; the others keep their defaults.

  Raises:
    UserError: the value of an option is wrong.
  """
  return record(**_values(args, record))


def devices_of(args: argparse.Namespace, **more: Any) -> Devices:
  """The devices of a command.

  Raises:
    UserError: the value of an option is wrong.
  """
  return Devices(**_values(args, Devices), **more)


def _values(args: argparse.Namespace, record: Any) -> dict[str, Any]:
  """The values of the options that the verb has; the others keep their defaults."""
  found = {one: getattr(args, one.flag) for one in declared(record) if hasattr(args, one.flag)}
  return {one.field: tuple(value) if one.is_many else value for one, value in found.items()}
