"""Rebuilds the report alone, from a folder of runs or from the results of an earlier score.

Example: algoeff report runs/scores
"""

from __future__ import annotations

import argparse

from algorithmic_efficiency.cli import _flags, score

SUMMARY = 'rebuild the report of runs or of results'


def arguments(parser: _flags.Parser) -> None:
  parser.add_argument(
    'runs', type=_flags.present_folder, metavar='RUNS|OUT', help='folder of runs, or of results'
  )
  score.common_arguments(parser)
  _flags.add(parser, 'output_dir', help='write the report to DIR', unset='OUT, or RUNS/scores')


def run(args: argparse.Namespace) -> int:
  from pathlib import Path

  from scoring import outputs, report

  _flags.find_own(args)
  report.require_installed()
  source = Path(args.runs).expanduser()
  if any((source / name).is_file() for name in (report.DATA, 'leaderboard.json')):
    folder = source if args.output_dir is None else Path(args.output_dir).expanduser()
    outputs.require_writable(folder)
    page = report.rebuild(source, folder)
  else:
    folder = outputs.folder_of(source, args.output_dir)
    outputs.require_writable(folder)
    frame, result = score.load_and_score(args)
    page = report.write(frame, result, folder, figures=False)
  print(f'Report: {page}')
  return 0
