"""Sets the target and the budget of a workload by the published protocol, and records how.

Each submission's search space is searched with N points. The best point of all runs again with M
seeds. The median of the best validation values of these runs is the validation target. Of the runs
that reach it, the worst of the best test values is the test target. The same command again
continues.

Example: algoeff calibrate quick_vision --submissions adamw,nadamw,nesterov,momentum --trials 5 \\
  --seeds 5 --step_budget 450 --framework jax
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
  from algorithmic_efficiency.experiments.calibration.target_setting import Record

SUMMARY = 'set the target of a workload by protocol'


def arguments(parser: _flags.Parser) -> None:
  from algorithmic_efficiency.experiments.calibration.run import PROTOCOL

  parser.add_argument('workload', metavar='WORKLOAD', help='workload whose target is set')
  parser.add(
    'submissions',
    group=_flags.RUN,
    required=True,
    type=_flags.names,
    metavar='A,B',
    help='submissions whose search spaces are searched',
  )
  _flags.add(parser, 'framework', required=True, help='framework of the submissions')
  _flags.add(
    parser, 'trials', required=True, help='points drawn from the search space of each submission'
  )
  parser.add(
    'seeds',
    group=_flags.TUNING,
    type=_flags.whole,
    required=True,
    metavar='M',
    help='seeds with which the best point runs again',
  )
  _flags.add(parser, 'seed')
  parser.add(
    'step_budget',
    group=_flags.STOPPING,
    type=_flags.whole,
    required=True,
    metavar='S',
    help='steps of every run',
  )
  parser.add(
    'budget_factor',
    group=_flags.STOPPING,
    type=_factor,
    default=fractions.Fraction(4, 3),
    metavar='F',
    help='budget of the workload divided by the steps of a run, such as 8',
    unset="AlgoPerf's 4/3",
  )
  parser.add(
    'compare',
    group=_flags.OUTPUT,
    metavar='RECORD',
    help='say whether an earlier record, a .json file, agrees',
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
  from algorithmic_efficiency.experiments.calibration import (
    run as calibration,
  )
  from algorithmic_efficiency.experiments.calibration import (
    target_page,
    target_setting,
  )
  from algorithmic_efficiency.experiments.calibration.target_setting import Record
  from algorithmic_efficiency.experiments.race import estimate
  from algorithmic_efficiency.launch.progress import say
  from algorithmic_efficiency.launch.session import interrupted_when_terminated
  from scoring import outputs

  _flags.find_own(args)
  other = None
  if args.compare is not None:
    other = Record.read(Path(args.compare).expanduser())
    target_setting.check_like(other, workload=args.workload, step_budget=args.step_budget)
  outputs.require_writable(Path(args.output_dir).expanduser())
  limits = estimate.BudgetLimits(max_hours=args.max_hours)
  asked = calibration.Calibration(
    workload=args.workload,
    submissions=args.submissions,
    framework=args.framework,
    trials=args.trials,
    seeds=args.seeds,
    step_budget=args.step_budget,
    budget_factor=args.budget_factor,
    seed=args.seed,
    experiment_dir=args.experiment_dir,
    options=_flags.options_of(args),
    devices=_flags.devices_of(args),
    workers=args.workers,
    flags={**_flags.given(args), 'budget_factor': str(args.budget_factor)},
  )
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
  _show(record, other, file)
  return 0


def _show(record: Record, other: Record | None, file: Path) -> None:
  from algorithmic_efficiency.experiments.calibration import target_page, target_setting

  print(f'Record: {file}, and as a page {file.with_suffix(".md")}')
  for line in target_page.to_paste(record):
    print(f'  {line}')
  if not record.present.provisional:
    print(
      f'The present target of {record.workload} is not provisional: with another, the results that '
      'there are no longer count.'
    )
  if other is not None:
    print(target_setting.agreement_sentence(record, other))
