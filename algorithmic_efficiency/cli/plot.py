"""Draws one chart of a folder of runs: training curves, performance profile or times to target.

The name of the file says the format: .svg, .png, .pdf, or .json for the Vega-Lite specification.

Example: algoeff plot curves runs --workloads quick_vision -o curves.svg
"""

from __future__ import annotations

import argparse

from algorithmic_efficiency.cli import _flags, score

SUMMARY = 'draw a chart of runs: curves, profile or times'
KINDS = ('curves', 'profile', 'times')


def arguments(parser: _flags.Parser) -> None:
  parser.add_argument('kind', metavar='KIND', choices=KINDS, help=f'one of {", ".join(KINDS)}')
  parser.add_argument(
    'runs', type=_flags.present_folder, metavar='RUNS', help="folder of runs, ours or AlgoPerf's"
  )
  score.rules_arguments(parser)
  score.selection_arguments(parser)
  parser.add(
    'split',
    group=_flags.OUTPUT,
    choices=('validation', 'train', 'test'),
    default='validation',
    help='split of the curves',
  )
  parser.add(
    'x',
    group=_flags.OUTPUT,
    choices=('seconds', 'steps', 'examples'),
    help='what curves are drawn against',
    unset='the unit of the suite',
  )
  parser.add(
    'output',
    group=_flags.OUTPUT,
    short='o',
    metavar='FILE',
    help='write the chart to FILE',
    unset='KIND.svg',
  )


def run(args: argparse.Namespace) -> int:
  from algorithmic_efficiency import api

  _flags.find_own(args)
  output = args.output or f'{args.kind}.svg'
  options = {
    name: value
    for name, value in vars(args).items()
    if name not in ('kind', 'runs', 'output', 'path', 'workload_path', 'verb', 'run')
  }
  api.plot(args.kind, args.runs, output=output, **options)
  print(f'Chart: {output}')
  return 0
