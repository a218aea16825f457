"""What an optimizer costs that is named on the command line: its step against that of a submission.

Both are AdamW with the same settings on `quick_vision`, and take their batches from one stream.
They alternate in short bursts, so that drift of the machine hits both alike.
"""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from algorithmic_efficiency import (
  backends,
  seeds,
  spec,
  trust,
)
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.optimizers import by_name
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.loop import TrialRun
from algorithmic_efficiency.trial.messages import Reporter
from algorithmic_efficiency.trial.process import TrialProcess
from algorithmic_efficiency.trial.run_options import RunOptions

NUM_BURSTS = 15
STEPS_PER_BURST = 100
POINT = SimpleNamespace(
  learning_rate=1e-3, one_minus_beta1=0.1, beta2=0.999, warmup_factor=0.05, weight_decay=0.01
)
OPTIONS = 'schedule=warmup_cosine, warmup=0.05'
OPTIMIZERS = {
  'jax': f'optax.adamw(learning_rate=1e-3, weight_decay=0.01; {OPTIONS})',
  'pytorch': f'torch.optim.AdamW(lr=1e-3, weight_decay=0.01, fused=true; {OPTIONS})',
}


def main(*arguments: str) -> None:
  """Argument: a framework; without it, both."""
  if arguments:
    _measure(*arguments)
    return
  for framework in backends.FRAMEWORKS:  # each in a process of its own
    subprocess.run([sys.executable, __file__, framework], check=True)


def _measure(framework: str) -> None:
  registry.pin_own_packages()
  start = time.perf_counter()
  entry = by_name.submission_for(OPTIMIZERS[framework])
  tried_out_sec = time.perf_counter() - start
  trust.trust_this_thread()
  with tempfile.TemporaryDirectory() as folder:
    process = TrialProcess(_config(framework, entry, folder), Reporter(None))
    run = process.prepare().run
    named = _Stepper(run, run.submission.update_params, None, run.params, run.optimizer_state)
    native = _native(run, registry.submission('adamw', 'external').file(framework))
    twin = _native(run, registry.submission('adamw', 'external').file(framework))
    steppers = (named, native, twin)
    for stepper in steppers:
      stepper.burst()  # compiles
    bursts = [_one_each(steppers, number) for number in range(NUM_BURSTS)]
    process.finish(status='finished', stop_reason='step_limit', reason='')
  print(
    f'{framework}: named {statistics.median(one for one, _, _ in bursts) * 1e3:.3f} ms a step, '
    f'native {statistics.median(one for _, one, _ in bursts) * 1e3:.3f} ms, '
    f'ratio {statistics.median(a / b for a, b, _ in bursts):.4f} '
    f'(native against native {statistics.median(a / b for _, a, b in bursts):.4f}); '
    f'found or tried out in {tried_out_sec:.1f} s'
  )


def _one_each(steppers: tuple[_Stepper, ...], number: int) -> list[float]:
  """A burst of each, beginning with another one each time."""
  seconds = [0.0] * len(steppers)
  for index in range(len(steppers)):
    chosen = (index + number) % len(steppers)
    seconds[chosen] = steppers[chosen].burst()
  return seconds


def _config(framework: str, entry: by_name.Entry, folder: str) -> TrialConfig:
  return TrialConfig(
    workload='quick_vision',
    framework=framework,
    submission=entry.name,
    submission_path=str(entry.file),
    suite='quick',
    ruleset='self',
    study=1,
    trial=1,
    hyperparameters=None,
    seed=1,
    study_seed=1,
    root_seed=1,
    folder=str(Path(folder).resolve()),
    devices=Devices(num_threads=1),  # so that other work on the machine is felt less
    options=RunOptions(data_dir=folder, evaluate=False, save_checkpoints=False),
  )


def _native(run: TrialRun, file: Path) -> _Stepper:
  module_spec = importlib.util.spec_from_file_location('_native', file)
  module = importlib.util.module_from_spec(module_spec)
  module_spec.loader.exec_module(module)
  key = run.machine.key(seeds.key_data(1, 'bench'))
  params, _ = run.workload.init_model_fn(key)
  state = module.init_optimizer_state(run.workload, params, run.model_state, POINT, key)
  return _Stepper(run, module.update_params, POINT, params, state)


class _Stepper:
  """Trains parameters of its own, burst by burst."""

  def __init__(
    self, run: TrialRun, update: Callable[..., Any], point: Any, params: Any, optimizer_state: Any
  ):
    self._run, self._update, self._point = run, update, point
    self._params, self._state = params, optimizer_state
    self._model_state = run.workload.init_model_fn(run.machine.key(seeds.key_data(1, 'x')))[1]
    self._rng = run.machine.key(seeds.key_data(1, 'bench'))

  def burst(self) -> float:
    """Seconds of a step."""
    run = self._run
    start = time.perf_counter()
    for step in range(STEPS_PER_BURST):
      self._state, self._params, self._model_state = self._update(
        workload=run.workload,
        current_param_container=self._params,
        current_params_types=run.workload.model_params_types,
        model_state=self._model_state,
        hyperparameters=self._point,
        batch=next(run.queue),
        loss_type=spec.LossType.SOFTMAX_CROSS_ENTROPY,
        optimizer_state=self._state,
        eval_results=[],
        global_step=step,
        rng=self._rng,
      )
    run.machine.synchronize((self._params, self._model_state))
    return (time.perf_counter() - start) / STEPS_PER_BURST


if __name__ == '__main__':
  main(*sys.argv[1:])
