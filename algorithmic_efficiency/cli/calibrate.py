"""Sets the target and the budget of a workload by the published protocol, and records how.

Each submission's search space is searched with N points. The best point of all runs again with M
seeds. The median of the best validation values of these runs is the validation target. Of the runs
that reach it, the worst of the best test values is the test target. Twice as many seeds then tell
whether the target can be timed. The same command again continues.

With --from_record, an earlier record gives the best point and the numbers. For the same workload in
another framework, that point runs again with the same seeds. For a variant, the search has that
point and the same with half and twice its learning rate.

Example: algoeff calibrate quick_vision --framework jax \\
  --submissions adamw,nadamw,nesterov,momentum --trials 5 --seeds 5 --step_budget 150
"""

from __future__ import annotations

import argparse
import fractions
from pathlib import Path
from typing import TYPE_CHECKING

from algorithmic_efficiency import errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.cli import _flags
from algorithmic_efficiency.trial.run_options import RunOptions

if TYPE_CHECKING:
  from algorithmic_efficiency.experiments.calibration.run import Calibration
  from algorithmic_efficiency.experiments.calibration.target_setting import Record

SUMMARY = 'set the target of a workload by protocol'
GOES_ON = ()
_REQUIRED = ('submissions', 'trials', 'seeds', 'step_budget')
_NUMBERS = (*_REQUIRED, 'eval_period_steps', 'budget_factor', 'max_variation', 'seed')


def arguments(parser: _flags.Parser) -> None:
  from algorithmic_efficiency.experiments.calibration.run import PROTOCOL

  parser.add_argument('workload', metavar='WORKLOAD', help='workload whose target is set')
  _flags.add(parser, 'framework', required=True, help='framework of the submissions')
  parser.add(
    'from_record',
    group=_flags.RUN,
    metavar='RECORD',
    help='start from the best point of an earlier record, a .json file',
  )
  parser.add(
    'submissions',
    group=_flags.RUN,
    type=_flags.names,
    metavar='A,B',
    help='submissions whose search spaces are searched',
  )
  _flags.add(parser, 'trials', help='points drawn from the search space of each submission')
  parser.add(
    'seeds',
    group=_flags.TUNING,
    type=_flags.whole,
    metavar='M',
    help='seeds with which the best point runs again',
  )
  _flags.add(parser, 'seed')
  parser.add(
    'step_budget',
    group=_flags.STOPPING,
    type=_flags.whole,
    metavar='S',
    help='steps of every run',
  )
  parser.add(
    'eval_period_steps',
    group=_flags.STOPPING,
    type=_flags.whole,
    metavar='P',
    help='steps between evaluations, here and in races',
    unset='30 evaluations a run',
  )
  parser.add(
    'budget_factor',
    group=_flags.STOPPING,
    type=_factor,
    metavar='F',
    help='budget of the workload divided by the steps of a run',
    unset='4',
  )
  parser.add(
    'max_variation',
    group=_flags.STOPPING,
    type=_flags.positive,
    metavar='V',
    help='largest accepted variation of the time to target over seeds',
    unset='0.1',
  )
  _flags.add(parser, 'experiment_dir')
  _flags.add(parser, 'output_dir', default='calibration', help='write the record to DIR')
  _flags.add(parser, 'retry_failed')
  _flags.add_options(parser, RunOptions, fixed=PROTOCOL)
  _flags.add_options(parser, Devices)
  _flags.add(parser, 'workers', 'max_hours', 'path', 'workload_path', 'quiet')


def _factor(text: str) -> fractions.Fraction:
  try:
    return fractions.Fraction(text)
  except (ValueError, ZeroDivisionError):
    raise argparse.ArgumentTypeError(f'must be a number; it is {errors.shown(text)}') from None


def run(args: argparse.Namespace) -> int:
  from algorithmic_efficiency.cli.plan import lines
  from algorithmic_efficiency.experiments.calibration import run as calibration
  from algorithmic_efficiency.experiments.calibration import target_page
  from algorithmic_efficiency.experiments.race import estimate
  from algorithmic_efficiency.launch.progress import say
  from algorithmic_efficiency.launch.session import interrupted_when_terminated
  from scoring import outputs

  _flags.find_own(args)
  asked = _asked(args)
  outputs.require_writable(Path(args.output_dir).expanduser())
  limits = estimate.BudgetLimits(max_hours=args.max_hours)
  with interrupted_when_terminated():
    if not args.quiet:
      say('Probing what a trial takes, where one is left to run.')
    expected = calibration.estimate(asked, retry_failed=args.retry_failed)
    if expected is not None:
      limits.check(expected)
      if not args.quiet:
        say('\n'.join(lines(expected)))
    record = calibration.run(asked, retry_failed=args.retry_failed, quiet=args.quiet)
  file = Path(args.output_dir).expanduser() / f'{asked.name}.json'
  target_page.write(record, file)
  _show(record, file)
  return 1 if record.faults else 0


def _asked(args: argparse.Namespace) -> Calibration:
  """
  Raises:
    UserError: a flag is missing, or is given beside the record that has its value.
  """
  from algorithmic_efficiency.experiments.calibration.run import Calibration

  common = {
    'experiment_dir': args.experiment_dir,
    'options': _flags.options_of(args),
    'devices': _flags.devices_of(args),
    'workers': args.workers,
    'flags': {
      **_flags.given(args),
      'budget_factor': None if args.budget_factor is None else str(args.budget_factor),
    },
  }
  numbers = {name: value for name in _NUMBERS if (value := getattr(args, name)) is not None}
  if args.from_record is not None:
    if numbers:
      raise errors.UserError(
        'The numbers of the protocol are those of --from_record; leave out '
        f'--{next(iter(numbers))}.'
      )
    return Calibration.from_earlier(args.from_record, args.workload, args.framework, **common)
  missing = [f'--{name}' for name in _REQUIRED if name not in numbers]
  if missing:
    raise errors.UserError(f'A search of spaces needs {", ".join(missing)}; or use --from_record.')
  return Calibration(workload=args.workload, framework=args.framework, **numbers, **common)


def _show(record: Record, file: Path) -> None:
  from algorithmic_efficiency.experiments.calibration import target_page

  print(f'Record: {file}, and as a page {file.with_suffix(".md")}')
  for line in (*target_page.to_paste(record), *target_page.verdict(record)):
    print(f'  {line}')
  if not record.present.provisional and record.target != record.present:
    print(
      f'The present target of {record.workload} is not provisional: with another, the results that '
      'there are no longer count.'
    )
