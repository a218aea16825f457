"""Checks a submission before anybody pays for it.

Reads its files, and runs it on every base workload that can run here. Each run makes 60 steps at
tiny sizes on generated data, then the last ten again from a checkpoint. Whatever breaks the rules
(see RULES.md) or would fail later is named with file, line and remedy. Exit code 0: no error; 1:
errors, such as a file that is no Python; 2: nothing to check.

Example: algoeff check ./my_optimizer --workloads mnist,quick_lm
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.cli import _flags
from algorithmic_efficiency.trial.run_options import RunOptions

if TYPE_CHECKING:
  from algorithmic_efficiency.experiments.check.run import CheckReport, CheckRow

SUMMARY = 'find errors of a submission before it is run'

ERRORS = 1
_WORDS = {'error': '[red]error[/]', 'warning': '[yellow]warning[/]', None: 'pass'}
_NOT_CHECKED = '[dim]-[/]'


def arguments(parser: _flags.Parser) -> None:
  parser.add_argument(
    'submission', metavar='SUBMISSION', help='name, folder, module file or call of an optimizer'
  )
  _flags.add(
    parser,
    'frameworks',
    help='check in these frameworks',
    unset='those that the submission is made for',
  )
  _flags.add(
    parser,
    'ruleset',
    default=None,
    unset='external if the submission has a search space, else self',
  )
  _flags.add(parser, 'workloads', help='check on these', unset='every base workload that can run')
  parser.add(
    'thorough',
    group=_flags.RUN,
    action='store_true',
    help='also check variants, all points and two devices',
  )
  _flags.add_options(parser, RunOptions, only=('heartbeat_timeout_sec',), unset='180')
  _flags.add_options(parser, Devices, only=('platform',))
  _flags.add(parser, 'path', 'workload_path', 'json')


def run(args: argparse.Namespace) -> int:
  report = checked(args, _tell)
  if args.json:
    print(json.dumps(_as_json(report), indent=2))
  else:
    _print(report)
  return ERRORS if report.num_errors else 0


def checked(args: argparse.Namespace, on_row: Callable[[CheckRow], None]) -> CheckReport:
  """Checks the submission that the flags name; `on_row` is told what was found, place by place.

  Raises:
    UserError: there is no such submission or workload.
  """
  from algorithmic_efficiency.experiments.check import run as check
  from algorithmic_efficiency.launch.session import interrupted_when_terminated

  _flags.find_own(args)
  asked = check.Check(
    submission=args.submission,
    frameworks=args.frameworks,
    ruleset=args.ruleset,
    workloads=args.workloads,
    thorough=args.thorough,
    platform=args.platform,
    heartbeat_timeout_sec=check.HEARTBEAT_TIMEOUT_SEC
    if args.heartbeat_timeout_sec is None
    else args.heartbeat_timeout_sec,
  )
  with interrupted_when_terminated():
    return check.run(asked, on_row)


def _tell(row: CheckRow) -> None:
  """Says how far the check has come, beside what it prints."""
  print(f'checked {row.title} ({row.framework})', file=sys.stderr, flush=True)


def _as_json(report: CheckReport) -> dict[str, Any]:
  from algorithmic_efficiency.benchmark.check_rules import KINDS
  from algorithmic_efficiency.experiments.check.run import SUBJECTS

  return {
    'submission': report.submission,
    'ruleset': report.ruleset,
    'num_errors': report.num_errors,
    'rows': [
      {
        'title': row.title,
        'framework': row.framework,
        **{
          subject: (row.worst(subject) or 'pass') if subject in row.checked else None
          for subject in SUBJECTS
        },
      }
      for row in report.rows
    ],
    'findings': [
      {
        'id': finding.kind,
        'severity': KINDS[finding.kind].severity,
        'file': finding.file,
        'line': finding.line,
        'text': finding.text,
        'remedy': KINDS[finding.kind].remedy,
        'where': where,
      }
      for finding, where in report.findings.items()
    ],
  }


def _print(report: CheckReport) -> None:
  from rich.console import Console
  from rich.table import Table

  from algorithmic_efficiency.experiments.check.run import SUBJECTS

  table = Table(box=None, pad_edge=False)
  for title in ('checked', 'framework', *SUBJECTS):
    table.add_column(title)
  for row in report.rows:
    cells = [
      _WORDS[row.worst(subject)] if subject in row.checked else _NOT_CHECKED for subject in SUBJECTS
    ]
    table.add_row(row.title, row.framework, *cells)
  Console(highlight=False).print(table)
  print(errors.printable('\n'.join(lines(report))))


def lines(report: CheckReport) -> Iterator[str]:
  """What was found, in words."""
  from algorithmic_efficiency.benchmark.check_rules import KINDS

  for finding, where in report.findings.items():
    kind = KINDS[finding.kind]
    yield ''
    yield f'{os.path.relpath(finding.file)}:{finding.line}: {kind.severity} {finding.kind}'
    yield f'  {finding.text}'
    yield f'  {kind.remedy}'
    yield f'  Found: {", ".join(where)}.'
  number = report.num_errors
  errors_found = 'no error' if number == 0 else '1 error' if number == 1 else f'{number} errors'
  num_warnings = len(report.findings) - number
  yield ''
  yield f'{report.submission} ({report.ruleset} tuning): {errors_found}, {num_warnings} to look at.'
