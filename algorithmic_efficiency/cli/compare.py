"""Says which of two submissions is better, or that the runs do not decide.

The speed-up is the geometric mean over workloads and studies of the time of one over that of the
other. A miss, or a time above the cut-off, counts as the cut-off.

Example: algoeff compare adamw nesterov runs --suite quick
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from algorithmic_efficiency import errors
from algorithmic_efficiency.cli import _flags, score

if TYPE_CHECKING:
  from scoring import Leaderboard
  from scoring.statistics.verdicts import Verdict

SUMMARY = 'compare two submissions'


def arguments(parser: _flags.Parser) -> None:
  parser.add_argument('a', metavar='A', help='submission among the runs')
  parser.add_argument('b', metavar='B', help='submission to compare with')
  parser.add_argument(
    'runs', type=_flags.present_folder, metavar='RUNS', help="folder of runs, ours or AlgoPerf's"
  )
  score.rules_arguments(parser)
  score.seed_argument(parser)
  _flags.add(parser, 'json', help='print the verdict as JSON')


def run(args: argparse.Namespace) -> int:
  import json
  from dataclasses import asdict

  from scoring.console import comparison_lines, cut_short

  result, verdict = compared(args)
  if args.json:
    record = asdict(verdict) | {'cut_short': cut_short(result, (args.a, args.b))}
    print(json.dumps(record, indent=1))
  else:
    print(errors.printable('\n'.join(comparison_lines(result, verdict))))
  return 0


def compared(args: argparse.Namespace) -> tuple[Leaderboard, Verdict]:
  """The score of the runs, and the verdict on two of its submissions.

  Raises:
    UserError: a submission is not among the runs, or was given twice.
  """
  from scoring.statistics import verdicts

  _flags.find_own(args)
  _, result = score.load_and_score(args, statistics=False)
  for name in (args.a, args.b):
    if name not in result.submissions:
      raise errors.unknown('submission among the runs', name, result.submissions)
  if args.a == args.b:
    raise errors.UserError(f'Two submissions are compared; {args.a} was given twice.')
  return result, verdicts.one_pair(result, args.a, args.b, seed=args.seed)
