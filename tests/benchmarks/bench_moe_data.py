"""What questions cost: CPU time of their training batches, made in the process that trains.

Command: python tests/benchmarks/bench_moe_data.py [DATA]

With DATA, a folder that holds `mnist` and `fsdd`, spoken digits are prepared and asked about, too.
Batches of the largest mixture are generated, so only their rows are timed.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.data import prepare, streams
from workloads.multimodal_moe import questions, web_sources

NUM_BURSTS = 20
BATCHES_PER_BURST = 20
NUM_GENERATED = 60


def cpu_ms(make: Callable[[], Any], num_calls: int) -> float:
  """Returns the CPU time of a call in milliseconds, the median over bursts."""
  make()
  bursts = []
  for _ in range(NUM_BURSTS):
    start = time.process_time()
    for _ in range(num_calls):
      make()
    bursts.append(1e3 * (time.process_time() - start) / num_calls)
  return statistics.median(bursts)


def of_stream(name: str, root: Path) -> None:
  definition = registry.workload(name)
  data = registry.module_of(definition, 'data')
  batch_size = definition.batch_sizes.train
  stream = streams.train_stream(data, definition, root, batch_size, 0)
  filled = statistics.fmean(float((next(stream)['segments'] > 0).mean()) for _ in range(20))
  each = cpu_ms(lambda: next(stream), BATCHES_PER_BURST)
  print(
    f'{name}: {each:.2f} ms of CPU a batch of {batch_size} rows of {definition.data.row_length}; '
    f'{filled:.1%} of the positions are filled'
  )


def of_spoken_digits(folder: Path) -> None:
  definition = registry.workload('digits_moe')
  sources = {name: folder / name for name in ('mnist', 'fsdd')}
  with tempfile.TemporaryDirectory() as data_dir:
    start = time.process_time()
    prepare.prepare(
      definition,
      Path(data_dir),
      source=sources,
      from_tfds=False,
      overwrite=False,
      progress=lambda *_: None,
    )
    print(f'digits_moe: prepared in {time.process_time() - start:.1f} s of CPU')
    of_stream('digits_moe', Path(data_dir) / definition.dataset)


def of_the_largest() -> None:
  definition = registry.workload('multimodal_moe')
  form, batch_size = definition.data, definition.batch_sizes.train
  generated = itertools.islice(web_sources.generated(form, 0), NUM_GENERATED)
  rows = questions.filled(form, itertools.cycle(list(generated)), batch_size)
  each = cpu_ms(lambda: questions.Rows(form)(rows), 1)
  print(f'multimodal_moe: {each:.0f} ms of CPU to fill {batch_size} rows of {form.row_length:,}')


if __name__ == '__main__':
  of_stream('quick_moe', Path('/nonexistent'))
  if len(sys.argv) > 1:
    of_spoken_digits(Path(sys.argv[1]))
  of_the_largest()
