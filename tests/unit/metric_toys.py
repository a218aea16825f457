"""A task whose metrics are of every kind, for both frameworks: the toy's model, more to evaluate.

`loss` is a mean, `accuracy` one for each class, `histogram` a tree of counts, `average_precision`
needs the scores of the whole split at once, and `bleu`, where its package is installed, is that of
generated words.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from types import SimpleNamespace
from typing import Any

import jax_toy
import numpy as np

from algorithmic_efficiency.backends.base import TaskCode
from algorithmic_efficiency.benchmark.definition import (
  BatchSizes,
  Generation,
  Probe,
  Splits,
  WorkloadDefinition,
)
from algorithmic_efficiency.metrics.bleu import Bleu
from algorithmic_efficiency.metrics.means import ByDomain
from algorithmic_efficiency.metrics.metric import OfSums
from algorithmic_efficiency.trial import evaluation

BUDGET, batch = jax_toy.BUDGET, jax_toy.batch
PARTS = ('red', 'green', 'blue')
WORDS = np.array(['one', 'two', 'three', 'four', 'five'])
NUM_WORDS = 6
HAS_BLEU = importlib.util.find_spec('sacrebleu') is not None
METRICS = ('loss', 'accuracy', 'histogram', 'average_precision', *(['bleu'] if HAS_BLEU else []))


def definition(batch_size: int = 16, **changes: Any) -> WorkloadDefinition:
  fields: dict[str, Any] = {
    'metrics': METRICS,
    'generation': Generation(metrics=('bleu',), max_examples=29) if HAS_BLEU else None,
    'splits': Splits(train=64, eval_train=16, validation=50, test=12),
    'batch_sizes': BatchSizes(train=16, eval=batch_size),
    'probes': {'faint': Probe(num_examples=20, metrics=('accuracy', 'bleu'))},
  }
  return jax_toy.definition(**{**fields, **changes})


class AveragePrecision:
  """Of the examples of class 0, ranked by their scores over the whole split; ties in its order."""

  outputs = ('scores',)

  def update(self, state, outputs, batch):
    rows = [*zip(outputs['scores'].tolist(), batch['targets'].tolist(), strict=True)]
    return [*(state or []), *rows]

  def merge(self, states):
    return [row for state in states for row in state]

  def compute(self, sums, state):
    ranked = sorted(state, key=lambda row: (-row[0], row[1]))
    hits = np.array([target == 0 for _, target in ranked])
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    return {'average_precision': float(precision[hits].mean())}


class Histogram(OfSums):
  """How often the model says each class, and how often it is so."""

  def compute(self, sums, state):
    found = sums['histogram']
    return {
      f'histogram/{kind}_{part}': float(number)
      for kind in ('said', 'is')
      for part, number in zip(PARTS, found[kind], strict=True)
    }


def texts(outputs, batch):
  references = (batch['targets'][:, None] + np.arange(NUM_WORDS)) % len(WORDS)
  return [[' '.join(WORDS[row]) for row in rows] for rows in (outputs['words'], references)]


def metrics(definition, root):
  return {
    'accuracy': ByDomain('accuracy', PARTS),
    'histogram': Histogram(),
    'average_precision': AveragePrecision(),
    'bleu': Bleu(texts=texts, outputs=('words',)),
  }


def task(base: TaskCode, framework: str) -> TaskCode:
  """The toy task of a framework with more in its `eval_step`, and with `generate`."""
  one_hot, arange = {'jax': _jax_numpy, 'pytorch': _torch}[framework]()
  code = base.model

  def eval_step(definition, batch, logits):
    sums, _ = code.eval_step(definition, batch, logits)
    weights = batch['weights'][:, None]
    said, true = one_hot(logits.argmax(-1)), one_hot(batch['targets'])
    sums['accuracy'] = ((said * true * weights).sum(0), (true * weights).sum(0))
    sums['histogram'] = {'said': (said * weights).sum(0), 'is': (true * weights).sum(0)}
    return sums, {'scores': logits[:, 0], 'unread': logits}

  def generate(definition, model, batch, *, is_last):
    logits = code.forward(model, batch, train=False, use_running_average=True, dropout_rate=0.0)
    first = logits.argmax(-1)[:, None] + (batch['inputs'][:, :1] > 0)
    return {'words': (first + arange(NUM_WORDS) + is_last) % len(WORDS)}

  model = SimpleNamespace(**{**vars(code), 'eval_step': eval_step, 'generate': generate})
  given = SimpleNamespace(metrics=metrics)
  return dataclasses.replace(base, model=model, metrics=given)  # type: ignore[arg-type]


def _jax_numpy() -> Any:
  import jax

  return lambda x: jax.nn.one_hot(x, len(PARTS)), jax.numpy.arange


def _torch() -> Any:
  import torch
  from torch.nn import functional as F

  return lambda x: F.one_hot(x, len(PARTS)), torch.arange


def evaluate(backend: Any, base: TaskCode, params: Any, state: Any, size: int, **options: Any):
  """The numbers of the validation split of generated data, in batches of `size`."""
  chosen = options.pop('definition', None) or definition(size)
  code = options.pop('code', None) or task(base, backend.name)
  workload = backend.workload(chosen, code, jax_toy.BUDGET)
  return evaluation.evaluate(
    backend,
    workload,
    code,
    params=params,
    model_state=state,
    root=None,
    key_data=np.array([1, 2], np.uint32),
    **{'splits': ('validation',), 'is_last': False, **options},
  )
