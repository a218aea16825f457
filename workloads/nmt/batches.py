"""Batches of pairs of sentences, made with vectorized calls.

A training batch has packed rows. Both sides of a pair have the same segment number:

- `inputs`, `targets`: int32 [batch, row_length].
- `inputs_position`, `targets_position`: int32, position within the sentence.
- `inputs_segmentation`, `targets_segmentation`: int32, number of the pair in its row from 1; 0 in
  padding.
- `weights`: float32 [batch, row_length], 1 at target tokens that count, 0 in padding.

An evaluation batch has one pair a row, and `inputs`, `targets` and `weights` alone, [batch, width].
The width is the smallest bucket that holds all sentences of the global batch. Names and types are
AlgoPerf's. As there, a token 0 within a sentence is padding, too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from algorithmic_efficiency import seeds
from algorithmic_efficiency.data.packing import Packed
from algorithmic_efficiency.data.pipeline import Batch, ShardRows
from algorithmic_efficiency.data.records import Ragged

from .data_records import (
  EOS_ID,
  FIRST_PIECE_ID,
  PADDING_ID,
  ParallelText,
  SpelledNumbers,
  bucket_lengths,
  packed_length,
)

SIDES = ('inputs', 'targets')
Data = ParallelText | SpelledNumbers

_MAX_FAKE_SEGMENTS = 3


class Pairs:
  """A loader of the pairs of a split.

  Args:
    source: tokens of the source sentences.
    target: tokens of the target sentences. A pair that does not count has two empty sentences.
    data: lengths of rows and of sentences.
    chosen: numbers of the pairs of the split, int64 [pairs]; None for all, in their order.
    num_evaluated: how many of them are evaluated, from the first.
    first_number: number of the first pair in `pair`, int32 [batch], which evaluation batches have
      in addition; None for no such numbers.
  """

  def __init__(
    self,
    source: Ragged,
    target: Ragged,
    *,
    data: Data,
    num_evaluated: int,
    chosen: np.ndarray | None = None,
    first_number: int | None = None,
  ):
    self._sides = (source, target)
    self._data = data
    self._chosen = np.arange(len(source)) if chosen is None else chosen
    self._first_number = first_number
    lengths = np.stack([side.lengths for side in self._sides], axis=1)
    self.lengths = lengths[self._chosen]
    self._longest = self.lengths[:num_evaluated].max(axis=1)
    self._orders: dict[int, np.ndarray] = {}  # by the size of a batch

  def __len__(self) -> int:
    return len(self._chosen)

  def packed(self) -> Packed:
    """Returns this loader with the lengths of both sides, to be packed in training."""
    return Packed(self, self.lengths, packed_length(self._data), leave_out_empty=True)

  def __call__(self, rows: ShardRows) -> Batch:
    if rows.edges is not None:
      return packed_batch(
        [_taken(side, self._chosen[rows.indices]) for side in self._sides],
        rows.edges,
        packed_length(self._data),
      )
    order = self._order(rows.whole.num_rows)
    width = self._width(order[rows.whole.indices])
    pairs = self._chosen[order[rows.indices]]
    batch = padded_batch([_taken(side, pairs) for side in self._sides], width)
    if self._first_number is not None:
      batch['pair'] = (pairs + self._first_number).astype(np.int32)
    return batch

  def _order(self, batch_size: int) -> np.ndarray:
    if batch_size not in self._orders:
      self._orders[batch_size] = evaluation_order(self._longest, batch_size)
    return self._orders[batch_size]

  def _width(self, pairs: np.ndarray) -> int:
    """Returns the smallest bucket that holds the sentences of a whole batch."""
    buckets = bucket_lengths(self._data)
    return buckets[np.searchsorted(buckets, self._longest[pairs].max())]


def evaluation_order(lengths: np.ndarray, batch_size: int) -> np.ndarray:
  """Returns the order in which pairs are evaluated, int64 [pairs].

  The first batch is a fair sample: its pairs have evenly spaced places among all, by length. So has
  any beginning of it. The others are sorted by length into batches, so that little is padded, and
  these batches are in the order of van der Corput (1935). The last, which may not be full, has the
  longest pairs.

  Args:
    lengths: length of the longer sentence of each pair, int [pairs].
    batch_size: pairs of a batch.
  """
  by_length = np.argsort(lengths, kind='stable')
  num_sampled = min(batch_size, len(lengths))
  spaced = (2 * np.arange(num_sampled) + 1) * len(lengths) // (2 * num_sampled)
  rest = np.delete(by_length, spaced)
  num_batches = len(rest) // batch_size
  full = rest[: num_batches * batch_size].reshape(num_batches, batch_size)
  sample = by_length[spaced][_spread(num_sampled)]
  return np.concatenate([sample, full[_spread(num_batches)].reshape(-1), rest[full.size :]])


def _spread(number: int) -> np.ndarray:
  """Returns the numbers below `number` in an order whose beginnings are spread, int64 [number].

  The bits of the places are reversed; 0 comes last, so that a middle number is first.
  """
  bits = max(1, (number - 1).bit_length())
  reverse = [int(f'{place:0{bits}b}'[::-1], 2) for place in range(1, 1 << bits)]
  return np.array([place for place in [*reverse, 0] if place < number], np.int64)


class _Taken(NamedTuple):
  """Some sentences, one after the other.

  Attributes:
    tokens: int32 [tokens].
    lengths: of each sentence, int64 [sentences].
    positions: of each token within its sentence, int64 [tokens].
  """

  tokens: np.ndarray
  lengths: np.ndarray
  positions: np.ndarray


def _taken(side: Ragged, numbers: np.ndarray) -> _Taken:
  starts = side.offsets[numbers]
  lengths = side.offsets[numbers + 1] - starts
  before = np.cumsum(lengths) - lengths
  positions = np.arange(lengths.sum()) - np.repeat(before, lengths)
  tokens = side.values[np.repeat(starts, lengths) + positions].astype(np.int32)
  return _Taken(tokens, lengths, positions)


def packed_batch(sides: list[_Taken], edges: np.ndarray, row_length: int) -> Batch:
  """Returns the batch of packed rows.

  Args:
    sides: source and target sentences, row after row.
    edges: row r holds the sentences from edges[r] to edges[r + 1], int64 [rows + 1].
    row_length: tokens of a row.
  """
  batch = {}
  num_rows, counts = len(edges) - 1, np.diff(edges)
  row_of = np.repeat(np.arange(num_rows), counts)
  number = np.arange(len(row_of)) - np.repeat(edges[:-1], counts) + 1
  for name, side in zip(SIDES, sides, strict=True):
    before = np.cumsum(side.lengths) - side.lengths
    starts = row_of * row_length + before - np.repeat(before[edges[:-1]], counts)
    places = np.repeat(starts, side.lengths) + side.positions
    is_token = side.tokens != PADDING_ID
    for key, values in (
      (name, side.tokens),
      (f'{name}_position', side.positions),
      (f'{name}_segmentation', np.repeat(number, side.lengths) * is_token),
    ):
      batch[key] = np.zeros((num_rows, row_length), np.int32)
      batch[key].reshape(-1)[places] = values
  batch['weights'] = (batch['targets'] != PADDING_ID).astype(np.float32)
  return batch


def padded_batch(sides: list[_Taken], width: int) -> Batch:
  """Returns the batch of one pair a row: source and target sentences [batch, width]."""
  batch = {}
  for name, side in zip(SIDES, sides, strict=True):
    batch[name] = np.zeros((len(side.lengths), width), np.int32)
    rows = np.repeat(np.arange(len(side.lengths)), side.lengths)
    batch[name][rows, side.positions] = side.tokens
  batch['weights'] = (batch['targets'] != PADDING_ID).astype(np.float32)
  return batch


def fake_packed(data: Data, num_rows: int, seed: int) -> Batch:
  """Returns a training batch of generated tokens; rows hold one to three pairs."""
  random = seeds.generator(seed, 'fake')
  row_length = packed_length(data)
  most = max(1, min(_MAX_FAKE_SEGMENTS, row_length // 2))
  counts = random.integers(1, most + 1, num_rows)
  limits = np.minimum(np.repeat(row_length // counts, counts), data.max_length)
  edges = np.concatenate([[0], np.cumsum(counts)])
  return packed_batch([_fake(random, data, limits) for _ in SIDES], edges, row_length)


def fake_padded(data: Data, num_rows: int, seed: int) -> Batch:
  """Returns an evaluation batch of generated tokens, at its greatest width."""
  random = seeds.generator(seed, 'fake evaluation')
  limits = np.full(num_rows, data.max_length)
  return padded_batch([_fake(random, data, limits) for _ in SIDES], data.max_length)


def _fake(random: np.random.Generator, data: Data, limits: np.ndarray) -> _Taken:
  """Returns generated sentences of 2 tokens up to `limits`, with their ends."""
  lengths = random.integers(2, limits + 1)
  ends = np.cumsum(lengths)
  tokens = random.integers(FIRST_PIECE_ID, data.vocab_size, ends[-1], dtype=np.int32)
  tokens[ends - 1] = EOS_ID
  return _Taken(tokens, lengths, np.arange(ends[-1]) - np.repeat(ends - lengths, lengths))
