"""Scores a folder of runs: leaderboard with intervals and verdicts, tables, figures and a report.

Example: algoeff score runs --suite quick --output_dir results
"""

from __future__ import annotations

import argparse
from collections.abc import Collection

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.suites import SUITES

SUMMARY = 'score a folder of runs and write the report'


def arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('runs', metavar='RUNS', help='a folder of runs, ours or of AlgoPerf')
  common_arguments(parser)
  add = parser.add_argument
  add('--strict', action='store_true', help='refuse a set that breaks the rules')
  add('--output_dir', default='scoring_results', metavar='DIR')
  add('--json', action='store_true', help='print leaderboard.json instead of the table')
  add('--no_report', action='store_true', help='write the tables only: no figures, no report')


def common_arguments(parser: argparse.ArgumentParser) -> None:
  """What `score` and `report` share."""
  rules_arguments(parser)
  add = parser.add_argument
  add('--include', type=_names, default=(), metavar='A,B', help='these submissions alone')
  add('--exclude', type=_names, default=(), metavar='A,B', help='all submissions but these')
  add('--reference', metavar='SUBMISSION', help='whose times are the unit; default: the fastest')
  add('--resamples', type=_positive, default=1000, metavar='N', help='for the intervals')


def rules_arguments(parser: argparse.ArgumentParser) -> None:
  """What `compare` takes too."""
  add = parser.add_argument
  add(
    '--suite',
    metavar='NAME',
    help=f'{", ".join(SUITES)}, or a .toml file; default: what the runs say',
  )
  add('--ruleset', choices=('external', 'self'), help='default: what the runs say, else external')
  add('--workloads', type=_names, default=(), metavar='W1,W2', help='score these members alone')
  add('--against', metavar='SUITE', help='add the published competitors of a suite')
  add('--axis', choices=('seconds', 'cost_adjusted_steps'), help="default: the suite's")
  add('--integral', choices=('grid', 'exact'), help="default: the suite's")
  add('--allow_provisional', action='store_true', help='score targets not yet calibrated, too')
  add('--mix_hosts', action='store_true', help='let seconds of several hosts stand side by side')
  add('--seed', type=int, default=0, help='of the random draws')
  add('--path', action='append', default=[], metavar='DIR', help='a root with more workloads')


def _names(text: str) -> tuple[str, ...]:
  return tuple(name for name in text.split(',') if name)


def _positive(text: str) -> int:
  value = int(text)
  if value < 1:
    raise argparse.ArgumentTypeError(f'{text} is not positive')
  return value


def run(args: argparse.Namespace, only: Collection[str] | None = None) -> int:
  """Scores and reports; `only` are the real paths of the trials that count, None takes all."""
  from pathlib import Path

  from scoring import outputs

  for path in args.path:
    registry.add_root(path)
  folder = Path(args.output_dir).expanduser()
  outputs.require_writable(folder)
  if not args.no_report:
    from scoring import report

    report.require_installed()
  frame, result = load_and_score(args, only)
  outputs.write_tables(result, folder)
  if not args.no_report:
    from scoring import report

    report.write(frame, result, folder)
  _show(args, result, folder)
  return 0


def load_and_score(args: argparse.Namespace, only: Collection[str] | None = None):
  """The evaluations and the result that the common arguments ask for."""
  import scoring
  from scoring.choice import suite_and_ruleset

  frame = scoring.load(args.runs, only)
  suite, ruleset = suite_and_ruleset(frame, args.suite or args.against, args.ruleset)
  result = scoring.score(
    frame,
    suite,
    ruleset=ruleset,
    include=args.include,
    exclude=args.exclude,
    workloads=args.workloads,
    reference=args.reference,
    against=args.against,
    strict=getattr(args, 'strict', False),
    axis=args.axis,
    integral=args.integral,
    allow_provisional=args.allow_provisional,
    mix_hosts=args.mix_hosts,
    num_resamples=args.resamples,
    seed=args.seed,
  )
  return frame, result


def _show(args: argparse.Namespace, result, folder) -> None:
  from scoring import console

  if args.json:
    print((folder / 'leaderboard.json').read_text(), end='')
    return
  console.show_leaderboard(result)
  if args.no_report:
    print(f'Tables: {folder}')
  else:
    print(f'Report: {folder / "report.html"}')
