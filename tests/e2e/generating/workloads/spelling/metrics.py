"""BLEU of the spelled numbers."""

from __future__ import annotations

from algorithmic_efficiency.metrics.bleu import Bleu

_WORDS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')


def metrics(definition, root):
  return {'bleu': Bleu(texts=_texts, outputs=('words',))}


def _texts(outputs, batch):
  return [_spelled(row) for row in outputs['words']], [_spelled(row) for row in batch['targets']]


def _spelled(row):
  return ' '.join(_WORDS[index] for index in row)
