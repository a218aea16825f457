"""Documents from parquet files: read, tokenized in worker processes, and shuffled.

The shuffle is an external merge sort: memory stays bounded for sets of any size, and the disk is
read and written in order. A permutation gives each document its position. Documents are tokenized
in runs of about a gigabyte of text, and each run is sorted by position in memory and written. Then
the runs are merged by position.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency import errors, seeds
from algorithmic_efficiency.data import records
from algorithmic_efficiency.data.prepare import Progress
from algorithmic_efficiency.data.vocabulary import WORDS, Vocabulary, require
from algorithmic_efficiency.data.workers import Workers
from algorithmic_efficiency.results import environment

_SEED = 0
_RUN_BYTES = 1 << 30  # bytes of text a run; its tokens take about half as much
_WORKER_BYTES = 4 << 20  # bytes of text that take as long as starting a process
_READ_ROWS = 1024  # rows of a file that are held as text at a time
_COLUMN = 'text'


@dataclass(frozen=True, kw_only=True)
class Chunk:
  """A row group of a parquet file, the unit of work of a worker."""

  path: Path
  row_group: int
  num_documents: int
  num_bytes: int  # uncompressed

  def texts(self) -> Iterator[str]:
    """Yields the texts of the row group.

    Raises:
      UserError: the file is damaged, or a text is missing.
    """
    import pyarrow
    import pyarrow.parquet

    try:
      with pyarrow.parquet.ParquetFile(self.path) as file:
        for batch in file.iter_batches(_READ_ROWS, [self.row_group], [_COLUMN]):
          for text in batch.column(0).to_pylist():
            if text is None:
              raise errors.UserError(
                f'Each row of {self.path} must have a text; one of row group {self.row_group} has '
                'none.'
              )
            yield text
    except (OSError, pyarrow.ArrowException, UnicodeDecodeError) as error:
      raise _unreadable(self.path, error) from None


def find(folder: Path, prefix: str = '') -> list[Chunk]:
  """Returns the row groups, by path, of the parquet files in a folder that begin with `prefix`.

  Raises:
    UserError: pyarrow is not installed; there is no such file; one is damaged or has no texts.
  """
  require('pyarrow', 'data')
  paths = sorted(path for path in folder.rglob(f'{prefix}*.parquet') if path.is_file())
  if not paths:
    raise errors.UserError(
      f'--source must name a folder with the text in parquet files; {folder} holds no '
      f'{prefix}*.parquet.'
    )
  return [chunk for path in paths for chunk in _row_groups(path)]


def count_words(chunks: Sequence[Chunk], progress: Progress) -> Counter[str]:
  """Returns the number of occurrences of each word of the documents.

  Raises:
    UserError: as `Chunk.texts`; the package regex is not installed.
  """
  require('regex', 'text')
  counts: Counter[str] = Counter()
  for chunk_counts in _each(_CountWords(chunks), chunks, 'count words', progress):
    counts.update(chunk_counts)
  return counts


class Shuffled:
  """The documents of some chunks as tokens, in a random order that is the same on every machine.

  Iteration yields one array of tokens for each document, with the separator last.

  Args:
    name: prefix of the fields of `out` that hold the sorted runs.

  Raises:
    UserError: as `Chunk.texts`, or writing failed.
  """

  def __init__(
    self,
    chunks: Sequence[Chunk],
    vocabulary: Vocabulary,
    *,
    name: str,
    out: records.Writer,
    progress: Progress,
  ):
    self._out = out
    self._runs = [f'{name}-{number:05}' for number in range(len(_runs(chunks)))]
    self._sort_runs(chunks, vocabulary, progress)
    places = [out.field(f'{run}/places') for run in self._runs]
    self._run_at = np.empty(sum(map(len, places)), np.int32)
    self.lengths = np.empty(len(self._run_at), np.int64)
    for number, run in enumerate(self._runs):
      self._run_at[places[number]] = number
      self.lengths[places[number]] = out.field(f'{run}/tokens').lengths

  def __iter__(self) -> Iterator[np.ndarray]:
    runs = [iter(self._out.field(f'{run}/tokens')) for run in self._runs]
    for number in self._run_at:
      yield next(runs[number])

  def _sort_runs(self, chunks: Sequence[Chunk], vocabulary: Vocabulary, progress: Progress) -> None:
    """Writes each run; skips those that an earlier attempt has completed."""
    out = self._out
    done = sum(out.has(f'{run}/places') for run in self._runs)
    counts = _runs(chunks)
    first = sum(counts[:done])
    places = seeds.generator(_SEED, 'documents').permutation(
      sum(chunk.num_documents for chunk in chunks)
    )
    start = sum(chunk.num_documents for chunk in chunks[:first])
    encode = _Encode(chunks, vocabulary)
    with contextlib.closing(_each(encode, chunks, 'tokenize', progress, first)) as encoded:
      for run, count in zip(self._runs[done:], counts[done:], strict=True):
        documents: list[np.ndarray] = []
        for tokens, lengths in itertools.islice(encoded, count):
          documents += np.split(tokens, np.cumsum(lengths))[:-1]
        own = places[start : start + len(documents)]
        start += len(documents)
        order = np.argsort(own)
        out.ragged(f'{run}/tokens', (documents[at] for at in order), dtype=vocabulary.dtype)
        out.array(f'{run}/places', [own[order]], shape=own.shape, dtype=np.int64)


def _runs(chunks: Sequence[Chunk]) -> list[int]:
  """Returns the number of chunks in each run."""
  counts = [0]
  size = 0
  for chunk in chunks:
    if size >= _RUN_BYTES:
      counts.append(0)
      size = 0
    counts[-1] += 1
    size += chunk.num_bytes
  return counts


class _CountWords:
  """Counts the words of a chunk."""

  def __init__(self, chunks: Sequence[Chunk]):
    self._chunks = chunks

  def __call__(self, number: int) -> Counter[str]:
    import regex

    words = regex.compile(WORDS)
    counts: Counter[str] = Counter()
    for text in self._chunks[number].texts():
      counts.update(words.findall(text))
    return counts


class _Encode:
  """Tokenizes a chunk: returns its tokens, [tokens], and the number of tokens of each document."""

  def __init__(self, chunks: Sequence[Chunk], vocabulary: Vocabulary):
    self._chunks = chunks
    self._vocabulary = vocabulary
    self._encode: Callable[[str], np.ndarray] | None = None  # made in the worker, once

  def __call__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
    if self._encode is None:
      self._encode = self._vocabulary.encoder()
    documents = [self._encode(text) for text in self._chunks[number].texts()]
    tokens = np.concatenate([np.empty(0, self._vocabulary.dtype), *documents])
    return tokens, np.array([len(document) for document in documents], np.int64)


def _each(
  make: Callable[[int], Any],
  chunks: Sequence[Chunk],
  stage: str,
  progress: Progress,
  first: int = 0,
) -> Generator[Any, None, None]:
  """Yields `make(number)` for each chunk from `first` on, in order, from several processes."""
  total = sum(chunk.num_bytes for chunk in chunks)
  done = sum(chunk.num_bytes for chunk in chunks[:first])
  useful = min(len(chunks) - first, (total - done) // _WORKER_BYTES)
  num_workers = min(int(environment.num_usable_cpus()), useful)
  with contextlib.ExitStack() as stack:
    results: Iterator[Any] = map(make, range(first, len(chunks)))
    if num_workers > 1:
      workers = stack.enter_context(contextlib.closing(Workers(num_workers)))
      results = workers.results(workers.add(make, stage), range(first, len(chunks)))
    for chunk in chunks[first:]:
      result = next(results)
      done += chunk.num_bytes
      progress(stage, done, total)
      yield result


def _row_groups(path: Path) -> list[Chunk]:
  import pyarrow
  import pyarrow.parquet

  try:
    with pyarrow.parquet.ParquetFile(path) as file:
      schema, metadata = file.schema_arrow, file.metadata
  except (OSError, pyarrow.ArrowException) as error:
    raise _unreadable(path, error) from None
  if _COLUMN not in schema.names:
    raise errors.UserError(
      f'{path} must have a column {_COLUMN!r}; it has {", ".join(schema.names) or "none"}.'
    )
  kind = schema.field(_COLUMN).type
  if kind not in (pyarrow.string(), pyarrow.large_string()):
    raise errors.UserError(f'The column {_COLUMN!r} of {path} must hold strings; it holds {kind}.')
  groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
  return [
    Chunk(
      path=path, row_group=number, num_documents=group.num_rows, num_bytes=group.total_byte_size
    )
    for number, group in enumerate(groups)
  ]


def _unreadable(path: Path, error: Exception) -> errors.UserError:
  return errors.UserError(
    f'{path} is truncated, damaged or no parquet file ({error}); fetch it again.'
  )
