"""The flags that say which race it is, which `bench` and `plan` share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.cli import _flags
from algorithmic_efficiency.launchers.slurm_options import SlurmOptions
from algorithmic_efficiency.optimizers import by_name
from algorithmic_efficiency.option_fields import declared
from algorithmic_efficiency.results import race_files

if TYPE_CHECKING:
  from algorithmic_efficiency.experiments.race.race import Race

_FORMER_FOLDER = 'runs'


def race_arguments(parser: _flags.Parser) -> None:
  """Adds the flags of a race."""
  from algorithmic_efficiency.backends.base import Devices
  from algorithmic_efficiency.trial.run_options import RunOptions

  _flags.add(parser, 'suite', required=True)
  parser.add(
    'submissions',
    group=_flags.RUN,
    also=('submission',),
    required=True,
    type=_submissions,
    metavar='A,B',
    help='names, folders, module files or calls of optimizers; NAME=SUBMISSION is scored as NAME',
  )
  _flags.add(parser, 'ruleset')
  _flags.add(parser, 'frameworks', unset='those that are installed')
  _flags.add(parser, 'workloads', unset='those of the suite that can run')
  _flags.add(parser, 'trials', 'studies', unset="the suite's number")
  _flags.add(parser, 'seed')
  _flags.add(parser, 'experiment_dir', default=None, unset='races/SUITE_RULESET')
  parser.add(
    'resume',
    group=_flags.RESULTS,
    action='store_true',
    help='no effect: a race always continues the runs in its folder',
  )
  _flags.add(parser, 'retry_failed', 'overwrite')
  parser.add(
    'plain_steps',
    group=_flags.SCORING,
    action='store_true',
    help='count a step as one, whatever it costs, and time no steps; the score says so',
  )
  _flags.add_options(parser, RunOptions)
  _flags.add_options(parser, Devices)
  _flags.add(parser, 'workers', 'path', 'workload_path')


def launcher_arguments(parser: _flags.Parser) -> None:
  """Adds the flags that say where the trials run."""
  parser.add(
    'launcher',
    group=_flags.DEVICES,
    choices=('local', 'slurm'),
    default='local',
    help='run the trials on this machine, or as jobs of a SLURM cluster',
  )
  _flags.add_options(parser, SlurmOptions)


def _submissions(text: str) -> tuple[str, ...]:
  """The parts of a list; commas within the call of an optimizer do not separate parts."""
  return tuple(part.strip() for part in by_name.split_submissions(text) if part.strip())


def race_of(args: argparse.Namespace) -> Race:
  """The race that the flags of `race_arguments` mean.

  Raises:
    UserError: a flag is wrong by itself.
  """
  from algorithmic_efficiency.experiments.race.race import Race, RaceSubmission
  from algorithmic_efficiency.launch import request

  _flags.find_own(args)
  if args.resume and args.overwrite:
    raise errors.UserError('--resume and --overwrite exclude each other; give one of them.')
  return Race(
    suite=args.suite,
    entries=tuple(RaceSubmission.parse(text) for text in args.submissions),
    frameworks=args.frameworks or request.installed(),
    ruleset=args.ruleset,
    workloads=args.workloads,
    studies=args.studies,
    trials=args.trials,
    seed=args.seed,
    experiment_dir=args.experiment_dir or _former_folder(args),
    overwrite=args.overwrite,
    plain_steps=args.plain_steps,
    options=_flags.options_of(args),
    devices=_flags.devices_of(args),
    workers=args.workers,
    slurm=_slurm_of(args),
    flags=_flags.given(args),
  )


def _former_folder(args: argparse.Namespace) -> str | None:
  """The folder of every race before version 0.2, if it holds a race of this suite."""
  begun = race_files.read_selection(Path(_FORMER_FOLDER))
  if begun is None or begun.suite != registry.suite(args.suite).name:
    return None
  errors.renamed(f'The place of races, {_FORMER_FOLDER},', 'races/SUITE_RULESET')
  return _FORMER_FOLDER


def _slurm_of(args: argparse.Namespace) -> SlurmOptions | None:
  """The jobs of SLURM, if the flags ask for them.

  Raises:
    UserError: a flag is wrong by itself, or means nothing without --launcher slurm.
  """
  options = _flags.record_of(args, SlurmOptions)
  if getattr(args, 'launcher', 'local') == 'slurm':
    return options
  for one in declared(SlurmOptions):
    if getattr(options, one.field) != one.default:
      raise errors.UserError(f'--{one.flag} needs --launcher slurm.')
  return None
