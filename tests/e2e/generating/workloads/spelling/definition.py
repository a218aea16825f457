"""Numbers are spelled digit by digit: 1 0 7 becomes one zero seven."""

from __future__ import annotations

from dataclasses import dataclass

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
class Numbers:
  """A number has `length` digits."""

  length: int = 5


_SPELLING = WorkloadDefinition(
  name='spelling',
  task='spelling',
  summary='Numbers in words, linear model: accuracy',
  dataset='spelling',
  bundled=True,
  model=None,
  data=Numbers(),
  loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
  metrics=('accuracy', 'bleu', 'loss'),
  target=Target(metric='accuracy', direction='max', validation=1.0, test=1.0),
  suites={'quick': Budget(step_hint=60, max_steps=60, eval_period_steps=4)},
  splits=Splits(train=256, eval_train=20, validation=50, test=50),
  batch_sizes=BatchSizes(train=16, eval=16),
  smoke=Smoke(model=None),
  generation=Generation(metrics=('bleu',), every=3, max_examples=40),
  target_source='made up for a test',
)
_BLEU = variant(
  _SPELLING,
  name='spelling_bleu',
  suites=_SPELLING.suites,
  target=Target(metric='bleu', direction='max', validation=99.0, test=99.0),
  generation=Generation(metrics=('bleu',)),
)
WORKLOADS = {one.name: one for one in (_SPELLING, _BLEU)}
