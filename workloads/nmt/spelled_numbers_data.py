"""Numbers, dates and times in words, English to German: generated, so that nothing is downloaded.

`batches.py` says what a batch has, and `spelled_numbers.py` what the tokens are.
"""

from __future__ import annotations

import functools
from pathlib import Path

from algorithmic_efficiency.benchmark.definition import Splits, WorkloadDefinition
from algorithmic_efficiency.data.packing import Packed
from algorithmic_efficiency.data.pipeline import Batch

from . import batches, spelled_numbers
from .data_records import SpelledNumbers


def loader(definition: WorkloadDefinition, root: Path | None, split: str) -> batches.Pairs | Packed:
  """Returns the loader of a split; it needs no files.

  Raises:
    UserError: the phrases or their pieces differ from those of the definition.
  """
  pairs = _pairs(definition.data, definition.splits, split)
  return pairs.packed() if split == 'train' else pairs


def fake_batch(definition: WorkloadDefinition, batch_size: int, seed: int) -> Batch:
  """Returns a training batch of generated tokens."""
  return batches.fake_packed(definition.data, batch_size, seed)


def fake_eval_batch(definition: WorkloadDefinition, batch_size: int, seed: int) -> Batch:
  """Returns an evaluation batch of generated tokens."""
  return batches.fake_padded(definition.data, batch_size, seed)


@functools.lru_cache(maxsize=4)
def _pairs(data: SpelledNumbers, splits: Splits, split: str) -> batches.Pairs:
  """Returns the pairs of a split; each evaluation opens it anew."""
  source, target = spelled_numbers.tokens(data, splits).sides[split]
  return batches.Pairs(
    source,
    target,
    data=data,
    num_evaluated=splits.eval_train if split == 'train' else len(source),
  )
