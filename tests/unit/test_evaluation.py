from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Target
from algorithmic_efficiency.metrics import derived
from algorithmic_efficiency.trial import evaluation

DEFINITION = dataclasses.replace(
  registry.workload('quick_vision').for_smoke(),
  metrics=('loss', 'ppl'),
  target=Target(metric='ppl', direction='min', validation=20.0),
)


def evaluate(sums, definition=DEFINITION, splits=('validation',), max_batches=None, seen=None):
  """An evaluation whose sums the backend gives; `seen` gets the batches of each split."""

  def eval_sums(workload, params, model_state, batches, key_data):
    batches = list(batches)
    if seen is not None:
      seen.append(batches)
    return {**sums, 'num_examples': (20.0, 1.0)}

  backend = SimpleNamespace(rank=0, world_size=1, eval_sums=eval_sums)
  workload = SimpleNamespace(definition=definition, eval_batch_size=8)
  return evaluation.evaluate(
    backend,
    workload,
    registry.task_of(definition),
    params=None,
    model_state=None,
    root=None,
    key_data=np.zeros(2, np.uint32),
    splits=splits,
    max_batches=max_batches,
  )


@pytest.fixture(autouse=True)
def no_stream(monkeypatch):
  monkeypatch.setattr(evaluation, '_stream', lambda *_: (batch for batch in 'abcd'))


def test_perplexity_is_that_of_the_whole_split_and_not_a_mean_of_perplexities():
  assert evaluate({'loss': (6.0, 3.0)}) == {
    'validation/loss': 2.0,
    'validation/ppl': math.exp(2.0),
    'validation/num_examples': 20,
  }


@pytest.mark.parametrize(('loss', 'expected'), [(1e4, math.inf), (math.inf, math.inf)])
def test_a_perplexity_beyond_floats_is_infinite_and_reaches_no_goal(loss, expected):
  ppl = evaluate({'loss': (loss, 1.0)})['validation/ppl']
  assert ppl == expected
  assert not DEFINITION.target.reached('validation', ppl)
  assert not dataclasses.replace(DEFINITION.target, validation=math.inf).reached('validation', ppl)


def test_a_loss_of_nothing_has_no_perplexity():
  assert math.isnan(evaluate({'loss': (0.0, 0.0)})['validation/ppl'])
  assert math.isnan(evaluate({'loss': (math.nan, 1.0)})['validation/ppl'])


def test_a_definition_without_perplexity_gets_none():
  definition = dataclasses.replace(
    DEFINITION, metrics=('loss',), target=dataclasses.replace(DEFINITION.target, metric='loss')
  )
  assert set(evaluate({'loss': (6.0, 3.0)}, definition)) == {
    'validation/loss',
    'validation/num_examples',
  }


def test_a_model_sums_what_is_not_derived():
  assert derived.summed(('loss', 'ppl', 'accuracy')) == ('loss', 'accuracy')


def test_a_partial_evaluation_takes_the_first_batches_of_each_split():
  seen: list[list[str]] = []
  sums = {'loss': (6.0, 3.0)}
  for max_batches in (None, 1, 3, 9):
    evaluate(sums, splits=('validation', 'test'), max_batches=max_batches, seen=seen)
  assert [''.join(batches) for batches in seen[::2]] == ['abcd', 'a', 'abc', 'abcd']
  assert seen[1::2] == seen[::2]


def test_the_training_split_has_its_own_prefix_and_no_number_of_examples():
  assert set(evaluate({'loss': (6.0, 3.0)}, splits=('eval_train', 'test'))) == {
    *('train/loss', 'train/ppl'),
    *('test/loss', 'test/ppl', 'test/num_examples'),
  }


def test_a_split_that_the_definition_lacks_is_left_out():
  splits = dataclasses.replace(DEFINITION.splits, test=None)
  definition = dataclasses.replace(DEFINITION, splits=splits)
  found = evaluate({'loss': (6.0, 3.0)}, definition, splits=('validation', 'test'))
  assert {name.split('/')[0] for name in found} == {'validation'}
