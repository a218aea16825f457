"""Runs a submission on a workload and records every trial.

Example: algoeff run --workload mnist --framework jax --submission nadamw --ruleset self
"""

from __future__ import annotations

import argparse
from typing import Any

from algorithmic_efficiency import backends, errors, registry
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.suites import SUITES

SUMMARY = 'run a submission on a workload'


def arguments(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add('--workload', required=True, metavar='NAME')
  add('--framework', required=True, choices=backends.FRAMEWORKS)
  add('--submission', metavar='NAME', help='a name, a folder or a module file')
  add('--submission_path', metavar='FILE', help='a module file; the same as --submission FILE')
  add(
    '--suite',
    metavar='NAME',
    help=f'{", ".join(SUITES)}, or a .toml file; default: the first it is in',
  )
  add('--ruleset', choices=('external', 'self'), default='external')
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
  add('--allow_provisional', action='store_true', help='race towards a goal not yet calibrated')
  add('--max_global_steps', type=int, metavar='N')
  add(
    '--stop_at',
    choices=('both', 'validation', 'never'),
    default='both',
    help='the goals that end a trial',
  )
  add('--stop_on_divergence', action=argparse.BooleanOptionalAction, default=None)
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
  from algorithmic_efficiency import session

  for path in args.path:
    registry.add_root(path)
  for path in args.workload_path:
    registry.add_task(path)
  return session.run(_request(args), quiet=args.quiet)


def _request(args: argparse.Namespace) -> Any:
  from algorithmic_efficiency.request import Request

  if bool(args.submission) == bool(args.submission_path):
    raise errors.UserError('Give the submission with one of --submission and --submission_path.')
  return Request(
    workload=args.workload,
    framework=args.framework,
    submission=args.submission or args.submission_path,
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
      num_ranks=backends.num_processes(
        args.framework,
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
    save_checkpoints=args.save_checkpoints,
    trackers=tuple(args.log),
    flags={name: value for name, value in vars(args).items() if name not in ('run', 'verb')},
  )
