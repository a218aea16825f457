"""What text costs: a stream of windows from a mapped file, and documents cut into tokens.

The stream draws batches of 64 windows of 1,025 tokens, as the largest language workload does, out
of 100 million tokens, and alternates with bare numpy in short bursts. The preparation tokenises,
shuffles and writes generated documents with a vocabulary trained on them.

Command: python tests/benchmarks/bench_lm_data.py [SOURCE]

With SOURCE, a folder of parquet files with GPT-2's `vocab.json` and `merges.txt`, the documents are
those in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Splits, WorkloadDefinition
from algorithmic_efficiency.data import documents, records, streams, vocabulary
from workloads.lm import byte_pairs, data, windows

BATCH_SIZE = 64
NUM_WINDOWS = 100_000
NUM_BURSTS = 20
BATCHES_PER_BURST = 100
GENERATED_BYTES = 40 << 20
WORDS_PER_DOCUMENT = 800
VOCAB_SIZE = 2_048
TOKENS_OF_THE_FULL_SET = 10e9


def main() -> None:
  registry.pin_own_packages()
  base = registry.workload('finewebedu_lm')
  definition = dataclasses.replace(
    base,
    data=dataclasses.replace(base.data, vocabulary_sha256=''),
    splits=Splits(train=NUM_WINDOWS, eval_train=1, validation=1, test=None),
  )
  with tempfile.TemporaryDirectory() as folder:
    with _cores(1):
      _stream(definition, Path(folder) / 'stream')
    _preparation(definition, Path(folder))


def _stream(definition: WorkloadDefinition, root: Path) -> None:
  out = _writer(definition, root)
  vocab_size, width = definition.data.vocab_size, definition.data.sequence_length + 1
  random = np.random.default_rng(0)
  out.array(
    'train/windows',
    (random.integers(vocab_size, size=(1000, width)) for _ in range(NUM_WINDOWS // 1000)),
    shape=(NUM_WINDOWS, width),
    dtype=np.uint16,
  )
  # Pairs of bytes, and as many tokens of three bytes as the size of the vocabulary asks for.
  merges = [(left, right) for left in vocabulary.BYTE_TOKENS for right in vocabulary.BYTE_TOKENS]
  tokenizer = vocabulary.of_merges(merges[: vocab_size - 257], definition.data.separator)
  out.file(vocabulary.FILE, tokenizer.to_json())
  out.finish()
  ours = streams.train_stream(data, definition, root, BATCH_SIZE, 0)
  bare = _bare_stream(root, tokenizer.num_bytes())
  _burst(ours)
  _burst(bare)
  bursts = [(_burst(ours), _burst(bare)) for _ in range(NUM_BURSTS)]
  millions = BATCH_SIZE * definition.data.sequence_length / 1e6
  ours_sec, bare_sec = (statistics.median(times) for times in zip(*bursts, strict=True))
  print(
    f'stream of windows: {millions / ours_sec:,.0f} million tokens/s on one core, bare numpy '
    f'{millions / bare_sec:,.0f}, ratio of times {statistics.median(o / b for o, b in bursts):.3f}'
  )


def _bare_stream(root: Path, num_bytes: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
  """What one would write by hand: a permutation for each pass, an index, the shift by one."""
  tokens = np.load(root / 'train.windows.npy', mmap_mode='r')
  random = np.random.default_rng(0)
  while True:
    order = random.permutation(len(tokens))
    for start in range(0, len(tokens) - BATCH_SIZE + 1, BATCH_SIZE):
      rows = tokens[order[start : start + BATCH_SIZE]].astype(np.int32)
      targets = rows[:, 1:]
      yield {'inputs': rows[:, :-1], 'targets': targets, 'target_bytes': num_bytes[targets]}


def _burst(stream: Iterator[Any]) -> float:
  """Seconds a batch."""
  start = time.perf_counter()
  for _ in range(BATCHES_PER_BURST):
    next(stream)
  return (time.perf_counter() - start) / BATCHES_PER_BURST


def _preparation(definition: WorkloadDefinition, folder: Path) -> None:
  if sys.argv[1:]:
    source, settings = Path(sys.argv[1]), definition.data
    chunks, tokenizer = documents.find(source), vocabulary.find(source, settings)
  else:
    _generate(folder / 'raw')
    chunks = documents.find(folder / 'raw')
    counts = documents.count_words(chunks, _silent)
    merges = byte_pairs.train(counts, VOCAB_SIZE - 257, lambda done: None)
    tokenizer = vocabulary.of_merges(merges, definition.data.separator)
  for num_cores in (1, os.cpu_count() or 1):
    with _cores(num_cores):
      _prepare(definition, folder / f'prepared_{num_cores}', chunks, tokenizer, num_cores)


def _prepare(
  definition: WorkloadDefinition,
  root: Path,
  chunks: list[documents.Chunk],
  tokenizer: vocabulary.Vocabulary,
  num_cores: int,
) -> None:
  out = _writer(definition, root)
  start, cpu_start = time.perf_counter(), _cpu_sec()
  shuffled = documents.Shuffled(chunks, tokenizer, name='documents', out=out, progress=_silent)
  sorted_at = time.perf_counter()
  tokens = int(shuffled.lengths.sum())
  number = windows.num_whole(definition.data, tokens)
  blocks = windows.cut(shuffled, definition.data, number, tokenizer.separator_id)
  shape = (number, definition.data.sequence_length + 1)
  out.array('train/windows', blocks, shape=shape, dtype=tokenizer.dtype)
  ended, cpu_ended = time.perf_counter(), _cpu_sec()
  hours = (ended - start) * TOKENS_OF_THE_FULL_SET / tokens / 3600
  print(
    f'preparation of {tokens:,} tokens on {num_cores} cores, in millions of tokens a second: '
    f'{tokens / (sorted_at - start) / 1e6:.2f} into sorted runs, '
    f'{tokens / (ended - sorted_at) / 1e6:.1f} merged, {tokens / (ended - start) / 1e6:.2f} in all '
    f'({tokens / (cpu_ended - cpu_start) / 1e6:.2f} of CPU time); 10 billion take {hours:.1f} h'
  )


def _cpu_sec() -> float:
  """CPU time of this process and of its ended workers."""
  return sum(os.times()[:4])


def _generate(folder: Path) -> None:
  """Documents of words whose frequencies fall as one over their rank."""
  import pyarrow
  import pyarrow.parquet

  random = np.random.default_rng(0)
  letters = np.array(list('etaoinshrdlucmfwypvbgkjqxz'))
  words = [''.join(random.choice(letters[:20], random.integers(1, 11))) for _ in range(30_000)]
  weights = 1 / np.arange(1, len(words) + 1)
  texts, size = [], 0
  while size < GENERATED_BYTES:
    drawn = random.choice(len(words), WORDS_PER_DOCUMENT, p=weights / weights.sum())
    texts.append(' '.join(words[at] for at in drawn))
    size += len(texts[-1])
  folder.mkdir()
  pyarrow.parquet.write_table(
    pyarrow.table({'text': texts}), folder / 'generated.parquet', row_group_size=1000
  )


def _writer(definition: WorkloadDefinition, root: Path) -> records.Writer:
  about = data.about(definition)
  return records.Writer(root, dataset=root.name, about=about, inputs='generated', key='')


def _silent(stage: str, done: int, total: int | None) -> None:
  """Shows nothing."""


@contextlib.contextmanager
def _cores(number: int) -> Iterator[None]:
  """Binds this process to so many cores while the block runs, where the system can."""
  if not hasattr(os, 'sched_setaffinity'):
    yield
    return
  before = os.sched_getaffinity(0)
  os.sched_setaffinity(0, sorted(before)[:number])
  try:
    yield
  finally:
    os.sched_setaffinity(0, before)


if __name__ == '__main__':
  main()
