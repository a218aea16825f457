"""What the input pipeline costs, and what training waits for it.

`python bench_data.py [CHECKOUT]`; with another checkout, the MNIST stream of that is timed as well.

- MNIST's training stream against bare numpy and against the other checkout, on one core. Each draws
  shuffled batches of 1,024 images of 28x28 pixels, normalised to float32, from a memory-mapped file
  of 50,000. They alternate in short bursts, so that drift of the machine hits all alike.
- Examples that cost 4 ms of CPU each to make, beside a step of one thread that takes 1.5 times as
  long as a batch: the share of the time in which training waits, with a worker and without.
- Random numbers of an example; planning of packed rows.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Splits, WorkloadDefinition, variant
from algorithmic_efficiency.data import random_numbers, records, streams

BATCH_SIZE = 1024
NUM_BURSTS = 20
BATCHES_PER_BURST = 100
SLOW_BATCH_SIZE = 16
SLOW_SEC = 4e-3  # CPU time of an example, about that of decoding a photograph of 500x375
SLOW_STEPS = 40
STEP_SHARE = 1.5  # CPU time of a step over that of making its batch
ROW_LENGTH = 256


def main() -> None:
  registry.pin_own_packages()
  if sys.argv[1:2] == ['--bursts']:
    _bursts_on_request(Path(sys.argv[2]))
    return
  definition = registry.workload('mnist')
  with tempfile.TemporaryDirectory() as folder, _one_core():
    root = Path(folder) / definition.dataset
    _generate(definition, root)
    _against_numpy(definition, root)
    for checkout in sys.argv[1:]:
      _against_checkout(Path(checkout), root)
  for num_workers in (1, 0):
    _waiting(num_workers)
  _random()
  _packing()


def _generate(definition: WorkloadDefinition, root: Path) -> None:
  """A prepared set of random pixels in MNIST's shape: the speed does not depend on the pixels."""
  data = registry.module_of(definition, 'data')
  out = records.Writer(
    root, dataset=root.name, about=data.about(definition), inputs='generated', key=''
  )
  random = np.random.default_rng(0)
  number = definition.splits.train
  shape = (number, *definition.data.image_shape)
  images = random.integers(256, size=shape, dtype=np.uint8)
  labels = random.integers(10, size=number, dtype=np.int32)
  out.array('train/inputs', [images], shape=shape, dtype=np.uint8)
  out.array('train/targets', [labels], shape=(number,), dtype=np.int32)
  out.finish()


def _against_numpy(definition: WorkloadDefinition, root: Path) -> None:
  data = registry.module_of(definition, 'data')
  ours = streams.train_stream(data, definition, root, BATCH_SIZE, seed=0)
  bare = _bare_stream(definition, root)
  _burst(ours)
  _burst(bare)
  bursts = [(_burst(ours), _burst(bare)) for _ in range(NUM_BURSTS)]
  per_second = BATCH_SIZE / statistics.median(ours_sec for ours_sec, _ in bursts)
  bare_per_second = BATCH_SIZE / statistics.median(bare_sec for _, bare_sec in bursts)
  ratio = statistics.median(ours_sec / bare_sec for ours_sec, bare_sec in bursts)
  print(
    f'MNIST training stream: {per_second:,.0f} examples/s on one core, bare numpy '
    f'{bare_per_second:,.0f}, ratio of times {ratio:.3f}'
  )


def _bare_stream(definition: WorkloadDefinition, root: Path) -> Iterator[dict[str, np.ndarray]]:
  """What one would write by hand: a permutation for each pass, an index, the arithmetic."""
  images = np.load(root / 'train.inputs.npy', mmap_mode='r')
  labels = np.load(root / 'train.targets.npy', mmap_mode='r')
  random = np.random.default_rng(0)
  assert definition.train_mean is not None and definition.train_stddev is not None
  mean, stddev = np.float32(definition.train_mean), np.float32(definition.train_stddev)
  while True:
    order = random.permutation(len(images))
    for start in range(0, len(images) - BATCH_SIZE + 1, BATCH_SIZE):
      rows = order[start : start + BATCH_SIZE]
      yield {'inputs': (images[rows] - mean) / stddev, 'targets': labels[rows]}


def _burst(stream: Iterator[Any]) -> float:
  """Seconds a batch."""
  start = time.perf_counter()
  for _ in range(BATCHES_PER_BURST):
    next(stream)
  return (time.perf_counter() - start) / BATCHES_PER_BURST


def _against_checkout(checkout: Path, root: Path) -> None:
  """Alternates bursts of a process of this checkout and one of the other."""
  with contextlib.ExitStack() as stack:
    ours, theirs = (
      stack.enter_context(
        subprocess.Popen(
          [sys.executable, __file__, '--bursts', str(root)],
          stdin=subprocess.PIPE,
          stdout=subprocess.PIPE,
          text=True,
          env={**os.environ, 'PYTHONPATH': str(path)},
        )
      )
      for path in (registry.HOME, checkout)
    )
    _asked(ours), _asked(theirs)
    ratios = [_asked(theirs) / _asked(ours) for _ in range(NUM_BURSTS)]
  print(
    f'MNIST training stream: speed over that of {checkout}, median of {NUM_BURSTS} paired bursts: '
    f'{statistics.median(ratios):.3f}'
  )


