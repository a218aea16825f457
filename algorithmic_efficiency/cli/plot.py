"""Draws one chart of a folder of runs: training curves, performance profile or times to target.

The name of the file says the format: .svg, .png, .pdf, or .json for the Vega-Lite specification.

Example: algoeff plot curves runs --workloads quick_vision -o curves.svg
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from algorithmic_efficiency.cli import _flags, score

if TYPE_CHECKING:
  from scoring.report.figures import Chart

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
  args.output = args.output or f'{args.kind}.svg'
  drawn(args)
  print(f'Chart: {args.output}')
  return 0


def drawn(args: argparse.Namespace) -> Chart:
  """The chart that the flags ask for, written to --output if there is one.

  Raises:
    UserError: there is nothing to draw, or the file cannot be written.
  """
  from scoring import outputs, report
  from scoring.report import figures, plots

  _flags.find_own(args)
  report.require_installed()
  output = None if args.output is None else Path(args.output).expanduser()
  if output is not None:
    figures.require_format(output)
    outputs.require_writable(output.parent, '--output')
  frame, result = score.load_and_score(args, statistics=False)
  chart = plots.draw(args.kind, frame, result, split=args.split, x=args.x)
  if output is not None:
    output.parent.mkdir(parents=True, exist_ok=True)
    chart.save(args.output)
  return chart
