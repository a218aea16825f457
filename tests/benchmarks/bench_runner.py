"""What the runner costs: its loop against a bare one over the same steps and batches.

Both loops take their batches from streams of the same seed, place them and call the same
`update_params`; they alternate in short bursts, so that drift of the machine hits both alike.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from algorithmic_efficiency import (
  backends,
  cli,
  seeds,
  spec,
  trust,
)
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.loop import TrialRun
from algorithmic_efficiency.trial.messages import Reporter
from algorithmic_efficiency.trial.process import TrialProcess
from algorithmic_efficiency.trial.run_options import RunOptions

NUM_BURSTS = 9
NUM_EMPTY_STEPS = 50_000
STEPS_PER_BURST = 200  # the end of a run, with its flush to the disk, is spread over these


def main(*arguments: str) -> None:
  """Arguments: framework, data folder, and what `_measure` takes besides; without them, both
  frameworks on test data.
  """
  if arguments:
    _measure(*arguments)
    return
  with tempfile.TemporaryDirectory() as folder:
    source = Path(os.environ.get('ALGOEFF_TEST_DATA', '../shared/data')) / 'mnist'
    if not source.is_dir():
      print(f'left out: there is no {source}')
      return
    cli.main(['data', 'prepare', 'mnist', '--source', str(source), '--data_dir', folder])
    for framework in backends.FRAMEWORKS:  # each in a process of its own
      subprocess.run([sys.executable, __file__, framework, folder], check=True)


def _measure(
  framework: str,
  data_dir: str,
  workload: str = 'mnist_standardized',
  suite: str = 'lite',
  steps_per_burst: int | str = STEPS_PER_BURST,
) -> None:
  num_steps = int(steps_per_burst)
  registry.pin_own_packages()
  trust.trust_this_thread()
  with tempfile.TemporaryDirectory() as folder:
    process = TrialProcess(_config(framework, data_dir, folder, workload, suite), Reporter(None))
    run = process.prepare().run
    _runner_burst(run, num_steps)  # compiles
    _bare_burst(run, num_steps)
    bursts = [
      (_runner_burst(run, num_steps), _bare_burst(run, num_steps)) for _ in range(NUM_BURSTS)
    ]
    loop_sec = _empty_loop_sec(run)
    process.finish(status='finished', stop_reason='step_limit', reason='')
  runner_sec = statistics.median(runner for runner, _ in bursts)
  bare_sec = statistics.median(bare for _, bare in bursts)
  extra = statistics.median(runner - bare for runner, bare in bursts)
  print(
    f'{workload}, {framework}: runner {runner_sec * 1e3:.3f} ms a step, '
    f'bare loop {bare_sec * 1e3:.3f} ms, '
    f'ratio {statistics.median(a / b for a, b in bursts):.4f}, difference {extra * 1e6:+.0f} us; '
    f'the loop around a step that does nothing: {loop_sec * 1e6:.1f} us'
  )


def _config(framework: str, data_dir: str, folder: str, workload: str, suite: str) -> TrialConfig:
  submission = registry.submission('nadamw', 'self')
  return TrialConfig(
    workload=workload,
    framework=framework,
    submission='nadamw',
    submission_path=str(submission.file(framework)),
    suite=suite,
    ruleset='self',
    study=1,
    trial=1,
    hyperparameters=None,
    seed=1,
    study_seed=1,
    root_seed=1,
    folder=str(Path(folder).resolve()),
    devices=Devices(num_threads=1),  # so that other work on the machine is felt less
    options=RunOptions(data_dir=data_dir, evaluate=False, save_checkpoints=False),
  )


def _runner_burst(run: TrialRun, num_steps: int) -> float:
  return seconds(lambda: make_steps(run, num_steps))[0] / num_steps


def _bare_burst(run: TrialRun, num_steps: int) -> float:
  return seconds(lambda: make_bare_steps(run, num_steps, run.queue._place))[0] / num_steps


def _empty_loop_sec(run: TrialRun) -> float:
  """What the runner adds to a step, by itself: nothing is drawn, nothing is computed."""
  batch = next(run.queue)
  run.submission = dataclasses.replace(
    run.submission,
    data_selection=lambda *arguments: batch,
    update_params=lambda **state: (
      state['optimizer_state'],
      state['current_param_container'],
      state['model_state'],
    ),
  )
  long = _runner_burst(run, NUM_EMPTY_STEPS) * NUM_EMPTY_STEPS
  short = _runner_burst(run, STEPS_PER_BURST) * STEPS_PER_BURST
  return (long - short) / (NUM_EMPTY_STEPS - STEPS_PER_BURST)


def seconds(work: Callable[[], None]) -> tuple[float, float]:
  """On the wall's clock, and on those of this process's threads together."""
  start, processor_start = time.perf_counter(), time.process_time()
  work()
  return time.perf_counter() - start, time.process_time() - processor_start


def make_steps(run: TrialRun, num_steps: int) -> None:
  """In the runner."""
  end = run.position.global_step + num_steps
  run.run_interval(dataclasses.replace(run.rules, max_global_steps=end, max_steps=None))


def make_bare_steps(run: TrialRun, num_steps: int, place: Callable[[Any], Any]) -> None:
  """In a loop without the runner."""
  stream, update, backend = run.queue._stream, run.submission.update_params, run.machine
  optimizer_state, params, model_state = run.optimizer_state, run.params, run.model_state
  types, rng = run.workload.model_params_types, backend.key(seeds.key_data(1, 'bench'))
  for step in range(num_steps):
    optimizer_state, params, model_state = update(
      workload=run.workload,
      current_param_container=params,
      current_params_types=types,
      model_state=model_state,
      hyperparameters=run.hyperparameters,
      batch=place(next(stream)),
      loss_type=spec.LossType.SOFTMAX_CROSS_ENTROPY,
      optimizer_state=optimizer_state,
      eval_results=[],
      global_step=step,
      rng=rng,
    )
  backend.synchronize((params, model_state))
  run.optimizer_state, run.params, run.model_state = optimizer_state, params, model_state


if __name__ == '__main__':
  main(*sys.argv[1:])
