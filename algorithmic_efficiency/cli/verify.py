"""Verifies a package of `algoeff pack`, without trusting it.

Names, sizes, hashes, records, seeds, points, rows and times are checked first, and nothing runs.
With --replay, steps of a trial then run again, several times, and their losses are compared. Run
that in isolation: the code is somebody else's. The verdict is accepted, doubtful or refused. Exit
code 0: accepted; 1: doubtful or refused; 2: there is nothing to verify.

Example: algoeff verify my_optimizer.zip --replay 100
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.cli import _flags
from algorithmic_efficiency.trial.run_options import RunOptions

if TYPE_CHECKING:
  from algorithmic_efficiency.entries.verify import Report

SUMMARY = 'verify a package that somebody handed in'

NOT_ACCEPTED = 1
_WORDS = {
  None: 'pass',
  'note': 'pass',
  'unchecked': '[yellow]not checked[/]',
  'doubtful': '[yellow]doubtful[/]',
  'refused': '[red]refused[/]',
}
_NUM_LISTED = 10  # findings of a check
_MIN_WIDTH = 100


def arguments(parser: _flags.Parser) -> None:
  parser.add_argument('package', metavar='FILE', help='package of `algoeff pack`')
  _flags.add(parser, 'suite', unset='the one that the package names')
  _flags.add(
    parser,
    'seed',
    help='root seed that was drawn for the entry',
    unset='any, if all trials have the same',
  )
  parser.add(
    'replay', group=_flags.RUN, type=_flags.whole, metavar='N', help='run N steps of a trial again'
  )
  parser.add(
    'trial',
    group=_flags.RUN,
    metavar='NAME',
    help='trial to run again, such as study_1/mnist_jax/trial_1',
    unset='one drawn at random',
  )
  _flags.add_options(
    parser, RunOptions, only=('data_dir', 'num_data_workers', 'heartbeat_timeout_sec')
  )
  _flags.add_options(parser, Devices)
  _flags.add(parser, 'path', 'workload_path', 'json', 'quiet')


def run(args: argparse.Namespace) -> int:
  from algorithmic_efficiency.entries.verify import Verification, verify
  from algorithmic_efficiency.launch.session import interrupted_when_terminated
  from algorithmic_efficiency.results import files

  _flags.find_own(args)
  if args.trial is not None and args.replay is None:
    raise errors.UserError('--trial names the trial that runs again; give --replay N, too.')
  with interrupted_when_terminated():
    report = verify(
      Verification(
        package=Path(args.package).expanduser(),
        suite=args.suite,
        seed=args.seed,
        replay_steps=args.replay,
        trial=args.trial,
        options=_flags.options_of(args),
        devices=_flags.devices_of(args),
      ),
      quiet=args.quiet or args.json,
    )
  if args.json:
    print(files.encode(_as_json(report), indent=2))
  else:
    _show(report)
  return 0 if report.verdict == 'accepted' else NOT_ACCEPTED


def _as_json(report: Report) -> dict[str, Any]:
  import dataclasses

  from algorithmic_efficiency.entries.verdict import CHECKS, worst

  stated = report.manifest
  return {
    'package': str(report.package),
    'sha256': report.sha256,
    'verdict': report.verdict,
    'submission': stated and stated.submission,
    'suite': stated and stated.suite,
    'ruleset': stated and stated.ruleset,
    'is_partial': stated and stated.is_partial,
    'num_trials': report.num_trials,
    'checks': {
      name: (worst(report.of(name)) or 'pass') if name in report.checked else None
      for name in CHECKS
    },
    'findings': [dataclasses.asdict(one) for one in report.findings],
    'replay': report.replay and dataclasses.asdict(report.replay),
  }


def _show(report: Report) -> None:
  from rich.console import Console
  from rich.markup import escape
  from rich.table import Table

  from algorithmic_efficiency.entries.verdict import CHECKS, worst

  table = Table(box=None, pad_edge=False)
  for title in ('check', 'result', 'what was looked at or found'):
    table.add_column(title)
  for name, about in CHECKS.items():
    found = report.of(name)
    if name not in report.checked and not found:
      continue
    lines = [f'{one.where}: {one.text}' for one in found[:_NUM_LISTED]]
    lines += [f'and {len(found) - _NUM_LISTED} more'] if len(found) > _NUM_LISTED else []
    table.add_row(name, _WORDS[worst(found)], escape(errors.printable('\n'.join(lines) or about)))
  console = Console(highlight=False)
  console.width = max(console.width, _MIN_WIDTH)
  console.print(table)
  stated = report.manifest
  what = f'{stated.submission} for {stated.suite}' if stated else str(report.package)
  print(errors.printable(f'{what}, {report.num_trials} trials: {report.verdict}.'))
  print(f'SHA-256: {report.sha256}')
