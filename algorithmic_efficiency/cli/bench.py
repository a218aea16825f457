"""Runs a race: every submission on every workload of a suite, interleaved, and scores it.

The state is the folder of runs itself. The same command again goes on: what is done is skipped,
what was cut off is continued, what failed by its own fault or is invalid is told, and run again
only with --retry_failed.

Example: algoeff bench --suite quick --submissions nadamw,momentum,twin=nadamw --ruleset self \\
  --frameworks jax --allow_provisional --experiment_dir races/first
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, get_args

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Split
from algorithmic_efficiency.benchmark.suites import SUITES
from algorithmic_efficiency.optimizers import by_name

if TYPE_CHECKING:
  from algorithmic_efficiency.experiments.race.race import Race
  from algorithmic_efficiency.experiments.race.run import RaceResult

SUMMARY = 'run a whole race, and score it'

_SPLITS = get_args(Split)


def arguments(parser: argparse.ArgumentParser) -> None:
  race_arguments(parser)
  add = parser.add_argument
  add(
    '--max_hours', type=float, metavar='H', help='first probe, and refuse more device-hours than H'
  )
  add('--no_score', action='store_true', help='run the trials, and leave the scoring to `score`')
  add('--mix_hosts', action='store_true', help='score seconds of several hosts side by side')
  add('--output_dir', metavar='DIR', help='of tables and report; default: scores/ among the runs')
  add('--quiet', action='store_true', help='no progress')


def race_arguments(parser: argparse.ArgumentParser) -> None:
  """What says which race it is: `plan` takes it too."""
  add = parser.add_argument
  add('--suite', required=True, metavar='NAME', help=f'{", ".join(SUITES)}, or a TOML file')
  add(
    '--submissions',
    required=True,
    type=_submissions,
    metavar='A,B',
    help='names, folders, module files or calls of optimizers; NAME=SUBMISSION is scored as NAME',
  )
  add('--ruleset', choices=('external', 'self'), default='external', help='default: external')
  add(
    '--frameworks',
    type=names,
    metavar='A,B',
    help='jax, pytorch; default: those that are installed',
  )
  add('--workloads', type=names, metavar='A,B', help="default: the suite's that can run")
  add('--studies', type=int, metavar='N', help="default: the suite's number")
  add('--trials', type=int, metavar='N', help="points of a study; default: the suite's number")
  add('--seed', type=int, help='default: that of the runs that are there, else drawn')
  add('--data_dir', metavar='DIR', help='default: $ALGOEFF_DATA_DIR, else ~/data')
  add('--experiment_dir', default='runs', metavar='DIR', help='the folder of runs; default: runs')
  add('--workers', type=int, metavar='N', help='trials at a time; default: 1, or 1 a group of GPUs')
  add(
    '--resume', action='store_true', help='what is done anyway: go on with the runs that are there'
  )
  add('--retry_failed', action='store_true', help='run again what failed or is invalid')
  add('--overwrite', action='store_true', help='replace the trials that are there')
  add('--smoke', action='store_true', help='tiny sizes on generated data; never scored')
  add('--allow_provisional', action='store_true', help='race towards targets not yet calibrated')
  add('--max_global_steps', type=int, metavar='N')
  add(
    '--stop_at',
    choices=('both', 'validation', 'never'),
    default='both',
    help='the targets that end a trial',
  )
  add('--splits', type=names, default=_SPLITS, metavar='A,B', help='evaluated; default: all three')
  add(
    '--full_eval_every',
    type=int,
    default=1,
    metavar='N',
    help='whole evaluations; those between look at one batch, and are whole if it is at the target',
  )
  add('--stop_on_divergence', action=argparse.BooleanOptionalAction, default=None)
  add(
    '--heartbeat_timeout_sec',
    type=float,
    metavar='SEC',
    help='end a trial that is silent for so long',
  )
  add('--save_checkpoints', action=argparse.BooleanOptionalAction, default=True)
  add('--platform', choices=('auto', 'cpu', 'gpu', 'tpu'), default='auto')
  add('--num_devices', type=int, metavar='N', help='of a trial; default: all there are')
  add('--num_threads', type=int, metavar='N', help='host threads of a process')
  add('--compile', choices=('auto', 'on', 'off'), default='auto', help='auto: on GPUs in PyTorch')
  add('--path', action='append', default=[], metavar='DIR', help='a root with more to find')
  add('--workload_path', action='append', default=[], metavar='DIR', help='a task folder')


def names(text: str) -> tuple[str, ...]:
  return tuple(name.strip() for name in text.split(',') if name.strip())


def _submissions(text: str) -> tuple[str, ...]:
  """The parts of a list, in which the calls of optimizers have commas of their own."""
  return tuple(part.strip() for part in by_name.entries_of(text) if part.strip())


def race_of(args: argparse.Namespace) -> Race:
  """The race that the arguments of `race_arguments` mean.

  Raises:
    UserError: an argument is wrong by itself.
  """
  from algorithmic_efficiency.backends.base import Devices
  from algorithmic_efficiency.experiments.race.race import Race, RaceSubmission
  from algorithmic_efficiency.launch import request

  for path in args.path:
    registry.add_root(path)
  for path in args.workload_path:
    registry.add_task(path)
  if args.resume and args.overwrite:
    raise errors.UserError('--resume and --overwrite exclude each other; give one of them.')
  for split in args.splits:
    if split not in _SPLITS:
      raise errors.unknown('split', split, _SPLITS)
  return Race(
    suite=args.suite,
    entries=tuple(RaceSubmission.parse(text) for text in args.submissions),
    frameworks=args.frameworks or request.installed(),
    ruleset=args.ruleset,
    workloads=args.workloads,
    studies=args.studies,
    trials=args.trials,
    seed=args.seed,
    data_dir=args.data_dir,
    experiment_dir=args.experiment_dir,
    devices=Devices(
      platform=args.platform,
      num_devices=args.num_devices,
      num_threads=args.num_threads,
      compile=args.compile,
    ),
    workers=args.workers,
    smoke=args.smoke,
    overwrite=args.overwrite,
    allow_provisional=args.allow_provisional,
    max_global_steps=args.max_global_steps,
    stop_at=args.stop_at,
    stop_on_divergence=args.stop_on_divergence,
    save_checkpoints=args.save_checkpoints,
    splits=args.splits,
    full_eval_every=args.full_eval_every,
    heartbeat_timeout_sec=args.heartbeat_timeout_sec,
    flags={name: value for name, value in vars(args).items() if name not in ('run', 'verb')},
  )


def run(args: argparse.Namespace) -> int:
  from algorithmic_efficiency.experiments.race import run as race_run
  from algorithmic_efficiency.launch.session import interrupted_when_terminated

  race = race_of(args)
  is_scored = not (args.no_score or race.smoke)
  if is_scored:
    _require_scoring()
  if args.max_hours is not None:
    _refuse_dearer(args, race)
  with interrupted_when_terminated():
    result = race_run.run(race, retry_failed=args.retry_failed, quiet=args.quiet)
  failed = _sum_up(result, quiet=args.quiet)
  if is_scored:
    _score(args, race, result)
  return 1 if failed else 0


def _refuse_dearer(args: argparse.Namespace, race: Race) -> None:
  """Prices a race as `algoeff plan` does, and goes no further if it may take more than --max_hours.

  Raises:
    UserError: it may.
  """
  from algorithmic_efficiency.cli.plan import probed
  from algorithmic_efficiency.experiments.race import estimate
  from algorithmic_efficiency.launch.progress import say

  limits = estimate.BudgetLimits(max_hours=args.max_hours)
  priced = probed(race, limits, retry_failed=args.retry_failed)
  if not args.quiet:
    for problem in priced.problems:
      say(problem)
  limits.check(priced)
  estimate.store(priced, race.folder)


def _require_scoring() -> None:
  """Says before a race, and not after it, that what scores it is missing."""
  from scoring import report

  report.require_installed()


def _sum_up(result: RaceResult, *, quiet: bool) -> bool:
  """Says what failed and why; whether anything did."""
  from collections import Counter

  from algorithmic_efficiency.experiments.race.progress import cause, row_of
  from algorithmic_efficiency.launch.progress import say

  causes = Counter(
    (row_of(config), cause(outcome))
    for config, outcome in zip(result.configs, result.outcomes, strict=True)
    if outcome.status != 'finished'
  )
  if not quiet:
    say(f'Trials finished: {len(result.configs) - causes.total()} of {len(result.configs)}')
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


def _score(args: argparse.Namespace, race: Race, result: RaceResult) -> None:
  """Scores the trials of this race as `algoeff score` does, and nothing else in its folder."""
  from algorithmic_efficiency.cli import score

  parser = argparse.ArgumentParser()
  score.arguments(parser)
  words = [str(race.folder), '--suite', race.suite, '--ruleset', race.ruleset]
  words += ['--output_dir', args.output_dir or str(race.folder / 'scores')]
  if race.allow_provisional:
    words.append('--allow_provisional')
  if args.mix_hosts:
    words.append('--mix_hosts')
  if race.workloads is not None:
    words += ['--workloads', ','.join(race.workloads)]
  score.run(parser.parse_args(words), only=frozenset(str(config.path) for config in result.configs))
