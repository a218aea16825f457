"""The command line: one file a verb, found by file name.

A verb module has SUMMARY (a line for the help), `arguments(parser)`, which takes a `_flags.Parser`,
and `run(args) -> exit code`. GOES_ON, if it is there, are the flags with which the same command
goes on after an interrupt.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import pkgutil
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import algorithmic_efficiency
from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.cli import _flags
from algorithmic_efficiency.cli._flags import USER_ERROR

INTERRUPTED = 130


def verbs() -> list[str]:
  return sorted(
    module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith('_')
  )


def arguments(verb: str, values: Mapping[str, Any]) -> argparse.Namespace:
  """Gives the arguments of a verb from Python values, by the names of its flags.

  Raises:
    UserError: as `Parser.filled`.
  """
  parser = _flags.Parser(prog=verb)
  importlib.import_module(f'{__name__}.{verb}').arguments(parser)
  return parser.filled(values)


def _parser(argv: Sequence[str]) -> _flags.Parser:
  parser = _flags.Parser(prog='algoeff', description=algorithmic_efficiency.__doc__)
  parser.add_argument(
    '--version', action='version', version=f'%(prog)s {algorithmic_efficiency.__version__}'
  )
  commands = parser.add_subparsers(dest='verb', metavar='COMMAND', required=True)
  named = next((word for word in argv if not word.startswith('-')), None)
  known = verbs()
  if named is not None and named not in known:
    raise errors.unknown('command', named, known)
  for name in known if named is None else [named]:
    module = importlib.import_module(f'{__name__}.{name}')
    command = commands.add_parser(
      name,
      help=module.SUMMARY,
      description=module.__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if name == named:
      module.arguments(command)
      command.set_defaults(run=module.run)
  return parser


def _to_go_on(argv: Sequence[str], args: argparse.Namespace | None) -> str:
  """Says which command goes on where this one was interrupted; empty if none does."""
  if args is None:
    return ''
  flags = getattr(importlib.import_module(f'{__name__}.{args.verb}'), 'GOES_ON', None)
  if flags is None:
    return ''
  words = [word for word in argv if word not in ('--overwrite', *flags)]
  return f' To go on: {shlex.join(["algoeff", *words, *flags])}'


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
  print(errors.printable(f'algoeff: {message}'), file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one verb and returns the exit code; a `UserError` is one line and 2."""
  registry.pin_own_packages()
  warnings.showwarning = _show_warning
  argv = sys.argv[1:] if argv is None else [*argv]  # here `list` is a verb
  args = None
  try:
    args = _parser(argv).parse_args(argv)
    code = args.run(args)
    sys.stdout.flush()  # so that a reader who has gone is noticed here
    return code
  except errors.UserError as error:
    print(f'algoeff: {errors.brief(str(error))}', file=sys.stderr)
    return USER_ERROR
  except KeyboardInterrupt:
    print(f'algoeff: interrupted.{_to_go_on(argv, args)}', file=sys.stderr)
    return INTERRUPTED
  except BrokenPipeError:
    # The reader of our output has gone (`algoeff list | head`): not an error of ours.
    _drop_output()
    return 0
  except OSError as error:
    if error.errno != errno.ENOSPC:
      raise
    _drop_output()
    print(f'algoeff: the output cannot be written: {error.strerror}.', file=sys.stderr)
    return USER_ERROR


def _drop_output() -> None:
  """Discards what standard output still holds, which would fail again when the process ends."""
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
