"""What each call of the JAX backend costs, on the shapes of MNIST.

Run: python tests/benchmarks/bench_backend_jax.py [NUM_DEVICES]
Prints the median and the 10th percentile in microseconds; asserts nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from algorithmic_efficiency.backends import jax as backend_jax
from algorithmic_efficiency.backends.base import Devices, TaskCode
from algorithmic_efficiency.benchmark import registry

BATCH_SIZE = 1024
NUM_REPEATS = 300
NUM_EVAL_BATCHES = 100
WORDS = np.array([1, 2], np.uint32)
ALIGNMENT = 64  # bytes; from here on JAX shares host memory on a CPU instead of copying it


def main() -> None:
  num_devices = int(sys.argv[1]) if len(sys.argv) > 1 else 1
  import jax

  backend = backend_jax.start(Devices(platform='auto', num_devices=num_devices))
  definition = registry.workload('mnist')
  shape = definition.data.image_shape
  task = TaskCode(
    data=SimpleNamespace(fake_batch=lambda definition, size, seed: _batch(shape, size, 0)),  # type: ignore[arg-type]
    model=registry.module_of(definition, 'jax'),
  )
  workload = backend.workload(
    definition, task, definition.suites['lite'], eval_batch_size=BATCH_SIZE
  )
  params, state = workload.init_model_fn(backend.key(WORDS))
  print(f'{backend.describe()["device_kind"]}, {num_devices} devices, batch {BATCH_SIZE}')

  def place(batch: Any) -> None:
    jax.block_until_ready(backend.place(batch))

  _report('place, 64-byte aligned', place, lambda: _batch(shape, BATCH_SIZE, 0))
  _report('place, as numpy allocates', place, lambda: _batch(shape, BATCH_SIZE, 16))
  _report('key', lambda _: backend.key(WORDS))
  split = jax.jit(lambda key: jax.random.split(key))
  _report('key into a jitted split', lambda _: split(backend.key(WORDS)).block_until_ready())
  array = jax.numpy.array(WORDS)
  _report('key as an array, likewise', lambda _: split(array).block_until_ready())
  _report('synchronize(params)', lambda _: backend.synchronize(params))
  _report('synchronize()', lambda _: backend.synchronize())
  _report('all_finite', lambda _: backend.all_finite(params))
  trees = {'params': params}
  packed = backend.pack(trees)
  _report('pack', lambda _: backend.pack(trees))
  _report('overlay', lambda _: jax.block_until_ready(backend.overlay(trees, packed)))
  _report_eval(backend, workload, params, state, shape)


def _batch(shape: tuple[int, ...], size: int, offset: int) -> dict[str, np.ndarray]:
  inputs = _allocate((size, *shape), offset)
  inputs[:] = 0.5
  return {
    'inputs': inputs,
    'targets': np.zeros(size, np.int32),
    'weights': np.ones(size, np.float32),
  }


def _allocate(shape: tuple[int, ...], offset: int) -> np.ndarray:
  """An uninitialised float32 array that begins `offset` bytes after an aligned address."""
  num_bytes = 4 * int(np.prod(shape))
  memory = np.empty(num_bytes + 2 * ALIGNMENT, np.uint8)
  start = -memory.ctypes.data % ALIGNMENT + offset
  return memory[start : start + num_bytes].view(np.float32).reshape(shape)


def _report(name: str, call: Callable[[Any], Any], make: Callable[[], Any] = lambda: None) -> None:
  """Times `call` on a fresh argument each time; making it is not timed."""
  seconds = []
  for _ in range(NUM_REPEATS):
    argument = make()
    start = time.perf_counter()
    call(argument)
    seconds.append(time.perf_counter() - start)
  _print(name, seconds)


def _report_eval(backend: Any, workload: Any, params: Any, state: Any, shape: Any) -> None:
  """The backend's evaluation against a loop over its compiled step that fetches each result."""
  import jax

  batches = [_batch(shape, BATCH_SIZE, 0) for _ in range(NUM_EVAL_BATCHES)]

  def bare(batches: Iterator[Any]) -> None:
    for batch in batches:
      jax.device_get(workload._eval_step(params, state, backend.place(batch), WORDS))

  def ours(batches: Iterator[Any]) -> None:
    backend.eval_sums(workload, params, state, batches, WORDS)

  for name, evaluate in (('eval, a batch', ours), ('eval in a bare loop', bare)):
    evaluate(iter(batches[:1]))
    seconds = []
    for _ in range(10):
      start = time.perf_counter()
      evaluate(iter(batches))
      seconds.append((time.perf_counter() - start) / NUM_EVAL_BATCHES)
    _print(name, seconds)


def _print(name: str, seconds: list[float]) -> None:
  median, low = 1e6 * np.median(seconds), 1e6 * np.percentile(seconds, 10)
  print(f'{name:28s} {median:9.1f} us {low:9.1f} us')


if __name__ == '__main__':
  main()
