"""Runs a published point and says whether its metrics lie in the band of the published logs.

The run is evaluated at the steps of the logs' rows. The band at a step is the 99 % prediction
interval for one more run, computed from at least three logs of the same point. A metric is
reproduced if it is inside at nine steps of ten. The same command again continues the run. Exit code
0: every metric is reproduced; 1: one is not, or the run failed.

Example: algoeff reproduce mnist --submission nadamw --against logs/nadamw --steps 1000

Logs of several points need --point:
algoeff reproduce wmt --submission ./nadamw --against logs --framework jax --suite algoperf_v05 \\
  --point logs/study_1/wmt_jax/trial_1/hparams.json
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from algorithmic_efficiency import errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.cli import _flags
from algorithmic_efficiency.trial.run_options import RunOptions

if TYPE_CHECKING:
  from algorithmic_efficiency.experiments.reproduction.run import ReproductionReport

SUMMARY = 'compare a run with published logs'

_MIN_WIDTH = 100  # of the table, which is not cut where the output is no terminal


def arguments(parser: _flags.Parser) -> None:
  from algorithmic_efficiency.experiments.reproduction.run import PROTOCOL

  parser.add_argument('workload', metavar='WORKLOAD', help='workload of the logs')
  parser.add(
    'submission',
    group=_flags.RUN,
    required=True,
    metavar='NAME',
    help='name, folder or module file to run',
  )
  parser.add(
    'against',
    group=_flags.RUN,
    required=True,
    type=_flags.present_folder,
    metavar='LOGS',
    help="folder of runs, ours or AlgoPerf's, to compare with",
  )
  _flags.add(parser, 'framework', unset='that of the logs')
  _flags.add(parser, 'suite', unset='that of the logs, if they state it')
  parser.add(
    'point',
    group=_flags.TUNING,
    metavar='FILE',
    help='hparams.json of one log: the point to run',
    unset='the only point of the logs',
  )
  _flags.add(parser, 'seed', unset='a new one, which is recorded')
  parser.add(
    'steps',
    group=_flags.STOPPING,
    type=_flags.whole,
    metavar='N',
    help='run and compare N steps',
    unset='all steps of the logs',
  )
  _flags.add(parser, 'experiment_dir', 'overwrite')
  _flags.add_options(parser, RunOptions, fixed=PROTOCOL)
  _flags.add_options(parser, Devices)
  _flags.add(parser, 'num_processes', 'path', 'workload_path', 'json', 'quiet')


def run(args: argparse.Namespace) -> int:
  import dataclasses

  from algorithmic_efficiency.experiments.reproduction import run as reproduction
  from algorithmic_efficiency.launch.session import interrupted_when_terminated
  from algorithmic_efficiency.results import files

  _flags.find_own(args)
  prepared = reproduction.prepare(
    reproduction.Reproduction(
      workload=args.workload,
      submission=args.submission,
      against=args.against,
      steps=args.steps,
      framework=args.framework,
      point=args.point,
      suite=args.suite,
      seed=args.seed,
      experiment_dir=args.experiment_dir,
      overwrite=args.overwrite,
      options=_flags.options_of(args),
      devices=_flags.devices_of(args),
      num_processes=args.num_processes,
      flags=_flags.given(args),
    )
  )
  with interrupted_when_terminated():
    report = reproduction.run(prepared, quiet=args.quiet or args.json)
  if args.json:
    found = {**dataclasses.asdict(report), 'is_reproduced': report.is_reproduced}
    print(files.encode(found))
  else:
    _show(report)
  return 0 if report.is_reproduced else 1


def _show(report: ReproductionReport) -> None:
  from rich.console import Console
  from rich.table import Table

  table = Table(box=None, pad_edge=False)
  for name in ('metric', 'verdict', 'steps inside'):
    table.add_column(name, no_wrap=True)
  for name in ('furthest at step', 'value', 'low', 'high', 'logs'):
    table.add_column(name, no_wrap=True, justify='right')
  for one in report.metrics:
    table.add_row(
      one.metric,
      'inside' if one.is_inside else 'OUTSIDE',
      f'{one.num_inside} of {one.num_steps}',
      str(one.step),
      *(f'{number:.5g}' for number in (one.value, one.low, one.high)),
      str(one.num_logs),
    )
  console = Console()
  console.width = max(console.width, _MIN_WIDTH)
  console.print(table)
  for why in report.left_out:
    print(errors.printable(f'Left out: {why}.'))
  for name in report.not_compared:
    print(
      errors.printable(
        f'Not compared: {name}, which the logs have and the workload does not report.'
      )
    )
  print(f'Run: {report.folder}')
  print(_sentence(report))


def _sentence(report: ReproductionReport) -> str:
  what = f'{report.submission} on {report.workload} ({report.framework}, {report.suite})'
  outside = [one.metric for one in report.metrics if not one.is_inside]
  if report.is_reproduced:
    return (
      f'Reproduced: {what} is inside the band of {len(report.logs)} logs with all its metrics, up '
      f'to step {report.last_step}.'
    )
  if report.status != 'finished' or report.last_step < report.steps[-1]:
    return (
      f'Not reproduced: {what} ended after step {report.last_step} of {report.steps[-1]}: '
      f'{report.reason}.'
    )
  return (
    f'Not reproduced: {what} is outside the band of {len(report.logs)} logs with '
    f'{len(outside)} of {len(report.metrics)} metrics.'
  )
