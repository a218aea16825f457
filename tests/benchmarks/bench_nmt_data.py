"""What pairs of sentences cost: preparation, packed rows and evaluation batches.

The pairs are those of Multi30k, English to German, prepared with the shipped vocabulary. The stream
packs batches of 64 rows for two passes, on one core.

Command: python tests/benchmarks/bench_nmt_data.py [SOURCE]

SOURCE is the folder of the text; by default, the sentences are generated with like lengths.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import prepare, streams

BATCH_SIZE = 64
NUM_PASSES = 2
NAMES = {'train': 'train', 'validation': 'val', 'test': 'test_2016_flickr'}


def main() -> None:
  registry.pin_own_packages()
  definition = registry.workload('multi30k')
  with tempfile.TemporaryDirectory() as folder:
    if len(sys.argv) > 1:
      source = Path(sys.argv[1])
    else:
      source = _generate(definition, Path(folder) / 'source')
      definition = dataclasses.replace(
        definition, data=dataclasses.replace(definition.data, text_sha256='')
      )
    root = _preparation(definition, source, Path(folder))
    _packing(definition, root)
    _evaluation(definition, root)
  _phrases()


def _preparation(definition: WorkloadDefinition, source: Path, folder: Path) -> Path:
  def run() -> Any:
    return prepare.prepare(
      definition,
      folder / 'data',
      source=source,
      from_tfds=False,
      overwrite=False,
      progress=lambda *_: None,
    )

  prepared, seconds = _timed(run)
  tokens = sum(
    len(prepared.field(f'{split}/{side}').values)
    for split in prepared.manifest['splits']
    for side in ('inputs', 'targets')
  )
  print(
    f'Preparation: {seconds:.1f} s of CPU for {tokens:,} tokens, '
    f'{tokens / seconds / 1e6:.2f} million a second'
  )
  return prepared.root


def _packing(definition: WorkloadDefinition, root: Path) -> None:
  """Prints speed and fullness, over both sides and over the fuller one."""
  data = registry.module_of(definition, 'data')
  stream, opened = _timed(
    lambda: streams.train_stream(data, definition, root, BATCH_SIZE, 1, shard=(0, 1))
  )
  _, first = _timed(lambda: next(stream))
  stream.restore({**stream.state(), 'num_batches': 0})
  tokens, slots, num_pairs = np.zeros(2), 0, 0
  spent = 0.0
  while num_pairs < NUM_PASSES * definition.splits.train - 8 * BATCH_SIZE:
    batch, seconds = _timed(lambda: next(stream))
    spent += seconds
    tokens += [np.count_nonzero(batch[side]) for side in ('inputs', 'targets')]
    slots += batch['targets'].size
    num_pairs += int(batch['targets_segmentation'].max(axis=1).sum())
  print(
    f'Packing {num_pairs:,} pairs into rows of {batch["targets"].shape[1]}: '
    f'{tokens.sum() / spent / 1e6:.1f} million tokens a second of CPU time; '
    f'slots filled: {tokens.sum() / (2 * slots):.1%} of both sides, '
    f'{tokens.max() / slots:.1%} of the fuller one'
  )
  print(f'To the first batch: {opened + first:.2f} s of CPU, planning of a pass included')


def _evaluation(definition: WorkloadDefinition, root: Path) -> None:
  """Prints how much of evaluation batches is padding, with buckets and without."""
  data = registry.module_of(definition, 'data')
  batch_size = definition.batch_sizes.eval
  batches, seconds = _timed(
    lambda: list(streams.eval_stream(data, definition, root, 'validation', batch_size))
  )
  tokens = sum(np.count_nonzero(batch['targets']) for batch in batches)
  slots = sum(batch['targets'].size for batch in batches)
  whole = len(batches) * batch_size * definition.data.max_length
  print(
    f'Evaluation, {len(batches)} batches of {batch_size}: {seconds * 1e3:.0f} ms of CPU, '
    f'{tokens / slots:.0%} of the slots filled; {tokens / whole:.0%} without buckets'
  )


def _phrases() -> None:
  definition = registry.workload('quick_nmt')
  data = registry.module_of(definition, 'data')
  _, seconds = _timed(lambda: data.loader(definition, None, 'train'))
  print(f'Generating the phrases of {definition.name}: {seconds:.2f} s of CPU, once a process')


def _generate(definition: WorkloadDefinition, folder: Path) -> Path:
  """Writes sentences of words of the vocabulary, with the lengths of captions."""
  random = np.random.default_rng(0)
  words = [''.join(random.choice(list('etaoinshrdlu'), 4)) for _ in range(2_000)]
  folder.mkdir()
  for split, name in NAMES.items():
    number = getattr(definition.splits, split)
    lengths = np.clip(random.gamma(9, 0.7, number).round(), 2, 20).astype(int)
    for language in (definition.data.source_language, definition.data.target_language):
      lines = [' '.join(random.choice(words, length)) for length in lengths]
      (folder / f'{name}.{language}').write_text('\n'.join([*lines, '']))
  return folder


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
  """Returns what a function gives, and the seconds of CPU time that it took."""
  start = time.process_time()
  result = function()
  return result, time.process_time() - start


if __name__ == '__main__':
  main()
