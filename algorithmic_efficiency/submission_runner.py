"""AlgoPerf's runner by its own flags: `python -m algorithmic_efficiency.submission_runner`.

Existing scripts keep working, `--flagfile` and torchrun included. Results lie in
`<experiment_dir>/<experiment_name>/<workload>_<framework>/trial_<i>`, as AlgoPerf's do.
"""

from __future__ import annotations

import datetime
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from absl import app, flags

from algorithmic_efficiency import backends, errors, option_fields, seeds
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.cli import INTERRUPTED, USER_ERROR
from algorithmic_efficiency.option_fields import Option
from algorithmic_efficiency.trial.run_options import RunOptions

FLAGS = flags.FLAGS

_ALGOPERF_NAMES = ('compile',)  # options that have a flag of AlgoPerf's, which is defined below
_DEFINE: Mapping[type, Callable[..., Any]] = {
  bool: flags.DEFINE_boolean,
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  str: flags.DEFINE_string,
}
_NAMES_HERE = {
  'resume': 'resume_last_run',
  'experiment': 'experiment_name',
  'ruleset': 'tuning_ruleset',
  'trials': 'num_tuning_trials',
  'seed': 'rng_seed',
  'submission': 'submission_path',
  'compile': 'torch_compile',
}
"""The flags of `algoeff run`, which messages name, by their names here."""
_NO_EFFECT = {
  'profile': 'every trial records its clock buckets in trial.json',
  'capture_jax_trace': 'no trace is taken',
  'save_intermediate_checkpoints': 'the last two checkpoints are kept',
  'use_wandb': 'rows go to the files of the trial; --log wandb shows them there',
  'set_pytorch_max_split_size': 'each trial has a process, and so an allocator, of its own',
  'pytorch_eval_num_workers': 'evaluation reads through the one input pipeline',
  'librispeech_tokenizer_vocab_path': 'tokenizers lie with the prepared data',
  'imagenet_v2_data_dir': 'every split lies with the prepared data',
}


def define_flags() -> None:
  string, boolean, integer = flags.DEFINE_string, flags.DEFINE_boolean, flags.DEFINE_integer
  string('workload', None, 'The name of the workload.')
  flags.DEFINE_enum('framework', None, backends.FRAMEWORKS, 'The framework of the submission.')
  string('submission_path', None, 'The submission module, a file.')
  string('experiment_dir', None, 'Where experiments are kept.')
  string('experiment_name', None, 'The folder of this experiment, often with study_<k> at its end.')
  flags.DEFINE_enum('tuning_ruleset', 'external', ('external', 'self'), 'The tuning ruleset.')
  string('tuning_search_space', None, 'A JSON file; for external tuning.')
  integer('num_tuning_trials', 1, 'The number of hyperparameter points.')
  integer('hparam_start_index', None, 'The first point to run, from 0.')
  integer('hparam_end_index', None, 'The end of the points to run, exclusive.')
  string('imagenet_v2_data_dir', None, 'Accepted for old scripts.')
  string('librispeech_tokenizer_vocab_path', '', 'Accepted for old scripts.')
  boolean('torch_compile', True, 'Whether PyTorch models are compiled, on GPUs.')
  boolean('save_intermediate_checkpoints', True, 'Accepted for old scripts: the last two are kept.')
  boolean('resume_last_run', None, 'Continue unfinished trials, skip finished ones.')
  boolean('overwrite', False, 'Replace trials that exist.')
  boolean('append_timestamp', False, 'Append the time to the name of the experiment.')
  boolean('use_wandb', False, 'Accepted for old scripts.')
  boolean('profile', False, 'Accepted for old scripts.')
  boolean('capture_jax_trace', False, 'Accepted for old scripts.')
  boolean('set_pytorch_max_split_size', False, 'Accepted for old scripts.')
  integer('pytorch_eval_num_workers', 0, 'Accepted for old scripts.')
  integer('rng_seed', None, 'The seed, 0 included; drawn if not given.')
  boolean('skip_evals', False, 'Train without evaluating.')
  string('suite', None, "Whose rules apply; the workload's first that races in seconds.")
  for record in (RunOptions, Devices):
    for one in option_fields.declared(record):
      if one.field not in _ALGOPERF_NAMES:
        _define(one)
  flags.DEFINE_multi_string('path', [], 'Roots with more workloads and submissions.')
  flags.DEFINE_multi_string('workload_path', [], 'Task folders outside any root.')
  flags.mark_flags_as_required(
    ['workload', 'framework', 'submission_path', 'experiment_dir', 'experiment_name']
  )


def _define(one: Option) -> None:
  """Defines the flag of an option."""
  text = f'{one.help}; default: {one.unset}' if one.unset else one.help
  if one.is_many:
    define = flags.DEFINE_multi_string if one.is_repeated else flags.DEFINE_list
    define(one.flag, list(one.default), text)
  elif one.choices:
    flags.DEFINE_enum(one.flag, one.default, one.choices, text)
  else:
    _DEFINE[one.kind](one.flag, one.default, text)


