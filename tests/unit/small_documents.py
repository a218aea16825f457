"""Documents in parquet files, in small, and a definition that is prepared from them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Splits, WorkloadDefinition
from algorithmic_efficiency.data import prepare as preparing
from algorithmic_efficiency.data import records

WORDS = (
  'the',
  'then',
  'there',
  'café',
  'naïve',
  '日本',
  "don't",
  '1999',
  '  ',
  '\r\n',
  '🙂',
  'Ünder',
)
SPLITS = Splits(train=24, eval_train=4, validation=6, test=None)


def texts(number: int, seed: int = 0) -> list[str]:
  """Documents of 1 to 40 words; the first is empty, the second looks like the separator."""
  random = np.random.default_rng(seed)
  drawn = [' '.join(random.choice(WORDS, random.integers(1, 40))) for _ in range(number - 2)]
  return ['', 'a<|endoftext|>b', *drawn]


def definition(**changes: Any) -> WorkloadDefinition:
  """A workload on a set of its own: windows of 17 tokens, a vocabulary of 300 that is trained."""
  base = registry.workload('books_lm')
  data = dataclasses.replace(
    base.data,
    source='parquet',
    vocab_size=300,
    sequence_length=16,
    vocabulary_sha256='',
  )
  data = dataclasses.replace(data, **changes)
  return dataclasses.replace(base, dataset='small', data=data, splits=SPLITS)


def write(path: Path, documents: Sequence[str | None], row_group_size: int = 7) -> Path:
  import pyarrow
  import pyarrow.parquet

  path.parent.mkdir(parents=True, exist_ok=True)
  text = pyarrow.array(documents, pyarrow.string())
  table = pyarrow.table({'id': list(range(len(documents))), 'text': text})
  pyarrow.parquet.write_table(table, path, row_group_size=row_group_size)
  return path


def prepare(
  workload: WorkloadDefinition, data_dir: Path, source: Path | None, **options: Any
) -> records.Prepared:
  return preparing.prepare(
    workload,
    data_dir,
    source=source,
    **{'from_tfds': False, 'overwrite': False, 'progress': lambda *_: None, **options},
  )


def two_files(tokenizer_file: Path, folder: Path) -> None:
  """Writes a tokenizer in the older form, `vocab.json` and `merges.txt`."""
  model = json.loads(tokenizer_file.read_text())['model']
  (folder / 'vocab.json').write_text(json.dumps(model['vocab']))
  (folder / 'merges.txt').write_text('\n'.join(['#version: 0.2', *model['merges'], '']))
