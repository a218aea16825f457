"""Runs a submission on a workload and records every trial.

Example: algoeff run --workload mnist --framework jax --submission nadamw --ruleset self

Any optimizer of PyTorch's or optax's interface, third-party ones among them, needs no submission:
algoeff run --workload mnist --optimizer torch.optim.AdamW --hparam lr=1e-3 --schedule warmup_cosine
"""

from __future__ import annotations

import argparse
from typing import Any

from algorithmic_efficiency import backends, errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.cli import _flags
from algorithmic_efficiency.optimizers import by_name, settings
from algorithmic_efficiency.trial.run_options import RunOptions

SUMMARY = 'run a submission on a workload'
GOES_ON = ('--resume',)

OPTIMIZER_OPTIONS = {
  'schedule': f'schedule of the learning rate, from {", ".join(settings.SCHEDULES)}',
  'warmup': 'fraction of the step hint, from 0 to 1, over which the learning rate rises',
  'grad_clip': 'largest global norm of the gradient; larger ones are scaled down',
  'label_smoothing': 'weight of the uniform distribution in the targets, from 0 to 1',
  'dropout_rate': "dropout rate of the model; default: the workload's",
  'micro_batches': 'parts that a batch is computed in, to save memory',
}


def arguments(parser: _flags.Parser) -> None:
  parser.add(
    'workload',
    group=_flags.RUN,
    also=('workloads',),
    required=True,
    metavar='NAME',
    help='workload to train on',
  )
  _flags.add(parser, 'framework', help='required with --submission; inferred from --optimizer')
  parser.add(
    'submission',
    group=_flags.RUN,
    also=('submissions',),
    metavar='NAME',
    help='name, folder or module file to run',
  )
  parser.add('submission_path', group=_flags.RUN, metavar='FILE', help='same as --submission FILE')
  _flags.add(parser, 'suite', unset='the first that the workload is in')
  _flags.add(parser, 'ruleset')
  parser.add(
    'optimizer',
    group=_flags.OPTIMIZER,
    metavar='NAME',
    help='import name of an optimizer, such as torch.optim.AdamW',
  )
  parser.add(
    'hparam',
    group=_flags.OPTIMIZER,
    action='append',
    default=[],
    metavar='NAME=VALUE',
    help='hyperparameter of --optimizer, such as lr=1e-3 (repeatable)',
  )
  for name, text in OPTIMIZER_OPTIONS.items():
    parser.add(name, group=_flags.OPTIMIZER, metavar='VALUE', help=text)
  parser.add(
    'tuning_search_space',
    group=_flags.TUNING,
    metavar='FILE',
    help='JSON file of the search space',
    unset="the submission's own",
  )
  _flags.add(parser, 'trials', default=1)
  parser.add(
    'hparam_start_index',
    group=_flags.TUNING,
    type=_flags.whole,
    metavar='I',
    help='first point to run, counted from 0',
  )
  parser.add(
    'hparam_end_index',
    group=_flags.TUNING,
    type=_flags.whole,
    metavar='I',
    help='point to stop before, counted from 0',
  )
  parser.add(
    'study',
    group=_flags.TUNING,
    type=_flags.whole,
    metavar='K',
    help='run study number K only',
  )
  _flags.add(parser, 'studies', default=1)
  _flags.add(parser, 'seed', unset='a new one, which is recorded')
  _flags.add(parser, 'experiment_dir')
  parser.add(
    'experiment',
    group=_flags.RESULTS,
    also=('experiment_name',),
    metavar='NAME',
    help='folder of the runs, and name of the submission in scores',
    unset="the submission's name",
  )
  parser.add(
    'resume',
    group=_flags.RESULTS,
    also=('resume_last_run',),
    action='store_true',
    help='continue unfinished trials and skip finished ones',
  )
  _flags.add(parser, 'overwrite')
  _flags.add_options(parser, RunOptions)
  _flags.add_options(parser, Devices)
  _flags.add(parser, 'num_processes', 'path', 'workload_path', 'quiet')


def run(args: argparse.Namespace) -> int:
  from algorithmic_efficiency.launch import session

  _flags.find_own(args)
  return session.run(_request(args), quiet=args.quiet)


def _request(args: argparse.Namespace) -> Any:
  from algorithmic_efficiency.launch.request import Request

  registry.workload(args.workload)  # a misspelt name is told before an optimizer is tried
  if args.suite:
    registry.suite(args.suite)
  submission = submission_of(args)
  framework = args.framework or framework_of(submission)
  num_processes = backends.num_processes(
    framework,
    platform=args.platform,
    num_devices=args.num_devices,
    num_processes=args.num_processes,
  )
  return Request(
    workload=args.workload,
    framework=framework,
    submission=submission,
    suite=args.suite,
    ruleset=args.ruleset,
    tuning_search_space=args.tuning_search_space,
    trials=args.trials,
    hparam_start_index=args.hparam_start_index,
    hparam_end_index=args.hparam_end_index,
    study=args.study,
    studies=args.studies,
    seed=args.seed,
    experiment_dir=args.experiment_dir,
    experiment=args.experiment,
    resume=args.resume,
    overwrite=args.overwrite,
    options=_flags.options_of(args),
    devices=_flags.devices_of(args, world_size=num_processes),
    flags=_flags.given(args),
  )


def submission_of(args: argparse.Namespace) -> str:
  """The submission that the flags name: by itself, or as the call of an optimizer.

  Raises:
    UserError: there is none, there are several, or a flag does not go with it.
  """
  given = [args.submission, args.submission_path, args.optimizer]
  if sum(map(bool, given)) != 1:
    raise errors.UserError(
      'Give the submission with one of --submission, --submission_path and --optimizer.'
    )
  options = [
    f'{name}={getattr(args, name)}' for name in OPTIMIZER_OPTIONS if getattr(args, name) is not None
  ]
  if args.optimizer:
    call = by_name.call(args.optimizer, args.hparam, options)
    by_name.parse(call)  # a mistake in it is told first
    return call
  if args.hparam or options:
    first = '--hparam' if args.hparam else f'--{options[0].partition("=")[0]}'
    raise errors.UserError(
      f'{first} belongs to --optimizer; a submission gets its hyperparameters from its search '
      'space. Leave it out, or name an optimizer.'
    )
  return args.submission or args.submission_path


def framework_of(submission: str) -> str:
  """The framework that follows from an optimizer.

  Raises:
    UserError: it is no optimizer, or the optimizer cannot be used.
  """
  if by_name.is_call(submission):
    return by_name.submission_for(submission).framework
  raise errors.UserError(
    'A submission runs in one framework; add --framework, with one of '
    f'{", ".join(backends.FRAMEWORKS)}.'
  )
