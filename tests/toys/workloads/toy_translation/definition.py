"""Sentences of an invented language, translated word by word: outputs are generated and scored."""

from __future__ import annotations

from dataclasses import dataclass, replace

from algorithmic_efficiency.benchmark.definition import (
  BatchSizes,
  Budget,
  Generation,
  Smoke,
  Splits,
  Target,
  WorkloadDefinition,
  variant,
)
from algorithmic_efficiency.spec import LossType


@dataclass(frozen=True, kw_only=True)
class WordByWord:
  """An embedding and a linear layer; each word is translated by itself."""

  dim: int = 16


@dataclass(frozen=True, kw_only=True)
class Sentences:
  """Sentences of 2 to `max_length` words; word 0 is padding."""

  vocab_size: int = 24
  max_length: int = 8


_METRICS = ('accuracy', 'loss', 'bleu')
_ACCURACY = Target(metric='accuracy', direction='max', validation=0.9, test=0.9)
_BASE = WorkloadDefinition(
  name='toy_translation',
  task='toy_translation',
  summary='Sentences translated word by word, scored by BLEU now and then: accuracy',
  dataset='toy_translation',
  bundled=True,
  model=WordByWord(),
  data=Sentences(),
  loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
  metrics=_METRICS,
  target=_ACCURACY,
  suites={'quick': Budget(step_hint=80, max_steps=80, eval_period_steps=5, role='extra')},
  splits=Splits(train=512, eval_train=24, validation=40, test=20),
  batch_sizes=BatchSizes(train=16, eval=16),
  smoke=Smoke(model=WordByWord(dim=4), data=Sentences(vocab_size=8, max_length=4)),
  output_params={'jax': ('Dense_0',), 'pytorch': ('out.weight', 'out.bias')},
  target_source='chosen, for tests',
  generation=Generation(metrics=('bleu',), every=4),
)
_BLEU = variant(
  _BASE,
  name='toy_translation_bleu',
  summary='Sentences translated word by word, in more dimensions: BLEU',
  model=WordByWord(dim=24),
  smoke=replace(_BASE.smoke, model=WordByWord(dim=8)),
  target=Target(metric='bleu', direction='max', validation=60.0, test=60.0),
  generation=Generation(metrics=('bleu',)),
)

WORKLOADS = {definition.name: definition for definition in (_BASE, _BLEU)}
