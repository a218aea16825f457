"""Parallel text in small, and definitions of translation that are prepared from it."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import (
  BatchSizes,
  Smoke,
  Splits,
  WorkloadDefinition,
)
from algorithmic_efficiency.data import prepare as preparing
from algorithmic_efficiency.data import records
from workloads.nmt.data_records import ParallelText

SPLITS = Splits(train=60, eval_train=10, validation=9, test=7)
NAMES = {'train': 'train', 'validation': 'val', 'test': 'test_2016_flickr'}
_WORDS = """
  a:ein man:Mann woman:Frau dog:Hund child:Kind runs:läuft sits:sitzt jumps:springt on:auf in:in
  the:der street:Straße water:Wasser field:Feld with:mit red:rot
"""
_ENGLISH, _GERMAN = zip(*(pair.split(':') for pair in _WORDS.split()), strict=True)


def sentences(number: int, seed: int) -> tuple[list[str], list[str]]:
  """English and German sentences of 2 to 12 words, translated word by word."""
  random = np.random.default_rng(seed)
  drawn = [random.integers(len(_ENGLISH), size=random.integers(2, 13)) for _ in range(number)]
  return tuple(  # type: ignore[return-value]
    [' '.join(words[word] for word in one) + '.' for one in drawn] for words in (_ENGLISH, _GERMAN)
  )


def multi30k(**changes: Any) -> WorkloadDefinition:
  """English to German on a text of its own, with the vocabulary of this repository."""
  data = ParallelText(
    source_language='en',
    target_language='de',
    vocab_size=4_000,
    max_length=64,
    bucket=16,
    vocabulary='shipped',
  )
  return _definition('multi30k', replace(data, **changes))


def wmt(**changes: Any) -> WorkloadDefinition:
  """German to English on a text of its own, with a vocabulary of 60 pieces."""
  data = ParallelText(
    source_language='de',
    target_language='en',
    vocab_size=60,
    max_length=90,
    bucket=16,
    long_pairs='left_out',
  )
  return _definition('wmt', replace(data, **changes))


def _definition(dataset: str, data: ParallelText) -> WorkloadDefinition:
  return replace(
    registry.workload('wmt'),
    dataset=dataset,
    data=data,
    splits=SPLITS,
    batch_sizes=BatchSizes(train=4, eval=4),
    smoke=Smoke(model=None),
    tfds={'train': 'tiny_wmt17/de-en:1.0.0', 'heldout': 'tiny_wmt14/de-en:1.0.0'},
  )


def write(folder: Path, lines: Sequence[str], name: str) -> Path:
  """Writes lines to a file, packed if its name ends so."""
  folder.mkdir(parents=True, exist_ok=True)
  content = ''.join(f'{line}\n' for line in lines).encode()
  path = folder / name
  path.write_bytes(gzip.compress(content, mtime=0) if name.endswith('.gz') else content)
  return path


def write_all(folder: Path, ending: str = '', names: dict[str, str] = NAMES) -> Path:
  """Writes the text of all splits, two files each, and returns the folder."""
  for seed, (split, name) in enumerate(names.items()):
    english, german = sentences(getattr(SPLITS, split), seed)
    write(folder, english, f'{name}.en{ending}')
    write(folder, german, f'{name}.de{ending}')
  return folder


def prepare(
  definition: WorkloadDefinition, data_dir: Path, source: Path | None, **options: Any
) -> records.Prepared:
  return preparing.prepare(
    definition,
    data_dir,
    source=source,
    **{'from_tfds': False, 'overwrite': False, 'progress': lambda *_: None, **options},
  )
