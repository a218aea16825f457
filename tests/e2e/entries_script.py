"""Runs entries one after the other in one process, and prints what became of each as JSON.

Each stand-in is trained without a break, and again with one: what lies in the last checkpoint is
compared. Names that are no stand-ins are submissions of ours.
Run in a process of its own: the devices of a process are fixed when its framework starts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from entries import BY_NAME

from algorithmic_efficiency import errors, trust
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry, search_space
from algorithmic_efficiency.results import measurements, trial_record
from algorithmic_efficiency.trial.checkpoint import Checkpoints
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.messages import Reporter
from algorithmic_efficiency.trial.process import TrialProcess
from algorithmic_efficiency.trial.run_options import RunOptions
from algorithmic_efficiency.trial.worker import stop_reason_of

SUITES = {
  'quick_vision': 'quick',
  'mnist_standardized': 'lite',
  'quick_lm': 'quick',
  'quick_nmt': 'quick',
  'quick_moe': 'quick',
}
EVAL_STEPS = {
  'quick_vision': (1, 20, 45),
  'mnist_standardized': (1, 35, 70),
  'quick_lm': (1, 20, 45),
  'quick_nmt': (1, 25, 50),
  'quick_moe': (1, 20, 45),
}


class _Broken(Exception):
  """The break."""


def main(args: argparse.Namespace) -> None:
  registry.pin_own_packages()
  trust.trust_this_thread()
  configs = [_config(args, name, number) for number, name in enumerate(args.names)]
  print(json.dumps([_result(config) for config in configs]))
  assert not [name for name, module in sys.modules.items() if _lies_in(args.root, module)]


def _lies_in(root: str, module: Any) -> bool:
  return (getattr(module, '__file__', None) or '').startswith(root)


def _config(args: argparse.Namespace, name: str, number: int) -> TrialConfig:
  root = Path(args.root)
  file = root / 'entries' / name / 'submission.py'
  if not file.is_file():
    file = registry.submission(name, 'self').file(args.framework)
  points = file.with_name('tuning_search_space.json')
  return TrialConfig(
    workload=args.workload,
    framework=args.framework,
    submission=name,
    submission_path=str(file),
    suite=SUITES[args.workload],
    ruleset='external' if points.is_file() else 'self',
    study=1,
    trial=1,
    hyperparameters=search_space.load(points).listed[args.point] if points.is_file() else None,
    seed=7,
    study_seed=1,
    root_seed=1,
    folder=str(root / f'trials_{args.num_devices}' / f'{number}_{name}'),
    devices=Devices(
      platform='cpu',
      num_devices=args.num_devices,
      num_threads=1,
      rank=args.rank,
      world_size=args.world_size,
      local_rank=args.rank,
      address=f'127.0.0.1:{args.port + 3 * number}' if args.world_size > 1 else '',
    ),
    options=RunOptions(
      data_dir=args.data_dir or args.root,
      eval_steps=EVAL_STEPS[args.workload],
      stop_at='never',
    ),
  )


def _result(config: TrialConfig) -> dict[str, Any]:
  """How the trial ended, what it wrote, and how the one with a break differs."""
  result = _run(config)
  is_native = Path(config.submission_path).parent.name not in BY_NAME
  broken = None
  if result['status'] == 'finished' and not is_native:
    broken = _run_with_a_break(config)
  if 'refusal' in result or config.devices.rank != 0:
    return result
  rows = measurements.read(config.path)
  record = trial_record.read_trial(config.path)
  result |= {
    'evals': rows.evals,
    'num_logged': len(rows.metrics),
    'notes': list(record.notes),
    'step_time_sec': record.step_time_sec,
    'charged_steps': record.charged_steps,
  }
  if broken is not None:
    result['differences'] = [] if broken['status'] == 'finished' else [broken['reason']]
    result['differences'] += _differences(*(_last(p.path) for p in (config, _with_break(config))))
  return result


def _run(config: TrialConfig, break_after: int | None = None) -> dict[str, Any]:
  process = TrialProcess(config, Reporter(None))
  outcome: dict[str, Any] = {'name': config.submission, 'status': 'failed', 'reason': ''}
  try:
    run = process.prepare().run
    if break_after is not None:
      _break_after(run, break_after)
    outcome |= {'stop_reason': run.run(), 'status': 'finished'}
    outcome['is_finite'] = run.machine.all_finite(run.params)
  except errors.UserError as error:
    return {**outcome, 'refusal': str(error)}
  except Exception as error:
    if (lack := process.missing_requirement(error)) is not None:
      return {**outcome, 'refusal': lack}
    if not isinstance(error, _Broken):
      traceback.print_exc()
    outcome |= {'stop_reason': stop_reason_of(error), 'reason': process.one_line(error)}
  finally:
    keys = ('status', 'stop_reason', 'reason')
    process.finish(**{'stop_reason': 'failed', **{k: outcome[k] for k in keys if k in outcome}})
    if outcome['status'] != 'finished' and process.parts is not None:
      process.parts.backend.stop()
  return outcome


def _run_with_a_break(config: TrialConfig) -> dict[str, Any]:
  config = _with_break(config)
  _run(config, break_after=2)
  return _run(dataclasses.replace(config, resume=True, devices=_next_port(config.devices)))


def _with_break(config: TrialConfig) -> TrialConfig:
  return dataclasses.replace(
    config, folder=f'{config.folder}_with_a_break', devices=_next_port(config.devices)
  )


def _next_port(devices: Devices) -> Devices:
  host, _, port = devices.address.rpartition(':')
  return dataclasses.replace(devices, address=f'{host}:{int(port) + 1}') if host else devices


def _break_after(run: Any, step: int) -> None:
  """Ends the run like a kill, after the first checkpoint from a step on."""
  save = run.recorder.checkpoint

  def checkpoint(state: dict[str, Any]) -> None:
    save(state)
    if state['position'].global_step >= step:
      raise _Broken

  run.recorder.checkpoint = checkpoint


def _last(folder: Path) -> dict[str, Any]:
  payload = Checkpoints(folder).load().payload
  evals = measurements.read(folder).evals
  metrics = [{k: v for k, v in row.items() if '/' in k} for row in evals]
  return {
    'metrics': metrics,
    **{key: payload[key] for key in ('params', 'model_state', 'optimizer_state')},
  }


def _differences(one: Any, other: Any, name: str = '') -> list[str]:
  """Where two trees of plain values differ."""
  if type(one) is not type(other):
    return [f'{name}: {type(one).__name__} and {type(other).__name__}']
  if isinstance(one, dict):
    if one.keys() != other.keys():
      return [f'{name}: {sorted(map(str, one.keys() ^ other.keys()))}']
    return [d for key in one for d in _differences(one[key], other[key], f'{name}/{key}')]
  if isinstance(one, (list, tuple)):
    if len(one) != len(other):
      return [f'{name}: {len(one)} and {len(other)} items']
    pairs = enumerate(zip(one, other, strict=True))
    return [d for index, pair in pairs for d in _differences(*pair, f'{name}/{index}')]
  return [] if np.array_equal(one, other, equal_nan=isinstance(one, float)) else [name]


if __name__ == '__main__':
  parser = argparse.ArgumentParser()
  parser.add_argument('framework')
  parser.add_argument('workload')
  parser.add_argument('root', help='a folder with the entries in it')
  parser.add_argument('names', nargs='+')
  parser.add_argument('--point', type=int, default=0)
  parser.add_argument('--num_devices', type=int, default=1)
  parser.add_argument('--world_size', type=int, default=1)
  parser.add_argument('--rank', type=int, default=0)
  parser.add_argument('--port', type=int, default=0)
  parser.add_argument('--data_dir', default='', help='empty for workloads whose data is bundled')
  main(parser.parse_args())
