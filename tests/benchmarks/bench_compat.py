"""What the adaptation of a published entry costs: its step in the runner, against that of a native
submission of the same update.

The native one is the entry itself, but for the layout: plain arrays and `jax.jit`, where the entry
has a device axis and `jax.pmap`. In PyTorch the imports alone differ. Both run on the same batches,
each in a runner of its own, and each in a bare loop that feeds it as its author would: the entry
with rows cut by a device axis, as AlgoPerf's runner did. All four alternate in bursts, so that the
machine's drift hits them alike; processor time is taken beside wall time, which other work on the
machine disturbs. What `jax.pmap` and the rest of the entry cost anywhere lies between the bare
loops; by how much more the two in the runner differ is the adaptation. The one thing that it does
in a step, placing a batch, is shown by itself besides.
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

import bench_runner

from algorithmic_efficiency import cli, trust
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.loop import TrialRun
from algorithmic_efficiency.trial.messages import Reporter
from algorithmic_efficiency.trial.process import TrialProcess
from algorithmic_efficiency.trial.run_options import RunOptions

sys.path.insert(0, str(Path(__file__).parents[1] / 'e2e'))
from entries import BY_NAME, FIVE_POINTS, StandIn

NUM_BURSTS = 12
STEPS_PER_BURST = 200  # the end of a run, with its flush to the disk, is spread over these

# What has to be found again in the entry is put back for one entry at a time, and here run two.
_ENTRY = {'jax.tree_map': 'jax.tree_util.tree_map'}
_NATIVE = {
  **_ENTRY,
  'jax_utils.replicate(optimizer.init(zeros))': 'optimizer.init(zeros)',
  """jax.pmap,
    axis_name='batch',
    in_axes=(None, None, 0, 0, 0, 0, 0, None),
    static_broadcasted_argnums=(0, 1),""": 'jax.jit, static_argnums=(0, 1),',
  "lax.psum((summed, count, grads), axis_name='batch')": '(summed, count, grads)',
  'TRAIN, rng, update': 'TRAIN, rng[0], update',
  'loss[0]': 'loss',
}
PAIRS = {
  'jax': (BY_NAME['pmap_of_2024'], _ENTRY, _NATIVE),
  'pytorch': (
    BY_NAME['torch_of_2024'],
    {'algorithmic_efficiency.pytorch_utils': 'algoperf.pytorch_utils'},
    {'algorithmic_efficiency.pytorch_utils': 'algorithmic_efficiency.compat.pytorch_utils'},
  ),
}


def _on_one_device(batch: dict[str, Any]) -> dict[str, Any]:
  """[batch, ...] -> [1, batch, ...]."""
  return {name: rows[None] for name, rows in batch.items()}


def _tensors(batch: dict[str, Any]) -> dict[str, Any]:
  import torch

  return {name: torch.from_numpy(rows) for name, rows in batch.items()}


_FEEDS: dict[tuple[str, str], Callable[[Any], Any]] = {
  ('jax', 'entry'): _on_one_device,
  ('jax', 'native'): dict,
  ('pytorch', 'entry'): _tensors,
  ('pytorch', 'native'): _tensors,
}


def main(*arguments: str) -> None:
  """Arguments: a framework and a data folder with MNIST in it; without them, both on test data."""
  if arguments:
    _measure(*arguments)
    return
  with tempfile.TemporaryDirectory() as folder:
    source = Path(os.environ.get('ALGOEFF_TEST_DATA', '../shared/data')) / 'mnist'
    if not source.is_dir():
      print(f'left out: there is no {source}')
      return
    cli.main(['data', 'prepare', 'mnist', '--source', str(source), '--data_dir', folder])
    for framework in PAIRS:  # each in a process of its own
      subprocess.run([sys.executable, __file__, framework, folder], check=True)


def _measure(framework: str, data_dir: str) -> None:
  registry.pin_own_packages()
  trust.trust_this_thread()
  entry, *swaps = PAIRS[framework]
  with tempfile.TemporaryDirectory() as folder:
    processes = [
      TrialProcess(
        _config(dataclasses.replace(entry, name=name, swaps=swap), data_dir, folder), Reporter(None)
      )
      for name, swap in zip(('entry', 'native'), swaps, strict=True)
    ]
    runs = []
    for process in processes:
      runs.append(process.prepare().run)
      _burst(runs[-1])  # compiles while it is the one that is loaded
    feeds = [_FEEDS[framework, name] for name in ('entry', 'native')]
    for run, feed in zip(runs, feeds, strict=True):
      _bare_burst(run, feed)
    bursts = []
    for _ in range(NUM_BURSTS):
      bare = [_bare_burst(run, feed) for run, feed in zip(runs, feeds, strict=True)]
      bursts.append((*map(_burst, runs), *bare))
    places = [tuple(map(_place_sec, runs)) for _ in range(NUM_BURSTS)]
    for process in processes:
      process.finish(status='finished', stop_reason='step_limit', reason='')
  entry_sec, native_sec = (statistics.median(times) for times in zip(*places, strict=True))
  share = (entry_sec - native_sec) / statistics.median(native for _, (native, _), *_ in bursts)
  print(
    f'{framework}, placing a batch: {entry_sec * 1e6:.1f} us, native {native_sec * 1e6:.1f} us, '
    f'{share:.2%} of a native step more'
  )
  for index, clock in enumerate(('wall', 'processor')):
    rounds = [[burst[index] for burst in loops] for loops in bursts]
    times = [statistics.median(column) * 1e3 for column in zip(*rounds, strict=True)]
    ratios = [(entry / native, bare / bare_native) for entry, native, bare, bare_native in rounds]
    in_runner, in_bare_loops = (statistics.median(column) for column in zip(*ratios, strict=True))
    adaptation = statistics.median(one / other for one, other in ratios)
    print(
      f'{framework}, {clock} time of a step: published entry {times[0]:.3f} ms, native submission '
      f'{times[1]:.3f} ms, ratio {in_runner:.4f}; in bare loops {times[2]:.3f} ms, '
      f'{times[3]:.3f} ms, {in_bare_loops:.4f}; ratio of the ratios, which is the adaptation: '
      f'{adaptation:.4f}'
    )


def _config(entry: StandIn, data_dir: str, folder: str) -> TrialConfig:
  return TrialConfig(
    workload='mnist_standardized',
    framework=entry.framework,
    submission=entry.name,
    submission_path=str(entry.write(Path(folder))),
    suite='lite',
    ruleset='external',
    study=1,
    trial=1,
    hyperparameters=FIVE_POINTS[0],
    seed=1,
    study_seed=1,
    root_seed=1,
    folder=str(Path(folder).resolve() / f'trial_{entry.name}'),
    devices=Devices(platform='cpu', num_threads=1),
    options=RunOptions(data_dir=data_dir, evaluate=False, save_checkpoints=False),
  )


def _place_sec(run: TrialRun) -> float:
  """Seconds of the processor for putting a batch where the submission expects it."""
  batch = next(run.queue._stream)
  start = time.process_time()
  for _ in range(STEPS_PER_BURST):
    run.queue._place(batch)
  return (time.process_time() - start) / STEPS_PER_BURST


def _burst(run: TrialRun) -> tuple[float, float]:
  """Seconds of a step in the runner, by the wall and by the processor."""
  return _of_a_step(bench_runner.seconds(lambda: bench_runner.make_steps(run, STEPS_PER_BURST)))


def _bare_burst(run: TrialRun, feed: Callable[[Any], Any]) -> tuple[float, float]:
  """The same in a loop without it."""
  return _of_a_step(
    bench_runner.seconds(lambda: bench_runner.make_bare_steps(run, STEPS_PER_BURST, feed))
  )


def _of_a_step(burst_sec: tuple[float, float]) -> tuple[float, float]:
  wall, processor = burst_sec
  return wall / STEPS_PER_BURST, processor / STEPS_PER_BURST


if __name__ == '__main__':
  main(*sys.argv[1:])