def _options(record: type) -> dict[str, Any]:
  """The values of the options of a record that have flags here."""
  found: dict[Option, Any] = {
    one: getattr(FLAGS, one.flag)
    for one in option_fields.declared(record)
    if one.field not in _ALGOPERF_NAMES
  }
  return {one.field: tuple(value) if one.is_many else value for one, value in found.items()}


def main(argv: Sequence[str]) -> int:
  if len(argv) > 1:
    return _mistake(f'Only flags are understood; found {argv[1]!r}.')
  try:
    return _run()
  except errors.UserError as error:
    return _mistake(str(error))
  except KeyboardInterrupt:
    print('submission_runner: interrupted.', file=sys.stderr)
    return INTERRUPTED


def _mistake(message: str) -> int:
  own = re.sub(r'--(\w+)', lambda flag: f'--{_NAMES_HERE.get(flag[1], flag[1])}', message)
  print(f'submission_runner: {errors.brief(own)}', file=sys.stderr)
  return USER_ERROR


def _run() -> int:
  from algorithmic_efficiency.launch import session
  from algorithmic_efficiency.launch.request import Request, configs

  for path in FLAGS.path:
    registry.add_root(path)
  for path in FLAGS.workload_path:
    registry.add_task(path)
  for name, why in _NO_EFFECT.items():
    if FLAGS[name].value != FLAGS[name].default:
      print(f'--{name} has no effect here: {why}.', file=sys.stderr)
  devices = _devices()
  request = Request(
    workload=FLAGS.workload,
    framework=FLAGS.framework,
    submission=FLAGS.submission_path,
    suite=FLAGS.suite or _default_suite(FLAGS.workload),
    ruleset=FLAGS.tuning_ruleset,
    tuning_search_space=FLAGS.tuning_search_space,
    trials=FLAGS.num_tuning_trials if FLAGS.tuning_ruleset == 'external' else 1,
    hparam_start_index=FLAGS.hparam_start_index,
    hparam_end_index=FLAGS.hparam_end_index,
    seed=FLAGS.rng_seed,
    drawn_seed=_drawn_seed(devices),
    experiment_dir=FLAGS.experiment_dir,
    experiment=_experiment_name(),
    nested=False,
    resume=bool(FLAGS.resume_last_run),
    overwrite=FLAGS.overwrite,
    options=RunOptions(**_options(RunOptions), evaluate=not FLAGS.skip_evals),
    devices=devices,
    flags=_flag_values(),
  )
  trials = configs(request)
  if devices.address:  # each trial's group of processes meets at a port of its own
    host, port = devices.address.rsplit(':', 1)
    trials = [
      replace(config, devices=replace(devices, address=f'{host}:{int(port) + number}'))
      for number, config in enumerate(trials, 1)
    ]
  with session.interrupted_when_terminated():
    outcomes = session.run_trials(trials, quiet=devices.rank != 0)
  return 0 if all(outcome.status == 'finished' for outcome in outcomes) else 1


def _flag_values() -> dict[str, object]:
  module = FLAGS.find_module_defining_flag('experiment_name') or ''
  return {flag.name: flag.value for flag in FLAGS.flags_by_module_dict()[module]}


def _default_suite(workload: str) -> str | None:
  """The first suite of the workload that races in seconds, as AlgoPerf does; else its first."""
  definition = registry.workload(workload)
  in_seconds = (name for name in definition.suites if registry.suite(name).axis == 'seconds')
  return next(in_seconds, None)


def _experiment_name() -> str:
  if not FLAGS.append_timestamp:
    return FLAGS.experiment_name
  return f'{FLAGS.experiment_name}-{datetime.datetime.now():%Y-%m-%d-%H-%M-%S}'


def _devices() -> Devices:
  """The devices, and, under torchrun, this process's place among its peers."""
  world_size = int(os.environ.get('WORLD_SIZE', '1')) if 'LOCAL_RANK' in os.environ else 1
  common = Devices(**_options(Devices), compile='auto' if FLAGS.torch_compile else 'off')
  if world_size == 1:
    num_processes = backends.num_processes(
      FLAGS.framework,
      platform=FLAGS.platform,
      num_devices=FLAGS.num_devices,
      num_processes=None,
    )
    return replace(common, world_size=num_processes)
  address = f'{os.environ["MASTER_ADDR"]}:{os.environ["MASTER_PORT"]}'
  return replace(
    common,
    rank=int(os.environ['RANK']),
    world_size=world_size,
    local_rank=int(os.environ['LOCAL_RANK']),
    address=address,
    store=address if os.environ.get('TORCHELASTIC_USE_AGENT_STORE') == 'True' else '',
  )


def _drawn_seed(devices: Devices) -> int | None:
  """What takes the place of a seed that is not given, the same in all processes of a group."""
  if devices.world_size == 1:
    return None
  return seeds.derive(0, os.environ.get('TORCHELASTIC_RUN_ID', ''), devices.address) % 2**31


def _parse(argv: Sequence[str]) -> list[str]:
  try:
    return FLAGS(list(argv))
  except flags.Error as error:
    sys.exit(_mistake(f'{error}. See --help.'))


def run_main() -> None:
  registry.pin_own_packages()
  define_flags()
  app.run(lambda argv: sys.exit(main(argv)), flags_parser=_parse)


if __name__ == '__main__':
  run_main()
