"""What the input pipeline costs: MNIST's training stream against bare numpy, on one core.

Both draw shuffled batches of 1,024 images of 28x28 pixels, normalised to float32, from the same
memory-mapped file of 50,000; they alternate in short bursts, so that drift of the machine hits both
alike. The second part shows what worker processes bring for examples that are mapped one by one.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import records, streams
from algorithmic_efficiency.data.pipeline import Batches, Shuffled
from algorithmic_efficiency.data.sources import Mapped

BATCH_SIZE = 1024
NUM_BURSTS = 20
BATCHES_PER_BURST = 100
MAPPED_BATCH_SIZE = 64
MAPPED_BATCHES = 40
MAP_SEC = 0.5e-3  # what mapping an example costs, about that of decoding a small photograph


def main() -> None:
  registry.pin_own_packages()
  definition = registry.workload('mnist')
  with tempfile.TemporaryDirectory() as folder, _one_core():
    root = Path(folder) / definition.dataset
    _generate(definition, root)
    _against_numpy(definition, root)
  _workers()


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
  mean, stddev = np.float32(definition.train_mean[0]), np.float32(definition.train_stddev[0])
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


def _workers() -> None:
  def seconds(num_workers: int) -> float:
    order = Shuffled(num_examples=1000, batch_size=MAPPED_BATCH_SIZE, seed=0)
    load = Mapped([_SmallImages()], _busy_map, None, seed=0, name='bench')
    stream = Batches(order, load, num_workers=num_workers)
    for _ in range(1 + 2 * num_workers):  # the workers start, and what they made ahead is taken
      next(stream)
    start = time.perf_counter()
    for _ in range(MAPPED_BATCHES):
      next(stream)
    elapsed = time.perf_counter() - start
    stream.close()
    return elapsed

  alone = seconds(0)
  for num_workers in range(1, (os.cpu_count() or 1) + 1):
    print(
      f'examples mapped one by one at {MAP_SEC * 1e3} ms each, {num_workers} worker processes: '
      f'{alone / seconds(num_workers):.2f} times the speed of none'
    )


class _SmallImages:
  """1,000 small images, each of one value."""

  def __len__(self) -> int:
    return 1000

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    return {'inputs': np.full((64, 64, 3), index % 256, np.uint8)}


def _busy_map(example: Mapping[str, Any], random: Any) -> Mapping[str, Any]:
  end = time.perf_counter() + MAP_SEC
  while time.perf_counter() < end:
    pass
  return example


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
