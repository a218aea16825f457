"""Evaluates parameters that a trial has kept, on any split or probe of a workload.

RUN is the folder of a trial, or a folder with one trial below it. The trial must have been run with
`--keep_params last` or `--keep_params best`. The values are those of the trial's own row, on the
same kind of machine with the same number of threads.

Example: algoeff evaluate runs/nadamw/study_1/quick_vision_jax/trial_1 --split validation,test
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.cli import _flags
from algorithmic_efficiency.trial.run_options import RunOptions, data_dir

if TYPE_CHECKING:
  from algorithmic_efficiency.trial.kept_evaluation import Evaluated

SUMMARY = 'evaluate the parameters that a trial has kept'
CHANGED = 'The definition of the workload has been changed since the trial ran.'


def arguments(parser: _flags.Parser) -> None:
  parser.add_argument('run_folder', metavar='RUN', help='trial folder, or a folder with one trial')
  parser.add(
    'split',
    group=_flags.RUN,
    required=True,
    type=_flags.names,
    metavar='A,B',
    help='evaluate on these splits or probes',
  )
  parser.add(
    'workload',
    group=_flags.RUN,
    metavar='NAME',
    help='evaluate on a workload with the same model',
    unset='that of the trial',
  )
  _flags.add(parser, 'framework', help='take the trial of this framework')
  parser.add(
    'batch_size',
    group=_flags.RUN,
    type=_flags.whole,
    metavar='N',
    help='examples of an evaluation batch',
    unset='as in the trial',
  )
  _flags.add_options(parser, RunOptions, only=('data_dir',))
  _flags.add_options(parser, Devices, only=('platform', 'num_threads', 'compile'))
  _flags.add(parser, 'path', 'workload_path')
  parser.add('output', group=_flags.OUTPUT, metavar='FILE', help='also write the values as JSON')


def run(args: argparse.Namespace) -> int:
  import dataclasses

  from algorithmic_efficiency.launch import request
  from algorithmic_efficiency.option_fields import check_number
  from algorithmic_efficiency.results import files
  from algorithmic_efficiency.trial import kept_evaluation

  _flags.find_own(args)
  if args.batch_size is not None:
    check_number('batch_size', args.batch_size)
  trial = kept_evaluation.find(Path(args.run_folder).expanduser(), args.framework)
  request.check_installed(trial.record.framework)
  found = kept_evaluation.evaluate(
    trial,
    args.split,
    workload=args.workload,
    data_dir=data_dir(_flags.options_of(args).data_dir),
    batch_size=args.batch_size,
    devices=_flags.devices_of(args, num_devices=1),
  )
  print('\n'.join(lines(found)))
  if args.output:
    content = files.encode(dataclasses.asdict(found), indent=2) + '\n'
    with files.replacing(Path(args.output).expanduser(), then='repeat the command') as file:
      file.write(content.encode())
  return 0


def lines(found: Evaluated) -> list[str]:
  """A heading, a line for each value, and whether the workload is what it was."""
  trained = f', trained on {found.trained_on}' if found.trained_on != found.workload else ''
  width = max(map(len, found.values))
  is_changed = not trained and found.definition_hash != found.trained_on_hash
  return [
    f'{found.workload} ({found.framework}){trained}: parameters after step {found.global_step:,} '
    f'of {found.trial}',
    *(f'{name:<{width}}  {value:.6g}' for name, value in found.values.items()),
    *([CHANGED] if is_changed else ()),
  ]
