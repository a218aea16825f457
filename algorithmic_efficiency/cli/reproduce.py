"""Runs a published point and says whether its metrics lie in the band of the published logs.

The run is evaluated at the steps at which the logs have rows. At each of them the band is the 99 %
prediction interval for one further run, by the logs of the same point (three at least); a metric is
reproduced if nine steps of ten are inside. The same command again goes on with the run that is
there. Exit code 0: every metric is inside; 1: one is not, or the run failed.

Example: algoeff reproduce mnist --submission nadamw --against logs/nadamw --steps 1000

Where the logs have several points, one is chosen by its file:
algoeff reproduce wmt --submission ./nadamw --against logs --framework jax --suite algoperf_v05 \\
  --point logs/study_1/wmt_jax/trial_1/hparams.json
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from algorithmic_efficiency import backends
from algorithmic_efficiency.benchmark import registry

if TYPE_CHECKING:
  from algorithmic_efficiency.experiments.reproduction.run import ReproductionReport

SUMMARY = 'hold a run against published logs'

_MIN_WIDTH = 100  # of the table, which is not cut where the output is no terminal


def arguments(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add('workload', metavar='WORKLOAD')
  add('--submission', required=True, metavar='NAME', help='a name, a folder or a module file')
  add('--against', required=True, metavar='LOGS', help="a folder of runs, ours or AlgoPerf's")
  add('--steps', type=int, metavar='N', help='look at no step beyond; default: all of the logs')
  add('--framework', choices=backends.FRAMEWORKS, help='default: that of the logs')
  add('--point', metavar='FILE', help='the hparams.json of a log; default: the only point there is')
  add('--suite', metavar='NAME', help='default: that of the logs, if they say it')
  add('--seed', type=int, help='default: drawn, and written down')
  add('--data_dir', metavar='DIR', help='default: $ALGOEFF_DATA_DIR, else ~/data')
  add('--experiment_dir', default='runs', metavar='DIR', help='of the run; default: runs')
  add('--overwrite', action='store_true', help='run anew where a run is there')
  add('--platform', choices=('auto', 'cpu', 'gpu', 'tpu'), default='auto')
  add('--num_devices', type=int, metavar='N', help='default: all (JAX), all GPUs or one (PyTorch)')
  add('--num_processes', type=int, metavar='N', help='default: one (JAX), one a device (PyTorch)')
  add('--num_threads', type=int, metavar='N', help='host threads of a process')
  add('--compile', choices=('auto', 'on', 'off'), default='auto', help='auto: on GPUs in PyTorch')
  add('--path', action='append', default=[], metavar='DIR', help='a root with more to find')
  add('--workload_path', action='append', default=[], metavar='DIR', help='a task folder')
  add('--json', action='store_true', help='machine-readable')
  add('--quiet', action='store_true', help='no progress')


def run(args: argparse.Namespace) -> int:
  import dataclasses

  from algorithmic_efficiency.backends.base import Devices
  from algorithmic_efficiency.experiments.reproduction import run as reproduction
  from algorithmic_efficiency.launch.session import interrupted_when_terminated
  from algorithmic_efficiency.results import files

  for path in args.path:
    registry.add_root(path)
  for path in args.workload_path:
    registry.add_task(path)
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
      data_dir=args.data_dir,
      experiment_dir=args.experiment_dir,
      devices=Devices(
        platform=args.platform,
        num_devices=args.num_devices,
        num_threads=args.num_threads,
        compile=args.compile,
      ),
      num_processes=args.num_processes,
      overwrite=args.overwrite,
      flags={name: value for name, value in vars(args).items() if name not in ('run', 'verb')},
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
    print(f'Left out: {why}.')
  for name in report.not_compared:
    print(f'Not compared: {name}, which the logs have and the workload does not report.')
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
