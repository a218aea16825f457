"""Generated and right translations as texts, of which metrics are computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import records
from algorithmic_efficiency.metrics.metric import Outputs

from . import phrases, preparation, spelled_numbers, vocabulary
from .data_records import EOS_ID, PADDING_ID, SpelledNumbers

Decode = Callable[[Sequence[Sequence[int]]], list[str]]
"""Turns token numbers of sentences, without their ends, into texts."""


def sentences(rows: np.ndarray) -> list[list[int]]:
  """Returns the tokens of each row [batch, length] before its end and without padding."""
  found = []
  for row in np.asarray(rows):
    ends = np.flatnonzero(row == EOS_ID)
    own = row[: ends[0]] if len(ends) else np.trim_zeros(row, 'b')
    found.append(own.tolist())
  return found


@dataclass(frozen=True)
class Decoded:
  """Hypotheses, and references that are decoded from their tokens."""

  decode: Decode

  def __call__(self, outputs: Outputs, batch: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    hypotheses, references = sentences(outputs['tokens']), sentences(batch['targets'])
    return self.decode(hypotheses), self.decode(references)


@dataclass(frozen=True)
class Raw:
  """Hypotheses, and references as they were written: a text for each number in `pair`."""

  decode: Decode
  references: Sequence[str]

  def __call__(self, outputs: Outputs, batch: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    references = [self.references[number] for number in batch['pair'].tolist()]
    return self.decode(sentences(outputs['tokens'])), references


def raw_references(root: Path) -> list[str]:
  """Returns the target sentences of the held-out splits, by the numbers of their pairs."""
  prepared = records.open_prepared(root)
  return [
    text.tobytes().decode()
    for split in preparation.HELD_OUT
    if split in prepared.manifest['splits']
    for text in prepared.field(f'{split}/target_text')
  ]


def decoder(definition: WorkloadDefinition, root: Path | None) -> Decode:
  """Returns what turns the tokens of a prepared set into texts; None is for a smoke run."""
  if root is None:
    return _numbers
  if isinstance(definition.data, SpelledNumbers):
    pieces = spelled_numbers.tokens(definition.data, definition.splits).vocabulary
    return lambda rows: [phrases.joined([pieces[token] for token in row]) for row in rows]
  prepared = records.open_prepared(root)
  sha256 = prepared.manifest['files'][vocabulary.FILE]['sha256']
  return vocabulary.of_set(root, sha256, definition.data).decode


def _numbers(rows: Sequence[Sequence[int]]) -> list[str]:
  return [' '.join(str(token) for token in row if token != PADDING_ID) for row in rows]
