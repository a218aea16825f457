"""The timed loop, with a clock that is set by hand."""

from __future__ import annotations

import math
import time
import weakref

import pytest
from fake_trial import FakeTrial, rules, step_rules
from hypothesis import given
from hypothesis import strategies as st

from algorithmic_efficiency import clock, errors, spec
from algorithmic_efficiency.benchmark.definition import Generation
from algorithmic_efficiency.clock import BUCKETS, Stopwatch
from algorithmic_efficiency.trial.position import Position
from algorithmic_efficiency.trial.step_timer import mean_step_sec


def steps(trial: FakeTrial) -> list[float]:
  return [row['global_step'] for row in trial.rows]


class TestEvaluationTimes:
  def test_first_evaluation_comes_after_step_one(self):
    trial = FakeTrial(rules())
    trial.run.run()
    assert steps(trial)[0] == 1

  def test_period_counts_wall_time_since_the_last_evaluation_ended(self):
    # Steps of 1/8 s; a period of 2 s is 16 steps, whatever an evaluation itself takes.
    trial = FakeTrial(rules(max_sec=6.0), eval_sec=50.0)
    trial.run.run()
    assert steps(trial) == [1, 17, 33]

  def test_period_includes_what_the_submission_prepares(self):
    def prepare(**arguments):
      trial.clock.spend(1.0)
      return 'state', 1.0, None

    trial = FakeTrial(rules(max_sec=8.0), prepare_for_eval=prepare)
    assert trial.run.run() == 'budget_spent'
    assert steps(trial) == [1, 17, 33]
    assert trial.run.watch.buckets()['prepare_for_eval'] == pytest.approx(3.0)

  def test_step_axis_evaluates_every_period_and_at_the_end_of_the_budget(self):
    trial = FakeTrial(step_rules(max_steps=12, period=5))
    assert trial.run.run() == 'budget_spent'
    assert steps(trial) == [1, 5, 10, 12]

  @pytest.mark.parametrize('axis', ['seconds', 'cost_adjusted_steps'])
  def test_evaluation_at_given_steps_alone(self, axis):
    trial = FakeTrial(
      rules(
        axis=axis, max_sec=None, eval_period_sec=1.0, eval_steps=(3, 4, 30), max_global_steps=30
      )
    )
    assert trial.run.run() == 'step_limit'
    assert steps(trial) == [3, 4, 30]

  def test_partial_evaluations_between_full_ones_are_logged_and_count_nowhere(self):
    trial = FakeTrial(
      step_rules(max_steps=22, period=5, full_eval_every=3), partial=lambda step: 0.5
    )
    assert trial.run.run() == 'budget_spent'
    assert steps(trial) == [1, 15, 22]
    assert trial.recorder.logged == [
      (step, {'partial/validation/accuracy': 0.5}) for step in (5, 10, 20)
    ]
    assert [step for step, _ in trial.run.position.eval_results] == [1, 15, 22]

  def test_a_partial_one_at_the_target_becomes_a_full_one(self):
    trial = FakeTrial(
      step_rules(max_steps=40, period=5, full_eval_every=100),
      partial=lambda step: 0.95 if step >= 15 else 0.0,
      accuracy=lambda step: 1.0 if step >= 20 else 0.0,
    )
    assert trial.run.run() == 'targets_reached'
    assert steps(trial) == [1, 15, 20]

  def test_so_does_one_that_is_not_finite(self):
    trial = FakeTrial(
      step_rules(max_steps=40, period=5, full_eval_every=100, stop_on_divergence=True),
      partial=lambda step: math.nan,
      accuracy=lambda step: math.nan if step > 1 else 0.0,
    )
    assert trial.run.run() == 'diverged'
    assert steps(trial) == [1, 5]

  def test_without_evaluation_the_budget_still_ends_the_run(self):
    """Regression: a reference run with --skip_evals never looks at its budget."""
    trial = FakeTrial(rules(evaluate=False, max_sec=1.0))
    assert trial.run.run() == 'budget_spent'
    assert trial.rows == []


