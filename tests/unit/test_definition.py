"""What a definition says of targets, budgets and itself, on both sides of each boundary."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import (
  METRIC_RANGES,
  BatchSizes,
  Budget,
  Generation,
  Probe,
  Splits,
  Target,
  variant,
)
from algorithmic_efficiency.spec import LossType

BASE = registry.workload('quick_vision')


class TestTarget:
  @pytest.mark.parametrize('split', ['validation', 'test'])
  @pytest.mark.parametrize(('direction', 'better'), [('max', math.inf), ('min', -math.inf)])
  def test_a_value_equal_to_it_reaches_it_and_the_next_worse_one_does_not(
    self, direction, better, split
  ):
    target = Target(metric='loss', direction=direction, validation=0.3, test=0.3)
    assert target.reached(split, 0.3)
    assert target.reached(split, math.nextafter(0.3, better))
    assert not target.reached(split, math.nextafter(0.3, -better))

  @pytest.mark.parametrize('direction', ['max', 'min'])
  def test_each_split_has_a_target_of_its_own(self, direction):
    target = Target(metric='loss', direction=direction, validation=1.0, test=2.0)
    is_max = direction == 'max'
    assert target.reached('validation', 1.5) == is_max
    assert target.reached('test', 1.5) != is_max

  @pytest.mark.parametrize('direction', ['max', 'min'])
  @pytest.mark.parametrize('value', [None, math.nan, math.inf, -math.inf])
  def test_what_is_not_finite_reaches_none(self, direction, value):
    target = Target(metric='loss', direction=direction, validation=0.0, test=0.0)
    assert not target.reached('validation', value)
    assert not target.reached('test', value)

  @pytest.mark.parametrize('value', [None, math.nan, 0.0])
  def test_without_a_test_target_the_test_split_counts_as_reached(self, value):
    target = Target(metric='loss', direction='max', validation=1.0)
    assert target.reached('test', value)
    assert not target.reached('validation', value)

  @pytest.mark.parametrize('direction', ['max', 'min'])
  def test_an_array_is_judged_by_the_same_rule(self, direction):
    target = Target(metric='accuracy', direction=direction, validation=0.5)
    near = (math.nextafter(0.5, 0.0), 0.5, math.nextafter(0.5, 1.0))
    values = np.array([-1.0, -1e-7, 0.0, *near, 1.0, 1 + 1e-7, 9.99, math.nan, math.inf])
    one_by_one = [target.reached('validation', float(value)) for value in values]
    assert target.reached_on_validation(values).tolist() == one_by_one
    assert sum(one_by_one) == 4

  @pytest.mark.parametrize(
    ('metric', 'possible', 'impossible'),
    [
      ('accuracy', (0.0, 1.0, 1 + 1e-7), (1.01, -0.01, 9.99, 1e300)),
      ('bleu', (0.0, 100.0, 100 + 1e-5), (100.01, -0.01)),
      ('ssim', (-1.0, 1.0), (-1.01, 1.01)),
      ('wer', (0.0, 1e9), (-0.01,)),
      ('ppl', (1.0, 1e9), (0.99, 0.0)),
      ('a metric that nobody knows', (-1e300, 1e300), (math.nan, math.inf)),
    ],
  )
  def test_a_value_that_the_metric_cannot_have_reaches_nothing(self, metric, possible, impossible):
    for direction, validation in (('max', -math.inf), ('min', math.inf)):
      target = Target(metric=metric, direction=direction, validation=validation)
      assert all(target.reached('validation', value) for value in possible)
      assert not any(target.reached('validation', value) for value in impossible)

  @pytest.mark.parametrize('name', sorted(registry.workloads()))
  def test_the_range_of_every_raced_metric_is_known_and_holds_its_target(self, name):
    target = registry.workloads()[name].target
    assert target.metric in METRIC_RANGES and target.is_possible(target.validation)


class TestBudget:
  @pytest.mark.parametrize(
    'name', ['step_hint', 'max_sec', 'eval_period_sec', 'max_steps', 'eval_period_steps']
  )
  def test_limits_are_positive(self, name):
    for wrong in (0, -1, math.nan):
      with pytest.raises(ValueError, match=f'must be positive: {name} is {wrong}'):
        Budget(**{'step_hint': 1, name: wrong})
    assert getattr(Budget(**{'step_hint': 1, name: 1}), name) == 1

  @pytest.mark.parametrize(
    ('max_steps', 'period'), [(1, 1), (40, 1), (59, 1), (61, 2), (400, 10), (4_000, 100)]
  )
  def test_forty_evaluations_are_spread_over_the_steps(self, max_steps, period):
    assert Budget(step_hint=1, max_steps=max_steps).eval_period_steps == period

  def test_a_period_that_is_given_is_kept(self):
    assert Budget(step_hint=1, max_steps=400, eval_period_steps=7).eval_period_steps == 7
    assert Budget(step_hint=1, max_sec=400.0).eval_period_steps is None


# Each field with another value; those of no account for results are named apart.
CHANGES = {
  'name': 'another',
  'task': 'another',
  'base': 'another',
  'dataset': 'another',
  'bundled': not BASE.bundled,
  'tfds': 'another',
  'model': dataclasses.replace(BASE.model, bn_epsilon=1e-3),
  'data': 'another',
  'loss_type': LossType.MEAN_SQUARED_ERROR,
  'metrics': (*BASE.metrics, 'another'),
  'target': dataclasses.replace(BASE.target, validation=0.123),
  'suites': {},
  'splits': dataclasses.replace(BASE.splits, test=1),
  'batch_sizes': dataclasses.replace(BASE.batch_sizes, eval=1),
  'output_params': {},
  'dropout_rate': 0.123,
  'accelerator_dtype': 'bfloat16',
  'train_mean': (0.123,),
  'train_stddev': (0.123,),
  'frozen_params': {'jax': ('Dense_0',)},
  'task_names': ('a', 'b'),
  'generation': Generation(metrics=('loss',)),
  'aux_dropout_rates': {'quick': 0.123},
}
OF_NO_ACCOUNT = {
  'summary': 'another',
  'target_source': 'another',
  'smoke': None,
  'probes': {'rotated': Probe(num_examples=1, metrics=('loss',))},
  'independent_examples': not BASE.independent_examples,
}


def test_the_hash_is_that_of_every_field_that_affects_results():
  assert {*CHANGES, *OF_NO_ACCOUNT} == {field.name for field in dataclasses.fields(BASE)}
  hashes = {
    name: dataclasses.replace(BASE, **{name: value}).content_hash()
    for name, value in {**CHANGES, **OF_NO_ACCOUNT}.items()
  }
  assert {name for name in hashes if hashes[name] == BASE.content_hash()} == {*OF_NO_ACCOUNT}


def test_smoke_changes_sizes_and_nothing_else():
  small = BASE.for_smoke()
  assert small.batch_sizes == BatchSizes(train=8, eval=8)
  assert small.splits == Splits(train=64, eval_train=16, validation=20, test=12)
  assert small.model == BASE.smoke.model
  sizes = {name: getattr(BASE, name) for name in ('model', 'data', 'splits', 'batch_sizes')}
  assert dataclasses.replace(small, **sizes) == BASE
  with pytest.raises(ValueError, match='quick_vision has no smoke record'):
    dataclasses.replace(BASE, smoke=None).for_smoke()


def test_the_metric_of_the_target_is_one_of_the_metrics():
  with pytest.raises(ValueError, match="must be one of accuracy; it is 'loss'"):
    target = Target(metric='loss', direction='min', validation=1.0)
    dataclasses.replace(BASE, metrics=('accuracy',), target=target)


def test_a_variant_is_scored_only_where_it_is_held_out():
  suites = {name: Budget(step_hint=1, max_steps=1) for name in ('one', 'two')}
  base = dataclasses.replace(BASE, suites=suites)
  found = variant(base, name='changed', held_out_in=('two',), dropout_rate=0.5)
  assert {name: budget.role for name, budget in found.suites.items()} == {
    'one': 'extra',
    'two': 'held_out',
  }
  assert (found.base, found.is_variant, base.is_variant) == (BASE.name, True, False)
  assert variant(base, name='own', suites={'one': suites['one']}).suites['one'].role == 'base'


class TestGeneration:
  def test_a_target_on_a_generated_metric_is_generated_in_each_evaluation(self):
    metrics = (*BASE.metrics, 'bleu')
    target = Target(metric='bleu', direction='max', validation=20.0, test=20.0)
    generation = Generation(metrics=('bleu',))
    dataclasses.replace(BASE, metrics=metrics, target=target, generation=generation)
    for wrong in ({'every': 2}, {'every': None}, {'splits': ('validation',)}):
      with pytest.raises(ValueError, match='each evaluation generates'):
        dataclasses.replace(
          BASE, metrics=metrics, target=target, generation=dataclasses.replace(generation, **wrong)
        )
    dataclasses.replace(
      BASE, metrics=metrics, generation=dataclasses.replace(generation, every=None)
    )

  def test_its_metrics_are_among_those_of_the_definition(self):
    with pytest.raises(ValueError, match="loss, accuracy; one is 'bleu'"):
      dataclasses.replace(BASE, generation=Generation(metrics=('bleu',)))

  @pytest.mark.parametrize('wrong', [{'every': 0}, {'max_examples': 0}, {'splits': ()}])
  def test_its_numbers_are_positive(self, wrong):
    with pytest.raises(ValueError, match='at least'):
      Generation(metrics=('bleu',), **wrong)


def test_a_probe_has_no_name_of_a_split():
  with pytest.raises(ValueError, match='one is eval_train'):
    dataclasses.replace(BASE, probes={'eval_train': Probe(num_examples=1, metrics=('loss',))})


@pytest.mark.parametrize(
  ('wrong', 'said'),
  [
    (lambda: Probe(num_examples=0, metrics=('loss',)), 'num_examples is 0'),
    (lambda: Probe(num_examples='4', metrics=('loss',)), "num_examples is '4'"),
    (lambda: Probe(num_examples=4, metrics=()), 'a metric at least'),
    (lambda: Probe(num_examples=4, metrics='loss'), "tuple of names; it is 'loss'"),
    (lambda: Splits(train=0, eval_train=0, validation=1, test=1), 'train is 0'),
    (lambda: Splits(train=4, eval_train=2, validation=1.5, test=1), 'validation is 1.5'),
    (lambda: Splits(train=4, eval_train=5, validation=1, test=None), 'part of train, of 4 .* 5'),
    (lambda: Splits(train=4, eval_train=2, validation=1, test=0), 'test is 0'),
    (lambda: BatchSizes(train=0, eval=1), 'train is 0'),
    (lambda: BatchSizes(train=1, eval='8'), "eval is '8'"),
    (lambda: Generation(metrics='bleu'), "tuple of names; it is 'bleu'"),
    (lambda: Generation(metrics=('bleu',), splits=('valid',)), "one is 'valid'"),
  ],
)
def test_sizes_are_positive_and_names_are_tuples(wrong, said):
  with pytest.raises(ValueError, match=said):
    wrong()


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'name': 'my workload'}, "letters, digits, _ and -; one is 'my workload'"),
    ({'name': '../mine'}, 'letters, digits, _ and -'),
    ({'metrics': 'accuracy'}, "metrics must be a tuple of names; it is 'accuracy'"),
    ({'metrics': ('accuracy', 'loss', 'loss')}, 'metrics must name each once'),
    ({'metrics': (*BASE.metrics, 'num_examples')}, 'no metric may have that name'),
    ({'task_names': ['a', 'b']}, 'task_names must be a tuple of names'),
    ({'frozen_params': ('fc',)}, 'frozen_params must be names by framework'),
    ({'frozen_params': {'torch': ('fc',)}}, 'frozen_params must be names by framework'),
    ({'frozen_params': {'pytorch': 'fc'}}, "frozen_params of pytorch .* it is 'fc'"),
    ({'output_params': {'jax': 'fc'}}, "output_params of jax .* it is 'fc'"),
    ({'probes': {'a/b': Probe(num_examples=1, metrics=('loss',))}}, "one is 'a/b'"),
  ],
)
def test_names_are_such_that_files_and_flags_can_have_them(changes, said):
  with pytest.raises(ValueError, match=said):
    dataclasses.replace(BASE, **changes)
