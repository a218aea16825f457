"""Scores a folder of runs: leaderboard with intervals and verdicts, tables, figures and a report.

Example: algoeff score runs --suite quick --output_dir results
"""

from __future__ import annotations

import argparse
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from algorithmic_efficiency.cli import _flags
from algorithmic_efficiency.trial.run_options import RunOptions

if TYPE_CHECKING:
  from pathlib import Path

  from scoring import Leaderboard

SUMMARY = 'score a folder of runs and write the report'


def arguments(parser: _flags.Parser) -> None:
  parser.add_argument(
    'runs', type=_flags.present_folder, metavar='RUNS', help="folder of runs, ours or AlgoPerf's"
  )
  common_arguments(parser)
  parser.add(
    'strict',
    group=_flags.SCORING,
    action='store_true',
    help='refuse a set of runs that breaks the rules',
  )
  _flags.add(parser, 'output_dir', help='write tables and report to DIR', unset='RUNS/scores')
  _flags.add(parser, 'json', help='print leaderboard.json instead of the table')
  parser.add(
    'no_report',
    group=_flags.OUTPUT,
    action='store_true',
    help='write the tables only, without figures and report',
  )


def common_arguments(parser: _flags.Parser) -> None:
  """Adds the flags that `score` and `report` share."""
  rules_arguments(parser)
  selection_arguments(parser)
  seed_argument(parser)
  parser.add(
    'resamples',
    group=_flags.SCORING,
    type=_positive,
    default=1000,
    metavar='N',
    help='bootstrap samples for the intervals',
  )


def selection_arguments(parser: _flags.Parser) -> None:
  """Adds the flags that `plot` has, too."""
  names: dict[str, Any] = {
    'group': _flags.SCORING,
    'type': _flags.names,
    'default': (),
    'metavar': 'A,B',
  }
  parser.add('include', help='score these submissions only', **names)
  parser.add('exclude', help='score all submissions but these', **names)
  parser.add(
    'reference',
    group=_flags.SCORING,
    metavar='SUBMISSION',
    help='submission whose times are the unit',
    unset='the fastest on each workload',
  )


def seed_argument(parser: _flags.Parser) -> None:
  """Adds the seed of what `score` and `compare` draw at random."""
  facts = {'default': 0, 'unset': '0', 'help': 'seed of the bootstrap samples'}
  _flags.add(parser, 'seed', group=_flags.SCORING, **facts)


def rules_arguments(parser: _flags.Parser) -> None:
  """Adds the flags that `compare` and `plot` have, too."""
  group = {'group': _flags.SCORING}
  _flags.add(parser, 'suite', **group, unset='that of the runs')
  _flags.add(parser, 'ruleset', **group, default=None, unset='that of the runs, else external')
  _flags.add(
    parser,
    'workloads',
    **group,
    default=(),
    help='score these workloads only',
    unset='those of the race, else all of the suite',
  )
  parser.add(
    'against',
    group=_flags.SCORING,
    metavar='SET',
    help='add published results, such as algoperf_v05 or quick_board',
  )
  parser.add(
    'axis',
    group=_flags.SCORING,
    choices=('seconds', 'cost_adjusted_steps', 'plain_steps'),
    help='unit of the time to the target; a plain step counts as one, whatever it costs',
    unset="that of the race, else the suite's",
  )
  parser.add(
    'integral',
    group=_flags.SCORING,
    choices=('grid', 'exact'),
    help='integral over the performance profile, on a grid or exact',
    unset="the suite's",
  )
  _flags.add_options(
    parser,
    RunOptions,
    only=('allow_provisional',),
    group=_flags.SCORING,
    help='score workloads whose targets are not calibrated yet, too',
  )
  _flags.add(parser, 'mix_hosts')
  _flags.add(parser, 'path', 'workload_path')


_MAX_RESAMPLES = 100_000


def _positive(text: str) -> int:
  value = _flags.whole(text)
  if value < 1:
    raise argparse.ArgumentTypeError(f'must be positive; it is {value}')
  if value > _MAX_RESAMPLES:
    raise argparse.ArgumentTypeError(f'must be at most {_MAX_RESAMPLES:,}; it is {value:,}')
  return value


_SAME_NAMES = (
  *('include', 'exclude', 'workloads', 'reference', 'against', 'strict', 'axis', 'integral'),
  *('allow_provisional', 'mix_hosts', 'seed'),
)
_SCORED_BY = {**{name: name for name in _SAME_NAMES}, 'resamples': 'num_resamples'}
"""The arguments of `scoring.score` by the flags that set them."""


def run(args: argparse.Namespace) -> int:
  result, folder = written(args)
  _show(args, result, folder)
  return 0


def written(args: argparse.Namespace) -> tuple[Leaderboard, Path]:
  """Scores runs, and writes tables and report; gives the result and its folder.

  Raises:
    UserError: the runs cannot be scored as the flags say, or the folder cannot be written.
  """
  from scoring import outputs, report

  _flags.find_own(args)
  folder = outputs.folder_of(args.runs, args.output_dir)
  outputs.require_writable(folder)
  if not args.no_report:
    report.require_installed()
  frame, result = load_and_score(args)
  outputs.write_tables(result, folder)
  if args.no_report:
    report.remove(folder)
  else:
    report.write(frame, result, folder)
  return result, folder


def load_and_score(
  args: argparse.Namespace,
  *,
  studies: Collection[tuple[str, str]] | None = None,
  statistics: bool = True,
):
  """The evaluations and the result that the flags ask for.

  Args:
    args: those of a verb with `rules_arguments`; flags that it lacks have their defaults.
    studies: those that are scored, by workload and name; None for all.
    statistics: whether intervals and verdicts are computed, too.
  """
  import scoring
  from scoring.choice import suite_and_ruleset
  from scoring.load import keep_studies

  frame = scoring.load(args.runs)
  if studies is not None:
    frame = keep_studies(frame, studies)
  suite, ruleset = suite_and_ruleset(frame, args.suite, args.ruleset, against=args.against)
  given = {of: getattr(args, flag) for flag, of in _SCORED_BY.items() if hasattr(args, flag)}
  result = scoring.score(frame, suite, ruleset=ruleset, statistics=statistics, **given)
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