class TestGeneration:
  """Which evaluations generate outputs; `bleu` is the step at which they were generated."""

  def generating(self, trial: FakeTrial) -> list[tuple[int, bool]]:
    """Step of each evaluation that generates, and whether it knows to be the last."""
    return [(step, is_last) for step, _, generates, is_last in trial.evaluations if generates]

  @pytest.mark.parametrize(
    ('every', 'expected'),
    [
      (1, [1, 5, 10, 15, 20, 22]),
      (2, [1, 10, 20, 22]),
      (3, [1, 15, 22]),
      (5, [1, 22]),
      (100, [1, 22]),
      (None, [1, 22]),
    ],
  )
  def test_the_first_every_nth_and_the_last_full_evaluation(self, every, expected):
    given = step_rules(22, generation=Generation(metrics=('bleu',), every=every))
    trial = FakeTrial(given)
    assert trial.run.run() == 'budget_spent'
    assert self.generating(trial) == [(step, step == 22) for step in expected]
    assert [row['global_step'] for row in trial.rows if 'validation/bleu' in row] == expected
    assert steps(trial) == [1, 5, 10, 15, 20, 22]
    assert len(trial.evaluations) == 6

  def test_without_generated_metrics_none_does(self):
    trial = FakeTrial(step_rules(22))
    trial.run.run()
    assert self.generating(trial) == []

  def test_partial_evaluations_do_not_and_do_not_count(self):
    given = step_rules(40, 5, full_eval_every=3, generation=Generation(metrics=('bleu',), every=2))
    trial = FakeTrial(given)
    trial.run.run()
    assert steps(trial) == [1, 15, 30, 40]
    assert self.generating(trial) == [(1, False), (30, False), (40, True)]

  def test_one_that_is_the_first_to_reach_a_target_does_though_it_is_not_its_turn(self):
    """With the validation target reached at 10 and that of test at 25, which ends the trial."""
    trial = FakeTrial(
      step_rules(60, 5, generation=Generation(metrics=('bleu',), every=None)),
      accuracy=lambda step: 0.95 if step >= 10 else 0.0,
      test_accuracy=lambda step: 0.85 if step >= 25 else 0.0,
    )
    assert trial.run.run() == 'targets_reached'
    assert self.generating(trial) == [(1, False), (10, False), (25, True)]
    assert [row.get('validation/bleu') for row in trial.rows] == [1, None, 10, None, None, 25]

  def test_the_values_that_reached_the_target_stay_those_of_the_row(self):
    """An evaluation that is repeated to generate may differ in the last bits on a GPU."""
    values = iter([0.0, 0.95, 0.85])  # the first, the second, and that again
    trial = FakeTrial(
      step_rules(60, 5, generation=Generation(metrics=('bleu',), every=None)),
      accuracy=lambda step: next(values),
    )
    assert trial.run.run() == 'targets_reached'
    assert [row['validation/accuracy'] for row in trial.rows] == [0.0, 0.95]
    assert trial.rows[-1]['validation/bleu'] == 5

  def test_generation_is_time_of_evaluation(self):
    trial = FakeTrial(
      step_rules(60, 5, generation=Generation(metrics=('bleu',), every=None)),
      accuracy=lambda step: 0.95 if step == 5 else 0.0,
    )
    trial.run.run()
    assert trial.run.watch.buckets()['eval'] == pytest.approx(1.0 + 2 * 1.0)

  @pytest.mark.parametrize('num_evals', [1, 2, 3, 4])
  def test_a_resumed_trial_keeps_the_turns(self, num_evals):
    given = step_rules(40, 5, generation=Generation(metrics=('bleu',), every=3))
    whole = FakeTrial(given)
    whole.run.run()
    saved = whole.rows[num_evals - 1]['global_step']
    resumed = FakeTrial(given)
    results = [(row['global_step'], row) for row in whole.rows[:num_evals]]
    position = Position(
      global_step=saved,
      charged_steps=saved,
      next_eval_steps=(saved // 5 + 1) * 5,
      num_evals=num_evals,
      eval_results=results,
    )
    resumed.run.resume(position, 1)
    resumed.run.run()
    assert resumed.evaluations == [one for one in whole.evaluations if one[0] > saved]

  def test_a_missing_generated_metric_is_not_divergence(self):
    given = step_rules(
      22, stop_on_divergence=True, generation=Generation(metrics=('bleu',), every=None)
    )
    trial = FakeTrial(given)
    assert trial.run.run() == 'budget_spent'
    assert 'validation/bleu' not in trial.rows[1]


class TestGeneratedTarget:
  """A target on a metric that only evaluations have which generate."""

  def trial(self, **options) -> FakeTrial:
    changes = {'full_eval_every': 100, 'stop_on_divergence': True}
    given = step_rules(40, 5, generation=Generation(metrics=('accuracy',)), **changes)
    return FakeTrial(given, generated=None, **options)

  def test_a_partial_evaluation_generates_its_batch(self):
    trial = self.trial(partial=lambda step: 0.5)
    assert trial.run.run() == 'budget_spent'
    assert steps(trial) == [1, 40]
    assert all(generates for _, _, generates, _ in trial.evaluations)
    assert [step for step, _ in trial.recorder.logged] == [5, 10, 15, 20, 25, 30, 35]

  def test_one_at_the_target_becomes_a_full_one_that_ends_the_trial(self):
    trial = self.trial(partial=lambda step: 0.95, accuracy=lambda step: 0.95 * (step >= 10))
    assert trial.run.run() == 'targets_reached'
    assert steps(trial) == [1, 5, 10]
    assert trial.evaluations[-2:] == [(10, True, True, False), (10, False, True, False)]


class TestHooks:
  def test_each_evaluation_shows_the_parameters_once_before_it(self):
    def update(global_step, **arguments):
      return 'state', float(global_step), None

    trial = FakeTrial(
      step_rules(max_steps=12, period=5, full_eval_every=2), update=update, partial=lambda step: 1.0
    )
    trial.run.run()
    assert trial.seen == [(0.0, 1), (4.0, 5), (9.0, 10), (11.0, 12)]

  def test_without_evaluations_nothing_is_shown(self):
    trial = FakeTrial(step_rules(evaluate=False))
    trial.run.run()
    assert trial.seen == []

  def test_global_random_states_are_set_at_the_start_and_after_each_evaluation(self):
    """Resuming sets them alike, as they follow from the step."""
    trial, resumed = FakeTrial(step_rules(max_steps=10)), FakeTrial(step_rules(max_steps=10))
    trial.run.run()
    assert len(trial.seeds) == 4 and len(set(trial.seeds)) == 4
    resumed.run.resume(Position(global_step=5, charged_steps=5, next_eval_steps=10), 1)
    resumed.run.run()
    assert resumed.seeds == [trial.seeds[2], trial.seeds[3]]


class TestRecords:
  def test_a_row_has_what_is_scored(self):
    trial = FakeTrial(rules(max_global_steps=1), queued_sec=0.25, log_sec=0.5)
    trial.run.resume(Position(), preemption_count=3)
    trial.run.run()
    assert trial.rows == [
      {
        'validation/accuracy': 0.0,
        'test/accuracy': 0.0,
        'score': 0.375,
        'accumulated_submission_time': 0.375,
        'total_duration': 1.375,
        'accumulated_eval_time': 1.0,
        'accumulated_logging_time': 0.0,
        'preemption_count': 3,
        'charged_steps': 1,
        'global_step': 1,
      }
    ]

  def test_each_evaluation_is_followed_by_a_checkpoint_of_that_moment(self):
    trial = FakeTrial(step_rules(max_steps=5))
    trial.run.run()
    [first, last] = trial.recorder.checkpoints
    assert first['data']['position'] == 1 and last['data']['position'] == 5
    assert first['buckets']['update'] == 0.125 and last['buckets']['update'] == 0.625
    assert last['position'].next_eval_steps == 10
    assert (first['params'], first['optimizer_state'], first['charged']) == (1.0, 'state', 0.0)

  @pytest.mark.parametrize(('num_rows', 'num_written'), [(256, 0), (257, 257)])
  def test_rows_are_kept_until_there_are_more_than_256(self, num_rows, num_written):
    written = []

    def update(global_step, **arguments):
      written.append(len(trial.recorder.logged))
      for _ in range(num_rows if global_step == 1 else 0):
        trial.run.logger.append_scalar_metrics({'loss': 1.0}, global_step)

    trial = FakeTrial(step_rules(max_steps=5, period=5), update=update, step_sec=1.0)
    trial.run.run()
    assert written[2] == num_written

  @pytest.mark.parametrize(('step_sec', 'num_reports'), [(0.5, 2), (0.51, 3)])
  def test_progress_is_reported_about_twice_a_second(self, step_sec, num_reports):
    trial = FakeTrial(rules(evaluate=False, max_sec=None, max_global_steps=3), step_sec=step_sec)
    trial.run.run()
    assert len(trial.recorder.reports) == num_reports
    assert trial.recorder.reports[0]['global_step'] == 1


class TestSeveralProcesses:
  """Processes decide alike, by the slowest clock, and only where they wait anyway."""

  def trial(self, slowest: float, **options) -> FakeTrial:
    trial = FakeTrial(rules(**options), step_sec=0.01)
    trial.machine.world_size = 2
    trial.machine.sync_max = lambda value: max(value, slowest)
    return trial

  def test_the_slowest_clock_spends_the_budget(self):
    assert self.trial(10.0, max_sec=10.0).run.run() == 'budget_spent'

  def test_between_synchronizations_nothing_is_decided(self):
    trial = FakeTrial(rules(max_sec=0.0625, evaluate=False), step_sec=1 / 64)
    trial.machine.world_size = 2
    trial.run.run()
    assert trial.run.position.global_step == 17  # 1 step, then a quarter of a second of them

  def test_a_resumed_trial_goes_by_the_longest_wait(self):
    trial = self.trial(2.0, max_sec=None, max_global_steps=3, eval_period_sec=2.0)
    trial.run.run()
    assert steps(trial) == [1, 2, 3]


class TestClock:
  def test_buckets_sum_to_wall_time(self):
    trial = FakeTrial(rules(), log_sec=0.3, queued_sec=0.05)
    start = trial.clock.now
    trial.run.run()
    trial.run.watch.lap('log')
    assert trial.run.watch.total() == pytest.approx(trial.clock.now - start)

  @given(st.lists(st.tuples(st.sampled_from(BUCKETS), st.floats(0, 1e4)), max_size=50))
  def test_any_laps_sum_to_wall_time(self, laps):
    now = [5.0]
    watch = Stopwatch(start=5.0, now=lambda: now[0])
    for bucket, seconds in laps:
      now[0] += seconds
      watch.lap(bucket)
    assert watch.total() == pytest.approx(now[0] - 5.0)

  def test_work_in_flight_is_charged_before_the_untimed_evaluation(self):
    trial = FakeTrial(step_rules(max_steps=5, period=5), step_sec=0.0, queued_sec=0.2)
    trial.run.run()
    assert trial.run.watch.buckets()['update'] == pytest.approx(1.0)
    assert trial.run.watch.buckets()['eval'] == pytest.approx(2.0)  # two evaluations of 1 s

  def test_so_are_steps_that_were_not_waited_for(self):
    trial = FakeTrial(step_rules(max_steps=5, period=5), step_sec=0.0, queued_sec=1 / 64)
    trial.run.run()
    assert trial.run.watch.buckets()['update'] == 5 / 64
    assert trial.run.watch.buckets()['eval'] == 2.0

  def test_the_device_runs_ahead_by_a_bounded_number_of_steps(self):
    trial = FakeTrial(step_rules(max_steps=500, period=500), step_sec=0.0, queued_sec=1e-4)
    trial.run.run()
    assert trial.machine.largest_in_flight <= 32 * 1e-4 * 1.001

  def test_slow_steps_are_waited_for_one_by_one(self):
    trial = FakeTrial(step_rules(max_steps=10, period=10), step_sec=0.0, queued_sec=1.0)
    trial.run.run()
    assert trial.machine.largest_in_flight == pytest.approx(1.0)

  def test_a_resumed_clock_goes_on_from_where_it_was_saved(self):
    watch = Stopwatch(start=0.0, now=lambda: 3.0)
    watch.lap('update')
    watch.carry({'update': 10.0, 'eval': 5.0}, charged=1.0)
    assert watch.total() == 18.0
    assert watch.session_sec == 3.0
    assert watch.submission_time == 14.0

  def test_step_time_is_a_mean_over_steps_without_the_first(self):
    def update(**arguments):
      trial.clock.spend(30.0 if arguments['global_step'] == 0 else 0.0)

    trial = FakeTrial(step_rules(max_steps=40, period=10), update=update)
    trial.run.run()
    assert mean_step_sec(trial.run.position.step_times) == 0.125

  def test_step_time_has_no_share_of_the_evaluations(self):
    trial = FakeTrial(step_rules(max_steps=8, period=2), eval_sec=50.0, log_sec=7.0)
    trial.run.run()
    assert trial.run.position.step_times == [(0.125, 1), *[(0.125, 2)] * 3]

  def test_step_time_has_its_share_of_the_preparations(self):
    """Regression: where steps are raced, whatever was computed in prepare_for_eval was free."""

    def prepare(global_step, **arguments):
      trial.clock.spend(30.0 if global_step == 1 else 2.5)  # the first one compiles
      return 'state', 1.0, None

    trial = FakeTrial(step_rules(max_steps=40, period=10), prepare_for_eval=prepare)
    trial.run.run()
    assert trial.run.position.step_times == [
      (pytest.approx(0.125 + 2.5 / 9), 9),
      *[(pytest.approx(0.125 + 0.25), 10)] * 3,
    ]


class TestResuming:
  def test_a_limit_that_leaves_no_step_is_refused(self):
    trial = FakeTrial(step_rules(max_global_steps=7))
    with pytest.raises(errors.UserError, match='stands at step 7, so --max_global_steps 7'):
      trial.run.resume(Position(global_step=7), preemption_count=1)

  def test_one_that_had_reached_its_limit_has_reached_it(self):
    trial = FakeTrial(step_rules(max_global_steps=7))
    trial.run.resume(Position(global_step=7, stop_reason='step_limit'), preemption_count=1)
    assert trial.run.run() == 'step_limit'
    assert trial.calls == []

  def test_up_to_the_limit_it_goes_on(self):
    trial = FakeTrial(step_rules(max_global_steps=8))
    trial.run.resume(Position(global_step=7), preemption_count=1)
    assert trial.run.run() == 'step_limit'
    assert len(trial.calls) == 1


class TestBudget:
  def test_budget_is_checked_at_every_step(self):
    """Regression: the reference looks at the budget only when an evaluation is due."""
    trial = FakeTrial(rules(max_sec=1.0, eval_period_sec=1000.0))
    assert trial.run.run() == 'budget_spent'
    assert len(trial.calls) == 8

  def test_nothing_is_evaluated_once_the_budget_is_spent(self):
    trial = FakeTrial(rules(max_sec=2.05, eval_period_sec=2.0))
    trial.run.run()
    assert steps(trial) == [1]

  def test_preparation_that_spends_the_budget_forfeits_the_evaluation(self):
    def prepare(**arguments):
      trial.clock.spend(20.0)
      return 'state', 1.0, None

    trial = FakeTrial(rules(), prepare_for_eval=prepare)
    assert trial.run.run() == 'budget_spent'
    assert trial.rows == []

  def test_a_step_costs_as_many_steps_as_it_draws_batches(self):
    def draw_three(workload, queue, *rest):
      return [next(queue) for _ in range(3)]

    trial = FakeTrial(step_rules(max_steps=12, period=6), data_selection=draw_three)
    trial.run.run()
    assert len(trial.calls) == 4
    assert [row['charged_steps'] for row in trial.rows] == [3, 6, 12]

  def test_a_step_without_a_new_batch_costs_a_step(self):
    def keep_first(workload, queue, *rest):
      return {'number': 0}

    trial = FakeTrial(step_rules(max_steps=4, period=4), data_selection=keep_first)
    trial.run.run()
    assert len(trial.calls) == 4

  def test_a_batch_that_is_drawn_in_the_preparation_is_charged_like_any_other(self):
    """Regression: it was no step, and free."""

    def prepare(**arguments):
      next(trial.run.queue)
      return 'state', 1.0, None

    trial = FakeTrial(step_rules(max_steps=40, period=10), prepare_for_eval=prepare)
    assert trial.run.run() == 'budget_spent'
    charged = [row['charged_steps'] - row['global_step'] for row in trial.recorder.rows]
    assert charged == [1, 2, 3, 4, 5]
    assert trial.run.position.charged_steps == 41


class TestStopReasons:
  def test_targets_reached_needs_validation_and_test(self):
    trial = FakeTrial(step_rules(), accuracy=lambda step: 0.95 if step >= 10 else 0.85)
    assert trial.run.run() == 'targets_reached'
    assert steps(trial)[-1] == 10

  def test_targets_are_sticky(self):
    values = {1: 0.95, 5: 0.1, 10: 0.1}
    trial = FakeTrial(step_rules(max_steps=10), accuracy=lambda step: values[step])
    assert trial.run.run() == 'targets_reached'

  def test_stop_at_validation(self):
    trial = FakeTrial(step_rules(stop_at='validation'), accuracy=lambda step: 0.9)
    trial.run.target = trial.run.target.__class__(
      metric='accuracy', direction='max', validation=0.9, test=0.99
    )
    assert trial.run.run() == 'validation_target_reached'

  def test_stop_at_never_goes_on_behind_the_targets(self):
    trial = FakeTrial(step_rules(max_steps=20, stop_at='never'), accuracy=lambda step: 0.95)
    assert trial.run.run() == 'budget_spent'
    assert trial.run.position.validation_reached and steps(trial)[-1] == 20

  def test_training_complete_discards_that_update_and_evaluates(self):
    def update(**arguments):
      if arguments['global_step'] == 3:
        raise spec.TrainingCompleteError
      return f'state {arguments["global_step"]}', 1.0, None

    trial = FakeTrial(step_rules(), update=update)
    assert trial.run.run() == 'training_complete'
    assert trial.run.optimizer_state == 'state 2'
    assert steps(trial) == [1, 4]

  def test_step_limit_evaluates(self):
    trial = FakeTrial(rules(max_global_steps=7))
    assert trial.run.run() == 'step_limit'
    assert steps(trial) == [1, 7]

  @pytest.mark.parametrize('bad', [math.nan, math.inf])
  def test_values_that_are_not_finite_reach_nothing(self, bad):
    trial = FakeTrial(step_rules(), accuracy=lambda step: bad)
    assert trial.run.run() == 'budget_spent'

  def test_divergence_ends_the_trial_if_asked(self):
    trial = FakeTrial(step_rules(stop_on_divergence=True), accuracy=lambda step: math.nan)
    assert trial.run.run() == 'diverged'
    assert steps(trial) == [1]

  def test_so_are_those_of_another_process(self):
    """Regression: that process stopped, and the others waited for it."""
    trial = FakeTrial(step_rules(stop_on_divergence=True))
    trial.machine.world_size = 2
    trial.machine.sync_max = lambda value: max(value, 1.0)  # the other one says: not finite
    assert trial.run.run() == 'diverged'

  def test_nan_parameters_are_divergence_too(self):
    trial = FakeTrial(
      step_rules(stop_on_divergence=True), update=lambda **arguments: ('state', math.nan, None)
    )
    assert trial.run.run() == 'diverged'

  @pytest.mark.parametrize('result', [None.__class__, ('state', 1.0), 5])
  def test_wrong_arity_is_the_users_mistake(self, result):
    trial = FakeTrial(rules(), update=lambda **arguments: result)
    with pytest.raises(errors.UserError, match='update_params must return'):
      trial.run.run()


class Weights:
  """Something that a reference can be weak to."""


class TestDonation:
  def test_the_runner_keeps_no_reference_to_what_a_submission_gives_up(self):
    """Entries in JAX donate their parameters and states at every step."""
    alive: list[weakref.ref] = []

    def update(**arguments):
      trial.calls.clear()  # the fakes keep what they see
      trial.recorder.checkpoints.clear()
      trial.seen.clear()
      assert [reference() for reference in alive[:-3]] == [None] * len(alive[:-3])
      fresh = tuple(Weights() for _ in range(3))
      alive.extend(map(weakref.ref, fresh))
      return fresh

    trial = FakeTrial(step_rules(max_steps=12, period=5), update=update)
    assert trial.run.run() == 'budget_spent'
    assert len(alive) == 36


class TestCalls:
  def test_train_state_only_when_declared_and_read_only(self):
    plain, declared = FakeTrial(step_rules()), FakeTrial(step_rules(), wants_train_state=True)
    plain.run.run()
    declared.run.run()
    assert 'train_state' not in plain.calls[0]
    with pytest.raises(TypeError):
      declared.calls[0]['train_state']['accumulated_submission_time'] = 0.0

  def test_the_preparation_for_an_evaluation_has_no_train_state(self):
    """AlgoPerf passes it to `update_params` alone."""
    seen = []

    def prepare(**arguments):
      seen.append(set(arguments))
      return 'state', 1.0, None

    trial = FakeTrial(step_rules(max_steps=1), prepare_for_eval=prepare, wants_train_state=True)
    trial.run.run()
    assert seen == [set(trial.calls[0]) - {'batch', 'train_state'}]

  def test_train_state_says_which_targets_were_reached(self):
    """AlgoPerf's keys: `goal` for target."""
    found = {}

    def update(global_step, train_state, **arguments):
      found[global_step] = (
        train_state['validation_goal_reached'],
        train_state['test_goal_reached'],
      )

    trial = FakeTrial(
      step_rules(max_steps=15, period=5),
      update=update,
      wants_train_state=True,
      accuracy=lambda step: 0.9 if step == 5 else 0.0,
      test_accuracy=lambda step: 0.8 if step == 10 else 0.0,
    )
    assert trial.run.run() == 'targets_reached'
    assert found == {
      **dict.fromkeys(range(5), (False, False)),
      **dict.fromkeys(range(5, 10), (True, False)),
    }

  def test_train_state_has_the_clock_as_of_the_last_evaluation(self):
    found = []

    def update(train_state, **arguments):
      found.append(dict(train_state))

    trial = FakeTrial(
      step_rules(max_steps=4, period=2), update=update, wants_train_state=True, log_sec=0.5
    )
    begin = trial.clock.now
    trial.run.run()
    times = [
      {name: value for name, value in state.items() if 'goal' not in name} for state in found
    ]
    last = {'is_time_remaining': True, 'training_complete': False}
    sec, ended = 0.125, begin + 0.125 + 1.0 + 2 * 0.5
    assert times[0] == {
      **last,
      'last_eval_time': 0,
      'last_step_end_time': clock.epoch_sec(begin),
      'accumulated_submission_time': 0.0,
      'accumulated_eval_time': 0.0,
      'accumulated_logging_time': 0.0,
    }
    assert times[1] == {
      **last,
      'last_eval_time': clock.epoch_sec(ended),
      'last_step_end_time': clock.epoch_sec(ended),
      'accumulated_submission_time': sec,
      'accumulated_eval_time': 1.0,
      'accumulated_logging_time': 1.0,
    }
    assert times[2]['accumulated_submission_time'] == 2 * sec
    assert times[2]['accumulated_eval_time'] == 2.0

  def test_each_call_has_the_arguments_of_its_step(self):
    trial = FakeTrial(step_rules(max_steps=3, period=2))
    trial.run.run()
    assert [call['global_step'] for call in trial.calls] == [0, 1, 2]
    assert [call['batch'] for call in trial.calls] == [{'number': n} for n in (1, 2, 3)]
    assert [len(call['eval_results']) for call in trial.calls] == [0, 1, 2]
    [(step, values)] = trial.calls[1]['eval_results']
    assert step == values['global_step'] == 1 and values['validation/accuracy'] == 0.0

  def test_train_state_tells_points_in_time_as_algoperf_does(self):
    """Regression: they were monotonic, so that none was 0 and none a date."""
    seen = []
    trial = FakeTrial(
      rules(max_sec=3.0),
      update=lambda **arguments: seen.append(dict(arguments['train_state'])),
      eval_sec=50.0,
      wants_train_state=True,
    )
    begun = trial.clock.now
    trial.run.run()
    assert seen[0]['last_eval_time'] == 0
    assert seen[0]['last_step_end_time'] == clock.epoch_sec(begun)
    assert seen[1]['last_eval_time'] == clock.epoch_sec(begun + 0.125 + 50.0)
    assert clock.epoch_sec(time.perf_counter()) == pytest.approx(time.time(), abs=60.0)

  def test_past_evaluations_cannot_be_edited(self):
    def update(**arguments):
      for _, values in arguments['eval_results']:
        values['validation/accuracy'] = values['test/accuracy'] = 1.0
      arguments['eval_results'].append((0, {'validation/accuracy': 1.0, 'test/accuracy': 1.0}))

    trial = FakeTrial(step_rules(), update=update)
    assert trial.run.run() == 'budget_spent'
    results = trial.run.position.eval_results
    assert [step for step, _ in results] == [1, 5, 10, 15, 20]
    assert {values['validation/accuracy'] for _, values in results} == {0.0}

  def test_rows_that_a_submission_logs_are_written_in_order(self):
    def update(**arguments):
      trial.run.logger.append_scalar_metrics({'loss': 1.0}, arguments['global_step'])

    trial = FakeTrial(step_rules(max_steps=7), update=update)
    trial.run.run()
    assert [step for step, _ in trial.recorder.logged] == list(range(7))

  def test_what_was_logged_before_a_failure_is_written(self):
    """Regression: rows since the last evaluation were lost with the trial that raised."""

    def update(**arguments):
      trial.run.logger.append_scalar_metrics({'loss': 1.0}, arguments['global_step'])
      if arguments['global_step'] == 3:
        raise ZeroDivisionError

    trial = FakeTrial(step_rules(), update=update)
    with pytest.raises(ZeroDivisionError):
      trial.run.run()
    trial.run.write_what_was_logged()
    assert [step for step, _ in trial.recorder.logged] == [0, 1, 2, 3]

  def test_every_step_has_its_own_random_key_data(self):
    trial = FakeTrial(step_rules(max_steps=300, period=300))
    trial.run.run()
    key_data = {tuple(call['rng']) for call in trial.calls}
    assert len(key_data) == 300
