"""What each call of the PyTorch backend costs, on the shapes of MNIST.

Run: python tests/benchmarks/bench_backend_torch.py [NUM_THREADS]
Prints the median and the 10th percentile in microseconds, and the seconds of what happens once in a
process; asserts nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from algorithmic_efficiency import spec
from algorithmic_efficiency.backends import torch as backend_torch
from algorithmic_efficiency.backends.base import Devices, TaskCode
from algorithmic_efficiency.benchmark import registry

BATCH_SIZE = 1024
NUM_REPEATS = 300
NUM_EVAL_BATCHES = 100
WORDS = np.array([1, 2], np.uint32)


def main() -> None:
  num_threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
  start = time.perf_counter()
  import torch

  imported = time.perf_counter()
  backend = backend_torch.start(Devices(platform='auto', num_threads=num_threads))
  started = time.perf_counter()
  definition = registry.workload('mnist')
  shape = definition.data.image_shape
  task = TaskCode(
    data=SimpleNamespace(),  # type: ignore[arg-type]
    model=registry.module_of(definition, 'pytorch'),
  )
  workload = backend.workload(
    definition, task, definition.suites['lite'], eval_batch_size=BATCH_SIZE
  )
  model, _ = workload.init_model_fn(backend.key(WORDS))
  made = time.perf_counter()
  optimizer = torch.optim.AdamW(model.parameters())
  print(f'{backend.describe()["device_kind"]}, {num_threads} threads, batch {BATCH_SIZE}')
  for name, seconds in (
    ('import torch', imported - start),
    ('start', started - imported),
    ('model', made - started),
    ('first optimizer (imports the compiler)', time.perf_counter() - made),
  ):
    print(f'{name:40s} {seconds:9.2f} s')
  _report_calls(backend, workload, model, optimizer, shape)
  _report_eval(backend, workload, model, shape)


def _report_calls(backend: Any, workload: Any, model: Any, optimizer: Any, shape: Any) -> None:
  def make() -> dict[str, np.ndarray]:
    return _batch(shape, BATCH_SIZE)

  _report('place', backend.place, make)
  _report('key', lambda _: backend.key(WORDS))
  batch = backend.place(make())

  def forward(_: Any) -> None:
    workload.model_fn(model, batch, None, spec.ForwardPassMode.TRAIN, None, update_batch_norm=True)[
      0
    ].sum().backward()

  def bare(_: Any) -> None:
    model(batch['inputs'], use_running_average=False, dropout_rate=0.0).sum().backward()

  _report('model_fn and gradient', forward)
  _report('gradient in a bare loop', bare)
  optimizer.step()
  state = {'params': model, 'optimizer': optimizer}
  trees = {'state': state}
  packed = backend.pack(trees)
  for name, call in (
    ('synchronize', lambda _: backend.synchronize(model)),
    ('all_finite', lambda _: backend.all_finite(model)),
    ('change_marker', lambda _: backend.change_marker(model)),
    ('pack', lambda _: backend.pack(trees)),
    ('overlay', lambda _: backend.overlay(trees, packed)),
  ):
    _report(name, call)


def _batch(shape: tuple[int, ...], size: int) -> dict[str, np.ndarray]:
  return {
    'inputs': np.full((size, *shape), 0.5, np.float32),
    'targets': np.zeros(size, np.int32),
    'weights': np.ones(size, np.float32),
  }


def _report(name: str, call: Callable[[Any], Any], make: Callable[[], Any] = lambda: None) -> None:
  """Times `call` on a fresh argument each time; making it is not timed."""
  seconds = []
  for _ in range(NUM_REPEATS):
    argument = make()
    start = time.perf_counter()
    call(argument)
    seconds.append(time.perf_counter() - start)
  _print(name, seconds)


def _report_eval(backend: Any, workload: Any, model: Any, shape: Any) -> None:
  """The backend's evaluation against a loop over the model that fetches each result."""
  import torch

  batches = [_batch(shape, BATCH_SIZE) for _ in range(NUM_EVAL_BATCHES)]

  @torch.no_grad()
  def bare(batches: Iterator[Any]) -> None:
    model.eval()
    for batch in batches:
      placed = backend.place(batch)
      logits = model(placed['inputs'], use_running_average=True, dropout_rate=0.0)
      float(workload.loss_fn(placed['targets'], logits, placed['weights'])['summed'])
      float(((logits.argmax(-1) == placed['targets']) * placed['weights']).sum())

  def ours(batches: Iterator[Any]) -> None:
    backend.eval_sums(workload, model, None, batches, WORDS)

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
