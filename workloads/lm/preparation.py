"""Fills a prepared set with windows of the documents in parquet files."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import documents, records, vocabulary
from algorithmic_efficiency.data.prepare import Progress
from algorithmic_efficiency.data.vocabulary import Vocabulary

from . import byte_pairs, windows
from .definition import TokenWindows
from .windows import Stored

_RUNS = 'documents'  # prefix of fields that only preparation needs


def fill(
  definition: WorkloadDefinition, source: Path, out: records.Writer, progress: Progress
) -> None:
  """Writes windows, counts and vocabulary; see `data.prepare`."""
  vocabulary.require('tiktoken', 'text')
  groups = _groups(definition, source)
  (training,) = (chunks for splits, chunks in groups.items() if 'train' in splits)
  tokenizer = _tokenizer(definition.data, source, training, out, progress)
  for splits, chunks in groups.items():
    if not all(out.has(field) for split in splits for field in _fields(split)):
      name = f'{_RUNS}-{splits[0]}'
      shuffled = documents.Shuffled(chunks, tokenizer, name=name, out=out, progress=progress)
      _write(definition, splits, shuffled, tokenizer, out, progress)
  out.drop(_RUNS)


def _fields(split: Stored) -> list[str]:
  return [f'{split}/windows', *([] if split == 'train' else [f'{split}/num_targets'])]


def _groups(
  definition: WorkloadDefinition, source: Path
) -> Mapping[tuple[Stored, ...], list[documents.Chunk]]:
  """Returns the files of documents, by the splits that they fill in order."""
  splits = windows.stored(definition)
  if definition.data.source == 'parquet':
    return {splits: documents.find(source)}
  return {(split,): documents.find(source, split) for split in splits}


def _tokenizer(
  data: TokenWindows,
  source: Path,
  training: Sequence[documents.Chunk],
  out: records.Writer,
  progress: Progress,
) -> Vocabulary:
  """Returns the vocabulary of the set; first reads or trains one if it has none yet."""
  if not out.has(vocabulary.FILE):
    if data.tokenizer == 'trained':
      tokenizer = _trained(data, source, training, progress)
    else:
      tokenizer = vocabulary.find(source, data)
    content = tokenizer.to_json()
    vocabulary.check_sha256(hashlib.sha256(content).hexdigest(), source, data)
    out.file(vocabulary.FILE, content)
  return vocabulary.load(out.folder / vocabulary.FILE, data)


def _trained(
  data: TokenWindows, source: Path, training: Sequence[documents.Chunk], progress: Progress
) -> Vocabulary:
  counts = documents.count_words(training, progress)
  wanted = data.vocab_size - len(vocabulary.BYTE_TOKENS) - 1
  merges = byte_pairs.train(
    counts, wanted, lambda done: progress('train the vocabulary', done, wanted)
  )
  if len(merges) < wanted:
    raise errors.UserError(
      f'A vocabulary of {data.vocab_size:,} tokens takes {wanted:,} merges; the training text in '
      f'{source} has pairs for {len(merges):,}. Give more text.'
    )
  return vocabulary.of_merges(merges, data.separator)


def _write(
  definition: WorkloadDefinition,
  splits: Sequence[Stored],
  shuffled: documents.Shuffled,
  tokenizer: Vocabulary,
  out: records.Writer,
  progress: Progress,
) -> None:
  """Fills the splits in order."""
  data = definition.data
  parts = windows.parts(definition, splits, shuffled.lengths)
  stream = iter(shuffled)
  for split, (num_documents, num_tokens, num_windows) in zip(splits, parts, strict=True):
    blocks = windows.cut(
      itertools.islice(stream, num_documents), data, num_windows, tokenizer.separator_id
    )
    out.array(
      f'{split}/windows',
      _shown(blocks, f'write {split}', num_windows, progress),
      shape=(num_windows, data.sequence_length + 1),
      dtype=tokenizer.dtype,
    )
    if split != 'train':
      num_targets = windows.num_targets(data, num_windows, num_tokens)
      out.array(f'{split}/num_targets', [num_targets], shape=(num_windows,), dtype=np.int32)


def _shown(
  blocks: Iterable[np.ndarray], stage: str, total: int, progress: Progress
) -> Iterator[np.ndarray]:
  done = 0
  for block in blocks:
    yield block
    done += len(block)
    progress(stage, done, total)
