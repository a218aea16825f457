"""How far the trials of a command have come: counts, standings, and the time that is left."""

from __future__ import annotations

import dataclasses
import math
import statistics
from pathlib import Path

import pytest
import work
from fake_trial import FakeClock
from tallies import ended, progress, record, said, started, tally, trial, write_rows
from test_race import race

from algorithmic_efficiency.experiments.race.race import expand
from algorithmic_efficiency.launch import tally as module
from algorithmic_efficiency.launch.tally import Tally, Timing
from algorithmic_efficiency.launch.words import ended_line
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.messages import Begin

HERE, THERE = Timing('quick_vision', 'jax', 1), Timing('quick_lm', 'jax', 1)


@pytest.fixture
def clock() -> FakeClock:
  return FakeClock()


class TestCounts:
  def test_a_trial_goes_from_left_to_running_to_its_end(self, clock):
    found = tally([trial('a', 1), trial('a', 2), trial('b', 1)], clock)
    assert found.total() == {'left': 3}
    found.take(started(0))
    assert found.total() == {'left': 2, 'running': 1}
    found.take(ended(0))
    found.take(started(1))
    found.take(ended(1, status='failed', reason='the cause'))
    found.take(started(2))
    assert found.total() == {'done': 1, 'failed': 1, 'running': 1}

  def test_what_is_not_run_counts_as_it_was_found(self, clock):
    trials = [trial('a', study) for study in (1, 2, 3)]
    statuses = ('finished', 'invalid', 'failed')
    earlier = {k: record(trials[k], status=status) for k, status in enumerate(statuses)}
    found = tally(trials, clock, earlier=earlier)
    assert found.total() == {'done': 1, 'failed': 2}
    assert [one.status for one in found.outcomes().values()] == list(statuses)

  def test_a_job_that_times_steps_counts_nowhere(self, clock):
    found = tally([trial('a', 1)], clock, timings=[HERE])
    found.take(started(0))
    assert (found.trial(0), found.timing(0)) == (None, HERE)
    found.take(ended(0, status='failed'))
    assert found.total() == {'left': 1}
    found.take(started(1))
    assert (found.trial(1), found.timing(1)) == (0, None)

  def test_the_phases_of_a_trial(self, clock):
    found = tally([trial('a', 1)], clock)
    found.take(started(0))
    phases = [found.running_of(0).phase]
    for message in (Begin(), progress(), progress(is_evaluating=True), progress()):
      found.take(said(0, message))
      phases.append(found.running_of(0).phase)
    assert phases == ['starting', 'compiling', 'training', 'evaluating', 'training']

  def test_a_trial_that_is_not_heard_runs(self, clock):
    found = Tally([trial('a', 1)], [0], earlier={}, hears=False, now=clock)
    found.take(started(0))
    assert found.running_of(0).phase == 'running'


class TestStandings:
  LOSSES = ((2, 0.9), (4, 0.5), (6, 0.44), (8, 0.3))  # the target is between the last two but one

  def write(self, of: TrialConfig, *rows: tuple[int, float]) -> None:
    write_rows(
      of,
      *(
        {'global_step': step, 'charged_steps': 2 * step, 'validation/loss': loss}
        for step, loss in rows
      ),
    )

  def ended(self, clock: FakeClock, *trials: TrialConfig) -> Tally:
    found = tally(trials, clock)
    for job in range(len(trials)):
      found.take(started(job))
      found.take(ended(job))
    return found

  def test_steps_are_those_charged_to_the_first_evaluation_at_the_target(self, clock, tmp_path):
    one = trial('a', 1, folder=tmp_path)
    self.write(one, *self.LOSSES)
    assert self.ended(clock, one).steps_to_target(0) == 12

  def test_a_trial_that_never_reaches_it_is_a_miss(self, clock, tmp_path):
    one, other = trial('a', 1, folder=tmp_path), trial('a', 2, folder=tmp_path)
    self.write(one, *self.LOSSES[:2])
    found = self.ended(clock, one, other)  # the second has no rows at all
    assert [found.steps_to_target(0), found.steps_to_target(1)] == [math.inf, math.inf]

  def test_medians_over_studies_and_the_leader_first(self, clock, tmp_path):
    slow = [trial('slow', study, folder=tmp_path) for study in (1, 2, 3)]
    fast = [trial('fast', study, folder=tmp_path) for study in (1, 2, 3)]
    for one, step in zip(slow, (30, 50, 40), strict=True):
      self.write(one, (step, 0.3))
    for one, step in zip(fast[:2], (20, 25), strict=True):
      self.write(one, (step, 0.3))
    self.write(fast[2], (99, 0.9))
    first, second = self.ended(clock, *slow, *fast).standings()
    assert (first.submission, first.steps) == ('fast', {'quick_vision': 50})
    assert (first.reached, first.ended) == ({'quick_vision': 2}, {'quick_vision': 3})
    assert (second.submission, second.steps) == ('slow', {'quick_vision': 80})
    assert (first.times, second.times) == (1.0, pytest.approx(1.6))

  def test_a_miss_counts_as_the_cut_off_of_the_suite(self, clock, tmp_path):
    hit, miss = trial('hit', 1, folder=tmp_path), trial('miss', 1, folder=tmp_path)
    self.write(hit, (3, 0.3))
    self.write(miss, (3, 0.9))
    assert [one.times for one in self.ended(clock, hit, miss).standings()] == [1.0, 4.0]

  def test_only_workloads_that_all_have_ended_are_compared(self, clock, tmp_path):
    a, b = trial('a', 1, folder=tmp_path), trial('b', 1, folder=tmp_path)
    only_a = trial('a', 1, folder=tmp_path, workload='quick_lm')
    self.write(a, (9, 0.3))
    self.write(b, (3, 0.3))
    found = self.ended(clock, a, only_a, b)
    assert [one.submission for one in found.standings()] == ['b', 'a']
    assert [one.times for one in found.standings()] == pytest.approx([1.0, 3.0])
    alone = tally([a, b], clock)
    alone.take(started(0))
    alone.take(ended(0))
    assert all(math.isnan(one.times) for one in alone.standings())

  def test_a_study_counts_with_its_best_trial(self, clock, tmp_path):

    one = trial('a', 1, folder=tmp_path)
    other = dataclasses.replace(one, trial=2, folder=str(tmp_path / 'other'))
    self.write(one, (9, 0.9))
    self.write(other, (7, 0.3))
    [found] = self.ended(clock, one, other).standings()
    assert (found.steps, found.ended) == ({'quick_vision': 14}, {'quick_vision': 1})


