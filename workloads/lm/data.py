"""Text as windows of tokens.

A batch has these fields:

- `inputs`: int32 [batch, length].
- `targets`: int32 [batch, length], the inputs shifted by one token.
- `target_bytes`: float32 [batch, length], bytes of text of each target.
- `segments`: int32 [batch, length], number of the document within its window; only if attention
  stays within a document.
- `weights`: float32 [batch, length], 0 where there is no token to predict; only in evaluation.

A prepared set has these fields, and its vocabulary in `tokenizer.json`:

- `<split>/windows`: uint16 or uint32 [n, length + 1].
- `<split>/num_targets`: int32 [n]; only for held-out splits.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from algorithmic_efficiency import errors, seeds
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import records, vocabulary
from algorithmic_efficiency.data.pipeline import Batch, Load, ShardRows
from algorithmic_efficiency.data.prepare import Progress, Source

from . import names, preparation, windows
from .definition import TokenWindows
from .windows import Stored

_BOOKS = ('English books out of copyright', 'public domain')
# Origin and license, by data set.
_ORIGINS = {
  'classic_books': _BOOKS,
  'classic_books_small': _BOOKS,
  'fineweb_edu_10B': ('FineWeb-Edu, sample-10BT, A. Lozhkov et al. 2024', 'ODC-By 1.0'),
  'unicode_names': ('Unicode 3.2, 2002, as Python carries it', 'Unicode-3.0'),
}


def about(definition: WorkloadDefinition) -> records.About:
  """Returns origin and license of the data set, and the size of its windows."""
  origin, licence = _ORIGINS.get(definition.dataset, ('given documents', 'not known'))
  data = definition.data
  num_windows = sum(windows.num_windows(definition, split) for split in windows.stored(definition))
  window_bytes = (data.sequence_length + 1) * vocabulary.token_type(data.vocab_size).itemsize
  return records.About(origin=origin, licence=licence, num_bytes=num_windows * window_bytes)


def prepare(
  definition: WorkloadDefinition, source: Source, out: records.Writer, progress: Progress
) -> None:
  """Writes windows of tokens of the documents in the parquet files of a folder.

  Args:
    source: a folder with parquet files that have a column `text`, at any depth; unless the
      vocabulary is trained, also with `tokenizer.json`, or `vocab.json` and `merges.txt`.

  Raises:
    UserError: a file is missing, damaged or of another form; there are fewer documents than the
      definition needs; a package is missing.
  """
  if not isinstance(source, Path):
    raise errors.UserError(
      f'The text of {definition.dataset} cannot be downloaded: name the folder of its '
      'parquet files with --source.'
    )
  preparation.fill(definition, source, out, progress)


def loader(definition: WorkloadDefinition, root: Path, split: Stored) -> Load:
  """Returns the loader of a stored split.

  Raises:
    UserError: the data is missing or damaged.
  """
  return _Loader(definition.data, _open(definition, root, split))


def fake_batch(definition: WorkloadDefinition, batch_size: int, seed: int) -> Batch:
  """Returns a training batch of generated tokens of four bytes each."""
  data = definition.data
  random = seeds.generator(seed, 'fake')
  shape = (batch_size, data.sequence_length + 1)
  tokens = random.integers(data.vocab_size, size=shape, dtype=np.int32)
  return _batch(data, tokens, np.full(data.vocab_size, 4, np.float32), separator_id=0)


class _Tokens(NamedTuple):
  """The windows of a split.

  Attributes:
    windows: uint16 or uint32 [n, length + 1].
    num_targets: tokens to predict in each window, int32 [n]; None if that is all but the first.
    num_bytes: bytes of text of each token, float32 [vocab_size].
    separator_id: number of the token that ends a document.
  """

  windows: np.ndarray
  num_targets: np.ndarray | None
  num_bytes: np.ndarray
  separator_id: int


class _Loader:
  """A loader that makes a batch of windows."""

  def __init__(self, data: TokenWindows, tokens: _Tokens):
    self._data = data
    self._tokens = tokens

  def __call__(self, rows: ShardRows) -> Batch:
    windows, num_targets, num_bytes, separator_id = self._tokens
    batch = _batch(self._data, np.take(windows, rows.indices, axis=0), num_bytes, separator_id)
    if rows.weights is not None:
      positions = np.arange(self._data.sequence_length)
      ends = len(positions) if num_targets is None else num_targets[rows.indices, None]
      weights = np.broadcast_to(positions < ends, batch['targets'].shape)
      batch['weights'] = weights.astype(np.float32)
    return batch


def _batch(
  data: TokenWindows, tokens: np.ndarray, num_bytes: np.ndarray, separator_id: int
) -> Batch:
  """Returns the batch of windows [batch, length + 1]."""
  inputs, targets = tokens[:, :-1].astype(np.int32), tokens[:, 1:].astype(np.int32)
  batch = {'inputs': inputs, 'targets': targets, 'target_bytes': np.take(num_bytes, targets)}
  if data.mask_documents:
    ends = inputs == separator_id
    batch['segments'] = np.cumsum(ends, axis=1, dtype=np.int32) - ends
  return batch


def _open(definition: WorkloadDefinition, root: Path, split: Stored) -> _Tokens:
  """Opens the windows of a split.

  Raises:
    UserError: the data is missing or damaged, or does not match the definition.
  """
  if definition.data.source == 'unicode_names':
    return _names(definition, split)
  prepared = records.open_prepared(root)
  found = prepared.field(f'{split}/windows')
  expected = (windows.num_windows(definition, split), definition.data.sequence_length + 1)
  if found.shape != expected:
    raise records.damaged(
      root,
      f'{definition.name} needs {expected[0]} windows of {expected[1]} tokens in its split '
      f'{split}, which holds {found.shape}',
    )
  sha256 = prepared.manifest['files'][vocabulary.FILE]['sha256']
  vocabulary.check_sha256(sha256, root / vocabulary.FILE, definition.data)
  num_bytes, separator_id = _num_bytes(root / vocabulary.FILE, definition.data, sha256)
  num_targets = None if split == 'train' else prepared.field(f'{split}/num_targets')
  return _Tokens(found, num_targets, num_bytes, separator_id)


@functools.lru_cache(maxsize=8)
def _num_bytes(path: Path, data: TokenWindows, _sha256: str) -> tuple[np.ndarray, int]:
  tokenizer = vocabulary.load(path, data)
  return tokenizer.num_bytes(), tokenizer.separator_id


def _names(definition: WorkloadDefinition, split: Stored) -> _Tokens:
  """Returns the names of characters, with one token for each character.

  Raises:
    UserError: the names or their number differ from the definition.
  """
  data = definition.data
  characters, streams = names.as_tokens(data.separator)
  if len(characters) != data.vocab_size:
    raise errors.UserError(
      f'{definition.name} must have {len(characters)} tokens, the characters of the names and the '
      f'separator; its vocab_size is {data.vocab_size}.'
    )
  stream, separator_id = streams[split], characters.index(data.separator)
  (part,) = windows.parts(definition, (split,), np.array([len(stream)]))
  blocks = list(windows.cut([stream], data, part.num_windows, separator_id))
  num_targets = windows.num_targets(data, part.num_windows, part.num_tokens)
  num_bytes = [0 if character == data.separator else 1 for character in characters]
  return _Tokens(np.concatenate(blocks), num_targets, np.array(num_bytes, np.float32), separator_id)
