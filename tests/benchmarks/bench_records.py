"""What records cost: microseconds a row, early and late, and megabytes a second of checkpoints.

Command: python tests/benchmarks/bench_records.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from algorithmic_efficiency.results.measurements import RunLog, read
from algorithmic_efficiency.trial.checkpoint import Checkpoints

NUM_ROWS = 20_000
NUM_ARRAYS = 8
ARRAY_BYTES = 64_000_000
NUM_REPEATS = 5

METRICS = {'loss': 0.123456789, 'grad_norm': 1.23456789}
EVAL = {
  **{
    f'{split}/{name}': 0.1234567891234
    for split in ('train', 'validation', 'test')
    for name in ('accuracy', 'loss', 'num_examples')
  },
  'score': 12.3456789,
  'total_duration': 12.3456789,
  'accumulated_submission_time': 12.3456789,
  'accumulated_eval_time': 12.3456789,
  'accumulated_logging_time': 12.3456789,
}


def main() -> None:
  with tempfile.TemporaryDirectory() as folder:
    rows(Path(folder) / 'log')
    checkpoints(Path(folder) / 'checkpoints')


def rows(folder: Path) -> None:
  log = RunLog.open(folder, header={})
  log.append_metrics(METRICS, 0)
  log.append_eval(EVAL, 1)
  for name in ('early', 'late'):
    metrics = seconds_each(lambda step: log.append_metrics(METRICS, step))
    evals = seconds_each(lambda step: log.append_eval(EVAL, step))
    print(f'rows, {name}: {metrics * 1e6:.1f} us logged, {evals * 1e6:.1f} us evaluated')
  log.flush()
  log.close()
  start = time.perf_counter()
  num_lines = read(folder).num_lines
  print(f'reading: {(time.perf_counter() - start) / num_lines * 1e6:.1f} us a row')


def seconds_each(append: Callable[[int], object]) -> float:
  start = time.perf_counter()
  for step in range(NUM_ROWS):
    append(step)
  return (time.perf_counter() - start) / NUM_ROWS


def checkpoints(folder: Path) -> None:
  random = np.random.default_rng(0)
  payload = {str(i): random.random(ARRAY_BYTES // 8) for i in range(NUM_ARRAYS)}
  megabytes = NUM_ARRAYS * ARRAY_BYTES / 1e6
  store = Checkpoints(folder)
  saved, loaded = [], []
  for step in range(NUM_REPEATS):
    start = time.perf_counter()
    store.save(step, payload)
    saved.append(megabytes / (time.perf_counter() - start))
    start = time.perf_counter()
    store.load()
    loaded.append(megabytes / (time.perf_counter() - start))
  for name, speeds in (('saving', saved), ('loading', loaded)):
    print(
      f'{name} {megabytes:.0f} MB: {statistics.median(speeds):.0f} MB/s '
      f'({min(speeds):.0f} to {max(speeds):.0f})'
    )


if __name__ == '__main__':
  main()
