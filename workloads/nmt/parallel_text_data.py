"""Pairs of sentences from parallel text.

`batches.py` says what a batch has. An evaluation batch has also `pair`, int32 [batch]: the number
of the pair, by which metrics find its reference as it was written.

A prepared set has these fields, and its vocabulary in `sentencepiece.model`:

- `<split>/inputs`, `<split>/targets`: tokens of each sentence, uint16 or uint32; both are empty in
  a pair that is left out, as a sentence of it is too long.
- `validation/target_text`, `test/target_text`: the target sentences in UTF-8.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.definition import Splits, WorkloadDefinition
from algorithmic_efficiency.data import random_numbers, records
from algorithmic_efficiency.data.packing import Packed
from algorithmic_efficiency.data.pipeline import Batch
from algorithmic_efficiency.data.prepare import Progress, Source

from . import batches, places, preparation, vocabulary
from .data_records import ParallelText

_SUBSET_SEED = 0


def about(definition: WorkloadDefinition) -> records.About:
  """Returns origin, license and size of the data set."""
  return places.about(definition.dataset)


def prepare(
  definition: WorkloadDefinition, source: Source, out: records.Writer, progress: Progress
) -> None:
  """Writes the pairs of each split as tokens.

  Args:
    source: a folder with parallel text, or one that AlgoPerf or TensorFlow Datasets has filled; the
      builders of the latter; or None to download the text. A vocabulary that is not shipped is read
      from the folder, or trained.

  Raises:
    UserError: a file is missing, damaged, not UTF-8 or has another number of lines; or a sentence
      is too long. The text or the vocabulary is not that of the definition; or a package is
      missing.
  """
  preparation.fill(definition, source, out, progress)


def loader(definition: WorkloadDefinition, root: Path, split: str) -> batches.Pairs | Packed:
  """Returns the loader of a stored split.

  Raises:
    UserError: the data is missing or damaged, or was prepared with other settings.
  """
  prepared = records.open_prepared(root)
  _check(prepared, definition.data)
  pairs = _pairs(prepared, definition.data, definition.splits, split)
  return pairs.packed() if split == 'train' else pairs


def fake_batch(definition: WorkloadDefinition, batch_size: int, seed: int) -> Batch:
  """Returns a training batch of generated tokens."""
  return batches.fake_packed(definition.data, batch_size, seed)


def fake_eval_batch(definition: WorkloadDefinition, batch_size: int, seed: int) -> Batch:
  """Returns an evaluation batch of generated tokens."""
  batch = batches.fake_padded(definition.data, batch_size, seed)
  return {**batch, 'pair': np.arange(batch_size, dtype=np.int32)}


@functools.lru_cache(maxsize=8)
def _pairs(
  prepared: records.Prepared, data: ParallelText, splits: Splits, split: str
) -> batches.Pairs:
  """Returns the pairs of a split; each evaluation opens it anew."""
  inputs, targets = (prepared.field(f'{split}/{side}') for side in batches.SIDES)
  chosen = None
  if split == 'train' and data.nested_subset:
    chosen = _subset(len(inputs), splits.train)
  held_out = {'validation': 0, 'test': splits.validation}
  return batches.Pairs(
    inputs,
    targets,
    data=data,
    num_evaluated=splits.eval_train if split == 'train' else len(inputs),
    chosen=chosen,
    first_number=held_out.get(split, splits.validation + (splits.test or 0)),
  )


def _subset(num_pairs: int, size: int) -> np.ndarray:
  """Returns the first pairs in an order of hashes of their numbers, int64 [size].

  The order depends on nothing else, so that a smaller subset is a part of each larger one.
  """
  numbers = np.arange(num_pairs)
  hashes = random_numbers.keys(_SUBSET_SEED, np.zeros_like(numbers), numbers)
  return np.argsort(hashes, kind='stable')[:size]


def _check(prepared: records.Prepared, data: ParallelText) -> None:
  """Compares the settings of a set with the definition, once.

  Raises:
    UserError: they differ, or the set has another vocabulary.
  """
  files = prepared.manifest['files']
  if not {preparation.SETTINGS, vocabulary.FILE} <= set(files):
    raise records.damaged(
      prepared.root, f'it must have {preparation.SETTINGS} and {vocabulary.FILE}'
    )
  _check_settings(prepared.root, files[preparation.SETTINGS]['sha256'], data)
  vocabulary.of_set(prepared.root, files[vocabulary.FILE]['sha256'], data)


@functools.lru_cache(maxsize=8)
def _check_settings(root: Path, _sha256: str, data: ParallelText) -> None:
  found = json.loads((root / preparation.SETTINGS).read_bytes())
  expected = preparation.settings(data)
  wrong = [name for name in expected if found.get(name) != expected[name]]
  if wrong:
    raise errors.UserError(
      f'The data set {root.name} must have been prepared with '
      f'{", ".join(f"{name}={expected[name]!r}" for name in wrong)}; it was with '
      f'{", ".join(f"{name}={found.get(name)!r}" for name in wrong)}. Give the workload a data set '
      f'of its own, or prepare it again: {records.prepare_line(root, "--overwrite")}'
    )
