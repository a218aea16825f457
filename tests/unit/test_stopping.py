"""When a trial is evaluated and when it stops: each boundary from both sides."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from fake_trial import rules, step_rules

from algorithmic_efficiency import errors, trust
from algorithmic_efficiency.benchmark.definition import Budget, Generation, Target
from algorithmic_efficiency.benchmark.suites import SUITES
from algorithmic_efficiency.clock import Stopwatch
from algorithmic_efficiency.trial import stopping
from algorithmic_efficiency.trial.position import Position
from algorithmic_efficiency.trial.run_options import RunOptions

BELOW = math.nextafter(10.0, 0.0)


def limit(given, *, complete: bool = False, spent_sec: float = 0.0, **position) -> str | None:
  return stopping.limit_reached(given, Position(**position), complete=complete, spent_sec=spent_sec)


class TestLimits:
  @pytest.mark.parametrize(
    ('spent_sec', 'reason'), [(0.0, None), (BELOW, None), (10.0, 'budget_spent')]
  )
  def test_a_budget_in_seconds_is_spent_with_its_last_second(self, spent_sec, reason):
    assert limit(rules(max_sec=10.0), spent_sec=spent_sec, charged_steps=10**9) == reason

  @pytest.mark.parametrize(
    ('charged_steps', 'reason'), [(19, None), (20, 'budget_spent'), (21, 'budget_spent')]
  )
  def test_a_budget_in_steps_is_spent_with_its_last_step(self, charged_steps, reason):
    given = step_rules(max_steps=20)
    assert limit(given, charged_steps=charged_steps, spent_sec=1e9) == reason

  @pytest.mark.parametrize(
    ('global_step', 'reason'), [(6, None), (7, 'step_limit'), (8, 'step_limit')]
  )
  @pytest.mark.parametrize('given', [rules(max_global_steps=7), step_rules(max_global_steps=7)])
  def test_the_step_limit_counts_updates(self, given, global_step, reason):
    assert limit(given, global_step=global_step) == reason

  def test_without_a_budget_nothing_is_spent(self):
    assert limit(rules(max_sec=None), spent_sec=1e9, charged_steps=10**9) is None
    assert limit(step_rules(max_steps=None), spent_sec=1e9, charged_steps=10**9) is None

  def test_what_the_submission_says_comes_first_and_the_step_limit_second(self):
    given = rules(max_global_steps=7)
    assert limit(given, complete=True, global_step=7, spent_sec=10.0) == 'training_complete'
    assert limit(given, global_step=7, spent_sec=10.0) == 'step_limit'

  @pytest.mark.parametrize(
    ('given', 'reason', 'at_once'),
    [
      (rules(), 'budget_spent', True),
      (rules(), 'step_limit', False),
      (rules(), None, False),
      (step_rules(), 'budget_spent', False),
    ],
  )
  def test_only_a_budget_in_seconds_ends_a_trial_unevaluated(self, given, reason, at_once):
    assert stopping.ends_without_evaluation(given, reason) is at_once


def due(given, *, since_eval_sec: float = 0.0, global_step: int = 9, **position) -> bool:
  position = Position(global_step=global_step, **position)
  return stopping.evaluation_due(given, position, since_eval_sec=since_eval_sec)


class TestEvaluationDue:
  @pytest.mark.parametrize(('since', 'expected'), [(BELOW, False), (10.0, True), (11.0, True)])
  def test_a_period_in_seconds_has_passed_with_its_last_second(self, since, expected):
    assert due(rules(eval_period_sec=10.0), since_eval_sec=since) is expected

  @pytest.mark.parametrize(('charged_steps', 'expected'), [(14, False), (15, True), (16, True)])
  def test_a_period_in_steps_has_passed_with_its_last_step(self, charged_steps, expected):
    given = step_rules(period=5)
    found = due(given, charged_steps=charged_steps, next_eval_steps=15, since_eval_sec=1e9)
    assert found is expected

  @pytest.mark.parametrize('given', [rules(), step_rules()])
  @pytest.mark.parametrize(('global_step', 'expected'), [(1, True), (2, False)])
  def test_step_one_is_evaluated_whatever_the_period(self, given, global_step, expected):
    assert due(given, global_step=global_step, next_eval_steps=5) is expected

  @pytest.mark.parametrize(
    ('global_step', 'expected'), [(1, False), (2, False), (3, True), (4, False)]
  )
  def test_given_steps_stand_instead_of_the_periods(self, global_step, expected):
    given = rules(eval_steps=(3, 8))
    assert due(given, global_step=global_step, since_eval_sec=1e9) is expected

  def test_a_trial_without_evaluations_has_none_due(self):
    given = rules(evaluate=False, eval_steps=(1,))
    assert not due(given, global_step=1, since_eval_sec=1e9)

  @pytest.mark.parametrize(
    ('charged_steps', 'expected'), [(1, 5), (4, 5), (5, 10), (9, 10), (10, 15), (23, 25)]
  )
  def test_the_next_evaluation_is_at_the_next_multiple_of_the_period(self, charged_steps, expected):
    position = Position(charged_steps=charged_steps)
    assert stopping.next_eval_steps(step_rules(period=5), position) == expected

  def test_without_a_period_in_steps_none_is_planned(self):
    position = Position(charged_steps=7, next_eval_steps=3)
    assert stopping.next_eval_steps(rules(), position) == 3


class TestPartialEvaluations:
  def test_every_nth_is_full_and_so_are_the_first_and_the_last(self):
    given = step_rules(full_eval_every=3)
    partial = [stopping.is_partial(given, Position(num_evals=n), None) for n in range(1, 8)]
    assert partial == [False, True, True, False, True, True, False]
    assert not stopping.is_partial(given, Position(num_evals=2), 'budget_spent')

  def test_without_a_number_all_are_full(self):
    assert not any(
      stopping.is_partial(step_rules(), Position(num_evals=n), None) for n in range(1, 9)
    )

  @pytest.mark.parametrize(
    ('direction', 'value', 'expected'),
    [
      ('max', 0.49, True),
      ('max', 0.5, False),
      ('max', 0.51, False),
      ('min', 0.51, True),
      ('min', 0.5, False),
      ('min', 0.49, False),
      ('max', math.nan, False),
      ('min', math.inf, False),
      ('max', -math.inf, False),
    ],
  )
  def test_one_at_the_target_or_not_finite_calls_for_a_full_one(self, direction, value, expected):
    target = Target(metric='m', direction=direction, validation=0.5, test=None)
    assert stopping.decides_nothing(target, {'validation/m': value}) is expected


class TestGeneration:
  @pytest.mark.parametrize(
    ('every', 'expected'),
    [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 4]), (3, [0, 3]), (6, [0]), (None, [0])],
  )
  def test_every_nth_full_evaluation_and_the_first_and_the_last(self, every, expected):
    given = step_rules(generation=Generation(metrics=('m',), every=every))
    done = [Position(num_evals=99, eval_results=[(1, {})] * number) for number in range(6)]
    found = [n for n in range(6) if stopping.generates(given, done[n], None)]
    assert found == expected
    assert all(stopping.generates(given, position, 'budget_spent') for position in done)

  def test_where_no_metric_is_generated_none_does(self):
    assert not stopping.generates(step_rules(), Position(), 'budget_spent')
    assert not stopping.generates_for(step_rules(), 'm')
    given = step_rules(generation=Generation(metrics=('m',)))
    assert stopping.generates_for(given, 'm') and not stopping.generates_for(given, 'loss')

  def test_an_interval_generates_if_it_is_told_to(self):
    generation = Generation(metrics=('m',))
    given = step_rules(generation=generation)
    assert given.for_interval(3, evaluate=True).generation is None
    assert given.for_interval(3, evaluate=True, generate=True).generation == generation


class TestTargets:
  @pytest.mark.parametrize(
    ('validation', 'test', 'expected'),
    [
      (0.89, 0.79, (False, False)),
      (0.9, 0.79, (True, False)),
      (0.89, 0.8, (False, True)),
      (0.9, 0.8, (True, True)),
    ],
  )
  def test_each_split_has_its_own(self, validation, test, expected):
    target = Target(metric='m', direction='max', validation=0.9, test=0.8)
    values = {'validation/m': validation, 'test/m': test}
    assert stopping.targets_reached(target, values) == expected

  def test_a_split_that_was_not_evaluated_reaches_nothing(self):
    target = Target(metric='m', direction='max', validation=0.9, test=0.8)
    assert stopping.targets_reached(target, {'validation/m': 1.0}) == (True, False)

  @pytest.mark.parametrize(
    ('stop_at', 'validation', 'test', 'reason'),
    [
      ('both', True, True, 'targets_reached'),
      ('both', True, False, None),
      ('both', False, True, None),
      ('validation', True, True, 'targets_reached'),
      ('validation', True, False, 'validation_target_reached'),
      ('validation', False, True, None),
      ('never', True, True, None),
    ],
  )
  def test_what_they_end(self, stop_at, validation, test, reason):
    position = Position(validation_reached=validation, test_reached=test)
    assert stopping.target_reason(rules(stop_at=stop_at), position) == reason

  @pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
  def test_only_validation_tells_divergence(self, bad):
    assert stopping.is_finite({'validation/loss': 1e300, 'test/loss': bad, 'train/loss': bad})
    assert not stopping.is_finite({'validation/loss': 1.0, 'validation/accuracy': bad})


class TestInitialization:
  @pytest.mark.parametrize(('init_sec', 'charged'), [(119.0, 0.0), (120.0, 0.0), (150.0, 30.0)])
  def test_what_is_beyond_the_free_seconds_is_charged(self, init_sec, charged):
    assert stopping.charged_init_sec(rules(free_init_sec=120.0), init_sec) == charged

  @pytest.mark.parametrize('again', [110.0, 150.0, 160.0])
  def test_a_resumed_trial_pays_once(self, again):
    """Regression: it paid anew whenever it was resumed."""
    watch = Stopwatch(start=0.0, now=lambda: 0.0)
    watch.charge(stopping.charged_init_sec(rules(free_init_sec=120.0), again))
    watch.carry({'update': 10.0}, charged=30.0)
    assert watch.submission_time == 10.0 + max(30.0, again - 120.0)

  def test_on_the_step_axis_it_is_refused(self):
    given = step_rules(free_init_sec=120.0)
    assert stopping.charged_init_sec(given, 120.0) == 0.0
    with pytest.raises(trust.IntegrityError, match='they took 150 s'):
      stopping.charged_init_sec(given, 150.0)


class TestStepsThatRemain:
  @pytest.mark.parametrize('limit', [7, 3])
  def test_a_limit_that_leaves_no_step_is_refused(self, limit):
    """Regression: one more step was made."""
    with pytest.raises(errors.UserError, match=f'stands at step 7, so --max_global_steps {limit}'):
      stopping.check_steps_remain(rules(max_global_steps=limit), Position(global_step=7))

  @pytest.mark.parametrize(
    ('limit', 'reason'), [(8, None), (None, None), (7, 'step_limit'), (3, 'budget_spent')]
  )
  def test_one_that_leaves_a_step_or_has_ended_the_trial_is_not(self, limit, reason):
    position = Position(global_step=7, stop_reason=reason)
    stopping.check_steps_remain(rules(max_global_steps=limit), position)


def test_an_interval_ends_after_its_last_step_whatever_was_spent():
  for given in (rules(max_global_steps=5), step_rules(max_steps=2, period=1)):
    interval = given.for_interval(30, evaluate=True)
    assert limit(interval, global_step=29, charged_steps=10**9, spent_sec=1e9) is None
    assert limit(interval, global_step=30) == 'step_limit'
    assert not due(interval, global_step=29, charged_steps=29, since_eval_sec=1e9)
    assert interval.evaluate and not given.for_interval(30, evaluate=False).evaluate


@pytest.mark.parametrize('generate', [True, False])
def test_a_trial_without_outputs_has_no_rule_for_them(generate):
  """As in a calibration on a metric that needs none."""
  config = SimpleNamespace(options=RunOptions(generate=generate))
  generation = Generation(metrics=('m',))
  found = stopping.StoppingRules.of(config, SUITES['lite'], Budget(step_hint=1), generation)
  assert found.generation == (generation if generate else None)