def _asked(process: subprocess.Popen[str]) -> float:
  assert process.stdin is not None and process.stdout is not None
  process.stdin.write('\n')
  process.stdin.flush()
  return float(process.stdout.readline())


def _bursts_on_request(root: Path) -> None:
  definition = registry.workload('mnist')
  data = registry.task_of(definition).module('data')
  stream = streams.train_stream(data, definition, root, BATCH_SIZE, seed=0)
  for _ in sys.stdin:
    print(_burst(stream), flush=True)


def _waiting(num_workers: int) -> None:
  from algorithmic_efficiency.trial.inputs import InputQueue

  splits = Splits(train=10_000, eval_train=10, validation=10, test=None)
  definition = variant(registry.workload('quick_vision'), name='slow', splits=splits)
  data = SimpleNamespace(source=_small_images, transform=_slow)
  stream = streams.train_stream(
    data, definition, Path(), SLOW_BATCH_SIZE, 0, num_workers=num_workers
  )
  queue = InputQueue(stream, lambda batch: batch)
  next(queue)
  queue.wait_sec = 0.0
  start = time.perf_counter()
  for _ in range(SLOW_STEPS):
    _spin(STEP_SHARE * SLOW_BATCH_SIZE * SLOW_SEC)
    next(queue)
  elapsed = time.perf_counter() - start
  stream.close()
  print(
    f'Examples of {SLOW_SEC * 1e3:g} ms of CPU, steps of {STEP_SHARE:g} times a batch, '
    f'{num_workers} workers: training waited {queue.wait_sec / elapsed:.1%} of the time, '
    f'{queue.wait_sec / SLOW_STEPS * 1e3:.1f} ms a step'
  )


class _SmallImages:
  """10,000 small images, each of one value."""

  def __len__(self) -> int:
    return 10_000

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    return {'inputs': np.full((64, 64, 3), index % 256, np.uint8)}


def _small_images(definition: WorkloadDefinition, root: Path, split: str) -> _SmallImages:
  return _SmallImages()


def _slow(definition: WorkloadDefinition, train: bool) -> Any:
  return _slow_example


def _slow_example(example: Mapping[str, Any], random: Any) -> Mapping[str, Any]:
  _spin(SLOW_SEC)
  return example


def _spin(seconds: float) -> None:
  """Computes for so many seconds of CPU time."""
  end = time.thread_time() + seconds
  while time.thread_time() < end:
    pass


def _random() -> None:
  """Three draws of each example of a batch, the keys of the batch included."""
  epochs, examples = np.zeros(BATCH_SIZE, np.int64), np.arange(BATCH_SIZE)
  seconds = []
  for _ in range(NUM_BURSTS):
    start = time.thread_time()
    for key in random_numbers.keys(7, epochs, examples).tolist():
      random = random_numbers.ExampleRandom(key)
      random.uniform(-1.0, 1.0), random.uniform(0.0, 10.0), random.integer(2)
    seconds.append((time.thread_time() - start) / BATCH_SIZE)
  print(f'Random numbers, three for each example: {statistics.median(seconds) * 1e6:.1f} us of CPU')


def _packing() -> None:
  """Lengths with the mean and spread of captions of Multi30k in tokens."""
  from algorithmic_efficiency.data.packing import PackedRows
  from algorithmic_efficiency.data.pipeline import Shuffled

  drawn = np.random.default_rng(0).gamma(9, 1.6, 29_000)
  lengths = np.clip(drawn.round() + 1, 3, 60).astype(np.int64)
  sizes: dict[str, Any] = {'batch_size': 64, 'seed': 1}
  order = PackedRows(Shuffled(num_examples=len(lengths), **sizes), [lengths], ROW_LENGTH, **sizes)
  start = time.perf_counter()
  num_rows = order.num_rows(0)
  order.rows(0)
  elapsed = time.perf_counter() - start
  print(
    f'Packing {len(lengths):,} examples into rows of {ROW_LENGTH}: '
    f'{lengths.sum() / elapsed / 1e6:.0f} million tokens/s, rows '
    f'{lengths.sum() / num_rows / ROW_LENGTH:.1%} full'
  )


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
  """Binds this process to one core while the block runs, where the system can."""
  if not hasattr(os, 'sched_setaffinity'):
    yield
    return
  before = os.sched_getaffinity(0)
  os.sched_setaffinity(0, {min(before)})
  try:
    yield
  finally:
    os.sched_setaffinity(0, before)


if __name__ == '__main__':
  main()
