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
from algorithmic_efficiency.benchmark.suites import SUITES
from algorithmic_efficiency.optimizers import by_name, settings

SUMMARY = 'run a submission on a workload'

_OPTIONS = {
  'schedule': f'of the learning rate: one of {", ".join(settings.SCHEDULES)}',
  'warmup': 'part of the step hint over which the learning rate rises',
  'grad_clip': 'the largest global norm of the gradient',
  'label_smoothing': 'weight of the uniform distribution in the targets',
  'dropout_rate': "default: the workload's own",
  'micro_batches': 'parts that a batch is computed in, to save memory',
}


def arguments(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add('--workload', required=True, metavar='NAME')
  add('--framework', choices=backends.FRAMEWORKS, help='with --optimizer: as it follows from it')
  add('--submission', metavar='NAME', help='a name, a folder or a module file')
  add('--submission_path', metavar='FILE', help='a module file; the same as --submission FILE')
  add('--optimizer', metavar='NAME', help='an import name, such as torch.optim.AdamW')
  add('--hparam', action='append', default=[], metavar='NAME=VALUE', help='of the optimizer')
  for name, text in _OPTIONS.items():
    add(f'--{name}', metavar='VALUE', help=text)
  add(
    '--suite',
    metavar='NAME',
    help=f'{", ".join(SUITES)}, or a .toml file; default: the first it is in',
  )
  add('--ruleset', choices=('external', 'self'), default='external', help='default: external')
  add('--tuning_search_space', metavar='FILE', help="default: the submission's own")
  add('--trials', type=int, default=1, metavar='N', help='hyperparameter points of a study')
  add('--hparam_start_index', type=int, metavar='I', help='first point that is run, from 0')
  add('--hparam_end_index', type=int, metavar='I', help='end of the points that are run, exclusive')
  add('--study', type=int, metavar='K', help='run the study of this number alone')
  add('--studies', type=int, default=1, metavar='N', help='run the studies from 1 to N')
  add('--seed', type=int, help='default: drawn, and written down')
  add('--data_dir', metavar='DIR', help='default: $ALGOEFF_DATA_DIR, else ~/data')
  add('--experiment_dir', default='runs', metavar='DIR')
  add('--experiment', metavar='NAME', help="default: the submission's name")
  add('--resume', action='store_true', help='continue unfinished trials, skip finished ones')
  add('--overwrite', action='store_true', help='replace trials that exist')
  add('--smoke', action='store_true', help='tiny sizes on generated data; never scored')
  add('--allow_provisional', action='store_true', help='race towards a target not yet calibrated')
  add('--max_global_steps', type=int, metavar='N')
  add(
    '--stop_at',
    choices=('both', 'validation', 'never'),
    default='both',
    help='the targets that end a trial',
  )
  add('--stop_on_divergence', action=argparse.BooleanOptionalAction, default=None)
  add(
    '--heartbeat_timeout_sec',
    type=float,
    metavar='SEC',
    help='end a trial that is silent for so long',
  )
  add('--save_checkpoints', action=argparse.BooleanOptionalAction, default=True)
  add('--log', action='append', default=[], metavar='TRACKER', help='also log to: tensorboard')
  add('--platform', choices=('auto', 'cpu', 'gpu', 'tpu'), default='auto')
  add('--num_devices', type=int, metavar='N', help='default: all (JAX), all GPUs or one (PyTorch)')
  add('--num_processes', type=int, metavar='N', help='default: one (JAX), one a device (PyTorch)')
  add('--num_threads', type=int, metavar='N', help='host threads of a process')
  add('--compile', choices=('auto', 'on', 'off'), default='auto', help='auto: on GPUs in PyTorch')
  add('--path', action='append', default=[], metavar='DIR', help='a root with more to find')
  add('--workload_path', action='append', default=[], metavar='DIR', help='a task folder')
  add('--quiet', action='store_true', help='no progress')


def run(args: argparse.Namespace) -> int:
  from algorithmic_efficiency.launch import session

  for path in args.path:
    registry.add_root(path)
  for path in args.workload_path:
    registry.add_task(path)
  return session.run(_request(args), quiet=args.quiet)


def _request(args: argparse.Namespace) -> Any:
  from algorithmic_efficiency.launch.request import Request

  submission = _submission(args)
  framework = args.framework or _framework_of(submission)
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
    data_dir=args.data_dir,
    experiment_dir=args.experiment_dir,
    experiment=args.experiment,
    devices=Devices(
      platform=args.platform,
      num_devices=args.num_devices,
      num_threads=args.num_threads,
      world_size=backends.num_processes(
        framework,
        platform=args.platform,
        num_devices=args.num_devices,
        num_processes=args.num_processes,
      ),
      compile=args.compile,
    ),
    smoke=args.smoke,
    resume=args.resume,
    overwrite=args.overwrite,
    allow_provisional=args.allow_provisional,
    max_global_steps=args.max_global_steps,
    stop_at=args.stop_at,
    stop_on_divergence=args.stop_on_divergence,
    heartbeat_timeout_sec=args.heartbeat_timeout_sec,
    save_checkpoints=args.save_checkpoints,
    trackers=tuple(args.log),
    flags={name: value for name, value in vars(args).items() if name not in ('run', 'verb')},
  )


def _submission(args: argparse.Namespace) -> str:
  given = [args.submission, args.submission_path, args.optimizer]
  if sum(map(bool, given)) != 1:
    raise errors.UserError(
      'Give the submission with one of --submission, --submission_path and --optimizer.'
    )
  options = [
    f'{name}={getattr(args, name)}' for name in _OPTIONS if getattr(args, name) is not None
  ]
  if args.optimizer:
    return by_name.call(args.optimizer, args.hparam, options)
  if args.hparam or options:
    first = '--hparam' if args.hparam else f'--{options[0].partition("=")[0]}'
    raise errors.UserError(
      f'{first} belongs to --optimizer; a submission gets its hyperparameters from its search '
      'space. Leave it out, or name an optimizer.'
    )
  return args.submission or args.submission_path


def _framework_of(submission: str) -> str:
  if by_name.is_call(submission):
    return by_name.entry_for(submission).framework
  raise errors.UserError(
    'A submission runs in one framework; add --framework, with one of '
    f'{", ".join(backends.FRAMEWORKS)}.'
  )
