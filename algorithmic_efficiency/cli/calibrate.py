"""Sets the target and the budget of a workload by the published protocol, and records how.

Each submission's search space is searched with N points; the best point of all runs again with M
seeds. The median of their best validation values is the validation target; of the runs that reach
it, the worst of their best test values is the test target. The same command again goes on.

Example: algoeff calibrate quick_vision --submissions adamw,nadamw,nesterov,momentum --trials 5 \\
  --seeds 5 --step_budget 450 --framework jax
"""

from __future__ import annotations

import argparse
import fractions
from pathlib import Path
from typing import TYPE_CHECKING

from algorithmic_efficiency import backends
from algorithmic_efficiency.benchmark import registry

if TYPE_CHECKING:
  from algorithmic_efficiency.experiments.calibration.target_setting import Record

SUMMARY = 'set the target of a workload by protocol'


def arguments(parser: argparse.ArgumentParser) -> None:
  from algorithmic_efficiency.cli.bench import names

  add = parser.add_argument
  add('workload', metavar='WORKLOAD')
  add('--submissions', required=True, type=names, metavar='A,B', help='whose spaces are searched')
  add('--trials', type=int, required=True, metavar='N', help='points of the space of each of them')
  add('--seeds', type=int, required=True, metavar='M', help='how often the best point runs again')
  add('--step_budget', type=int, required=True, metavar='S', help='steps of every run')
  add(
    '--budget_factor',
    type=_factor,
    default=fractions.Fraction(4, 3),
    metavar='F',
    help="of the budget on these steps, such as 8; default: AlgoPerf's 4/3",
  )
  add('--framework', required=True, choices=backends.FRAMEWORKS)
  add('--compare', metavar='RECORD', help='say whether an earlier record, a .json file, agrees')
  add('--seed', type=int, help='default: that of the runs that are there, else drawn')
  add('--data_dir', metavar='DIR', help='default: $ALGOEFF_DATA_DIR, else ~/data')
  add('--experiment_dir', default='runs', metavar='DIR', help='of the runs; default: runs')
  add('--output_dir', default='calibration', metavar='DIR', help='of the record')
  add('--workers', type=int, metavar='N', help='trials at a time; default: 1, or 1 a group of GPUs')
  add('--max_hours', type=float, metavar='H', help='refuse if it may take more device-hours')
  add('--retry_failed', action='store_true', help='run again what failed or is invalid')
  add('--platform', choices=('auto', 'cpu', 'gpu', 'tpu'), default='auto')
  add('--num_devices', type=int, metavar='N', help='of one trial')
  add('--num_threads', type=int, metavar='N', help='host threads of a process')
  add('--compile', choices=('auto', 'on', 'off'), default='auto', help='auto: on GPUs in PyTorch')
  add('--path', action='append', default=[], metavar='DIR', help='a root with more to find')
  add('--workload_path', action='append', default=[], metavar='DIR', help='a task folder')
  add('--quiet', action='store_true', help='no progress')


def _factor(text: str) -> fractions.Fraction:
  try:
    return fractions.Fraction(text)
  except (ValueError, ZeroDivisionError):
    raise argparse.ArgumentTypeError(f'{text} is no number') from None


def run(args: argparse.Namespace) -> int:
  from algorithmic_efficiency.backends.base import Devices
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

  for path in args.path:
    registry.add_root(path)
  for path in args.workload_path:
    registry.add_task(path)
  other = None
  if args.compare is not None:
    other = Record.read(Path(args.compare).expanduser())
    target_setting.check_like(other, workload=args.workload, step_budget=args.step_budget)
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
    data_dir=args.data_dir,
    experiment_dir=args.experiment_dir,
    devices=Devices(
      platform=args.platform,
      num_devices=args.num_devices,
      num_threads=args.num_threads,
      compile=args.compile,
    ),
    workers=args.workers,
    flags={
      name: str(value) if name == 'budget_factor' else value
      for name, value in vars(args).items()
      if name not in ('run', 'verb')
    },
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