class TestTimeLeft:
  def left(self, found: Tally) -> tuple[float, float]:
    left = found.left()
    assert left is not None
    return left.low * module._SPREAD, left.high / module._SPREAD

  def test_nothing_is_known_before_a_trial_is_under_way(self, clock):
    found = tally([trial('a', 1)], clock)
    assert found.left() is None
    found.take(started(0))
    assert found.left() is None

  def test_a_trial_under_way_says_what_its_budget_takes_at_most(self, clock):
    found = tally([trial('a', 1), trial('b', 1)], clock)
    found.take(started(0))
    clock.spend(10.0)
    found.take(said(0, progress(charged_steps=40, steps_per_sec=20.0)))
    assert found.left() == pytest.approx((0.0, 10.0 + 20.0))  # 200 steps of 240, and a whole trial

  def test_trials_of_the_same_row_tell_before_others(self, clock):
    trials = [*(trial('a', study) for study in (1, 2)), trial('b', 1)]
    earlier = {k: record(trials[k], seconds) for k, seconds in enumerate((10.0, 30.0, 5.0))}
    todo = [trial('a', 3), trial('b', 2), trial('c', 1)]
    found = tally([*trials, *todo], clock, earlier=earlier, num_slots=2)
    assert self.left(found) == pytest.approx(((10 + 5 + 5) / 2, (30 + 5 + 30) / 2))

  def test_what_runs_has_a_part_behind_it_and_never_less_than_nothing_before_it(self, clock):
    trials = [trial('a', 1), trial('a', 2)]
    found = tally(trials, clock, earlier={0: record(trials[0], 10.0)})
    found.take(started(0))
    clock.spend(4.0)
    assert found.left() == pytest.approx((10 / module._SPREAD - 4, 10 * module._SPREAD - 4))
    clock.spend(40.0)
    assert found.left() == (0.0, 0.0)

  def test_trials_of_this_session_tell_too_unless_they_failed(self, clock):
    found = tally([trial('a', study) for study in (1, 2, 3)], clock)
    for index, status in enumerate(('failed', 'finished')):
      found.take(started(index))
      clock.spend(1.0 if status == 'failed' else 8.0)
      found.take(ended(index, status=status))
    assert self.left(found) == pytest.approx((8.0, 8.0))

  def test_steps_that_are_still_to_be_timed_count_with_the_longest_timing(self, clock):
    """Regression: the time left was that of trials alone, where timing took twice as long."""
    trials = [trial('a', 1), trial('a', 2)]
    timings = [HERE, HERE, THERE, HERE]
    found = tally(trials, clock, timings=timings, earlier={0: record(trials[0], 10.0)})
    assert self.left(found) == pytest.approx((10.0, 10.0))
    for job, seconds, left in ((0, 30.0, 3 * 30.0), (1, 20.0, 2 * 30.0), (2, 40.0, 30.0)):
      found.take(started(job))
      clock.spend(seconds)
      found.take(ended(job))
      assert self.left(found) == pytest.approx((left + 10.0, left + 10.0))
    found.take(started(3))
    clock.spend(8.0)
    assert self.left(found) == pytest.approx((22.0 + 10.0, 22.0 + 10.0))
    clock.spend(80.0)
    assert self.left(found) == pytest.approx((10.0, 10.0))


class TestWork:
  def trials(self, folder: Path, number: int) -> list[TrialConfig]:
    return expand(race(folder, *(f'e{index}=nadamw' for index in range(number))))

  def test_what_is_expected_is_worked_out_once_a_row(self, tmp_path, clock, monkeypatch):
    configs = self.trials(tmp_path, 4)
    found = tally(configs, clock)
    found.take(started(0))
    found.take(ended(0))
    expected, rows = Tally._expected, []
    monkeypatch.setattr(Tally, '_expected', lambda own, row: rows.append(row) or expected(own, row))
    ended_line(found, 0)
    assert len(configs) == 100
    assert len(rows) == len(set(rows)) == 4

  def test_the_work_of_a_line_grows_with_the_race_and_no_faster(self, tmp_path, clock):
    configs = self.trials(tmp_path, 16)
    assert len(configs) == 400

    def calls_of_a_line(configs: list[TrialConfig]) -> int:
      found = tally(configs, clock)
      for index in range(len(configs) // 2):
        found.take(started(index))
        found.take(ended(index))
      found.steps_to_target(0)  # which reads the log of that trial once
      return work.num_calls(lambda: ended_line(found, 0))

    whole, half = calls_of_a_line(configs), calls_of_a_line(configs[::2])
    assert whole < 2.2 * half
    assert whole < 20 * len(configs)


def test_the_median_of_an_even_number_with_one_miss_in_the_middle_is_a_miss():
  assert module._median([1.0, math.inf]) == math.inf
  assert module._median([1.0, 2.0, math.inf]) == statistics.median([1.0, 2.0, 9.0])
  assert math.isnan(module._median([]))
