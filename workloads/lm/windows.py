"""Cuts documents of tokens into windows: rows [length + 1] of their concatenation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition

from .definition import TokenWindows

Stored = Literal['train', 'validation', 'test']

_BLOCK_TOKENS = 1 << 22


def stored(definition: WorkloadDefinition) -> tuple[Stored, ...]:
  """Returns the splits of a prepared set; held-out splits come first."""
  if definition.splits.test is None:
    return ('validation', 'train')
  return ('validation', 'test', 'train')


def num_windows(definition: WorkloadDefinition, split: Stored) -> int:
  return getattr(definition.splits, split)


def stride(data: TokenWindows) -> int:
  """Returns the number of tokens from the start of a window to the start of the next."""
  return data.sequence_length + 1 - data.overlap


def num_tokens(data: TokenWindows, num_windows: int) -> int:
  """Returns the number of tokens of that many full windows."""
  return (num_windows - 1) * stride(data) + data.sequence_length + 1


def num_whole(data: TokenWindows, tokens: int) -> int:
  """Returns the number of windows that the tokens fill."""
  return max(0, (tokens - data.sequence_length - 1) // stride(data) + 1)


def num_started(data: TokenWindows, tokens: int) -> int:
  """Returns the number of windows with at least one predicted token."""
  return max(0, (tokens - 2) // stride(data) + 1)


class Part(NamedTuple):
  """The part of a stream of documents that fills a split."""

  num_documents: int
  num_tokens: int
  num_windows: int


def parts(
  definition: WorkloadDefinition, splits: Sequence[Stored], lengths: np.ndarray
) -> list[Part]:
  """Returns the part of each split; no document is in two splits.

  Args:
    definition: definition of the workload.
    lengths: tokens of each document.

  Raises:
    UserError: there are too few documents.
  """
  data, found, first = definition.data, [], 0
  for split in splits:
    needed = num_windows(definition, split)
    ends = np.cumsum(lengths[first:])
    total = int(ends[-1]) if len(ends) else 0
    filled = num_whole(data, total) if split == 'train' else num_started(data, total)
    if filled < needed:
      raise errors.UserError(
        f'{definition.name} needs {needed:,} windows of {data.sequence_length + 1:,} tokens in its '
        f'{split} split; the documents fill {filled:,}. Give all documents, or define a '
        'workload of your own, with its own data set and splits, in a task folder of your own.'
      )
    last = min(int(np.searchsorted(ends, num_tokens(data, needed))), len(ends) - 1)
    found.append(Part(last + 1, int(ends[last]), needed))
    first += last + 1
  return found


def cut(
  documents: Iterable[np.ndarray], data: TokenWindows, num_windows: int, padding: int
) -> Iterator[np.ndarray]:
  """Yields blocks of the first `num_windows` windows, [rows, length + 1].

  The end of the last window is padded with the token `padding`.
  """
  rest: np.ndarray | None = None
  for block in _blocks(documents):
    tokens = block if rest is None else np.concatenate([rest, block])
    rows = min(num_whole(data, len(tokens)), num_windows)
    if rows:
      yield _rows(tokens, data, rows)
    rest = tokens[rows * stride(data) :]
    num_windows -= rows
  if num_windows and rest is not None:
    missing = num_tokens(data, num_windows) - len(rest)
    yield _rows(np.append(rest, np.full(missing, padding, rest.dtype)), data, num_windows)


def _rows(tokens: np.ndarray, data: TokenWindows, num_rows: int) -> np.ndarray:
  views = np.lib.stride_tricks.sliding_window_view(tokens, data.sequence_length + 1)
  return views[: num_rows * stride(data) : stride(data)]


def _blocks(documents: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
  """Yields the documents, joined to arrays of a few million tokens."""
  pieces: list[np.ndarray] = []
  size = 0
  for document in documents:
    pieces.append(document)
    size += len(document)
    if size >= _BLOCK_TOKENS:
      yield np.concatenate(pieces)
      pieces, size = [], 0
  if pieces:
    yield np.concatenate(pieces)


def num_targets(data: TokenWindows, num_windows: int, tokens: int) -> np.ndarray:
  """Returns the number of predicted tokens in each window, int32 [num_windows].

  Args:
    data: settings of the windows.
    num_windows: number of windows.
    tokens: number of tokens that they are cut from.
  """
  starts = np.arange(num_windows, dtype=np.int64) * stride(data)
  return np.clip(tokens - 1 - starts, 0, data.sequence_length).astype(np.int32)
