"""Metrics of generated translations.

`bleu` and `chrf` compare with references that are decoded from their own tokens, as AlgoPerf does;
`bleu_raw` with references as they were written. The first is higher where the vocabulary normalizes
text, so only `bleu` is comparable with AlgoPerf's targets. A shipped vocabulary changes no text but
for repeated blanks, which BLEU does not see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import records
from algorithmic_efficiency.metrics.bleu import Bleu
from algorithmic_efficiency.metrics.chrf import ChrF
from algorithmic_efficiency.metrics.exact_match import ExactMatch
from algorithmic_efficiency.metrics.metric import Metric, Outputs

from . import phrases, preparation, spelled_numbers_data, vocabulary
from .data_records import EOS_ID, PADDING_ID, SpelledNumbers

_OUTPUTS = ('tokens',)

Decode = Callable[[Sequence[Sequence[int]]], list[str]]
"""Turns token numbers of sentences, without their ends, into texts."""


def metrics(definition: WorkloadDefinition, root: Path | None) -> dict[str, Metric]:
  """Returns the generated metrics of a definition, by name.

  All read `tokens` of `generate`, int32 [batch, length]: a translation goes to its first `EOS_ID`,
  or to its end.

  Args:
    root: folder of the prepared set; None in a smoke run, whose texts are token numbers.

  Raises:
    UserError: the set is missing or damaged, or a package is not installed.
  """
  decode = _decoder(definition, root)
  decoded = _Texts(decode)
  found: dict[str, Metric] = {
    'bleu': Bleu(texts=decoded, outputs=_OUTPUTS),
    'chrf': ChrF(texts=decoded, outputs=_OUTPUTS),
    'exact_match': ExactMatch(texts=decoded, outputs=_OUTPUTS),
  }
  if 'bleu_raw' in definition.metrics:
    raw = _Texts(decode) if root is None else _RawTexts(decode, raw_references(root))
    found['bleu_raw'] = Bleu(texts=raw, outputs=_OUTPUTS, name='bleu_raw')
  return {name: one for name, one in found.items() if name in definition.metrics}


def sentences(rows: np.ndarray) -> list[list[int]]:
  """Returns the tokens of each row [batch, length] before its end and without padding."""
  found = []
  for row in np.asarray(rows):
    ends = np.flatnonzero(row == EOS_ID)
    own = row[: ends[0]] if len(ends) else np.trim_zeros(row, 'b')
    found.append(own.tolist())
  return found


@dataclass(frozen=True)
class _Texts:
  """Hypotheses, and references that are decoded from their tokens."""

  decode: Decode

  def __call__(self, outputs: Outputs, batch: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    hypotheses, references = sentences(outputs['tokens']), sentences(batch['targets'])
    return self.decode(hypotheses), self.decode(references)


@dataclass(frozen=True)
class _RawTexts:
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


def _decoder(definition: WorkloadDefinition, root: Path | None) -> Decode:
  if root is None:
    return _numbers
  if isinstance(definition.data, SpelledNumbers):
    pieces = spelled_numbers_data.vocabulary(definition)
    return lambda rows: [phrases.joined([pieces[token] for token in row]) for row in rows]
  prepared = records.open_prepared(root)
  sha256 = prepared.manifest['files'][vocabulary.FILE]['sha256']
  return vocabulary.of_set(root, sha256, definition.data).decode


def _numbers(rows: Sequence[Sequence[int]]) -> list[str]:
  return [' '.join(str(token) for token in row if token != PADDING_ID) for row in rows]
