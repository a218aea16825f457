"""Runs a race: every submission on every workload of a suite, interleaved, and scores it.

The folder of runs is the state of the race. The same command again continues it: finished trials
are skipped, and interrupted ones resume. Trials that failed or are invalid are reported, and run
again only with --retry_failed.

On a SLURM cluster, --launcher slurm runs the trials as jobs, from a folder that all nodes share.

Example: algoeff bench --suite quick --submissions nadamw,momentum,twin=nadamw --ruleset self \\
  --frameworks jax --allow_provisional --experiment_dir races/first
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.cli import _flags
from algorithmic_efficiency.cli._race import launcher_arguments, race_arguments, race_of

if TYPE_CHECKING:
  from algorithmic_efficiency.experiments.race.race import Race
  from algorithmic_efficiency.experiments.race.run import RaceResult
  from algorithmic_efficiency.launch.tally import Tally

SUMMARY = 'run a whole race, and score it'
GOES_ON = ()


def arguments(parser: _flags.Parser) -> None:
  race_arguments(parser)
  launcher_arguments(parser)
  _flags.add(parser, 'max_hours')
  parser.add(
    'no_score',
    group=_flags.SCORING,
    action='store_true',
    help='run the trials only; score them later with `algoeff score`',
  )
  _flags.add(parser, 'mix_hosts')
  _flags.add(
    parser,
    'output_dir',
    help='write tables and report to DIR',
    unset='scores/ in the folder of the race',
  )
  _flags.add(parser, 'quiet')


def run(args: argparse.Namespace) -> int:
  from algorithmic_efficiency.experiments.race import run as race_run
  from algorithmic_efficiency.launch.session import interrupted_when_terminated

  race = race_of(args)
  is_scored = not (args.no_score or race.options.smoke)
  if is_scored:
    _require_scoring(_output_dir(args, race))
  if args.max_hours is not None:
    _refuse_more_expensive(args, race)
  with interrupted_when_terminated(), _reports(args, race, is_scored) as on_end:
    if is_scored and not args.quiet:
      print(f'The report is written as the race goes: {_output_dir(args, race) / "report.html"}')
    result = race_run.run(race, retry_failed=args.retry_failed, quiet=args.quiet, on_end=on_end)
  failed = _sum_up(result, quiet=args.quiet)
  if is_scored and not result.num_left_running:
    _score(args, race)
  return 1 if failed else 0


def _refuse_more_expensive(args: argparse.Namespace, race: Race) -> None:
  """Estimates a race as `algoeff plan` does; ends if it may take more than --max_hours.

  Raises:
    UserError: it may.
  """
  from algorithmic_efficiency.cli.plan import probed
  from algorithmic_efficiency.experiments.race import estimate
  from algorithmic_efficiency.launch.progress import say

  limits = estimate.BudgetLimits(max_hours=args.max_hours)
  estimated = probed(race, limits, retry_failed=args.retry_failed)
  if not args.quiet:
    for problem in estimated.problems:
      say(problem)
  limits.check(estimated)
  estimate.store(estimated, race.folder)


def _output_dir(args: argparse.Namespace, race: Race) -> Path:
  from scoring import outputs

  return outputs.folder_of(race.folder, args.output_dir)


def _require_scoring(output_dir: Path) -> None:
  """Makes sure before a race, and not after it, that it can be scored.

  Raises:
    UserError: a package is missing, or the folder cannot be written.
  """
  from scoring import outputs, report

  report.require_installed()
  outputs.require_writable(output_dir)


def _sum_up(result: RaceResult, *, quiet: bool) -> bool:
  """Says what failed and why; whether anything did."""
  from collections import Counter

  from algorithmic_efficiency.launch.progress import say
  from algorithmic_efficiency.launch.tally import row_of
  from algorithmic_efficiency.launch.words import cause

  causes = Counter(
    (row_of(config), cause(outcome))
    for config, outcome in zip(result.configs, result.outcomes, strict=True)
    if outcome.status != 'finished'
  )
  if not quiet:
    num_trials = len(result.configs) + result.num_left_running
    say(f'Trials finished: {len(result.configs) - causes.total()} of {num_trials}')
    if result.num_left_running:
      say(f'Left running or waiting: {result.num_left_running}')
  for ((submission, workload, framework), why), number in causes.items():
    say(f'{submission} on {workload} ({framework}), {number} trial(s): {why}')
  if result.num_left_failed:
    say(
      f'Failed or invalid before, and not run again: {result.num_left_failed}; --retry_failed runs '
      'them.'
    )
  for problem in result.problems:
    say(problem)
  return bool(causes)


def _score(args: argparse.Namespace, race: Race) -> None:
  """Scores all runs in the folder of the race, as `algoeff score` does."""
  from algorithmic_efficiency.cli import score
  from scoring import console

  parser = _flags.Parser()
  score.arguments(parser)
  result, folder = score.written(parser.parse_args(_score_arguments(args, race)))
  console.show_outcome(result)
  print(f'Report: {folder / "report.html"}')


@contextlib.contextmanager
def _reports(
  args: argparse.Namespace, race: Race, is_scored: bool
) -> Iterator[Callable[[Tally], None]]:
  """Gives what writes the report while the race goes on; nothing where it is not scored."""
  from algorithmic_efficiency.cli._interim_report import InterimReports

  if not is_scored:
    yield lambda tally: None
    return
  reports = InterimReports(_score_arguments(args, race), registry.suite(race.suite).axis)
  try:
    yield reports.take
  finally:
    reports.close()


def _score_arguments(args: argparse.Namespace, race: Race) -> list[str]:
  words = [f'--suite={race.suite}', f'--ruleset={race.ruleset}']
  words.append(f'--output_dir={_output_dir(args, race)}')
  if race.options.allow_provisional:
    words.append('--allow_provisional')
  if args.mix_hosts:
    words.append('--mix_hosts')
  for name in ('path', 'workload_path'):
    words += [f'--{name}={folder}' for folder in getattr(args, name)]
  return [*words, '--', str(race.folder)]  # it may begin with a dash
