"""The timing of steps, by numbers alone."""

from __future__ import annotations

import pytest

from algorithmic_efficiency.trial.step_timer import StepTimer, mean_step_sec, median_step_sec


def steps_until_due(timer: StepTimer) -> int:
  num_steps = 1
  while not timer.count_step():
    num_steps += 1
    assert num_steps < 1000, 'it never synchronizes'
  return num_steps


class TestWindow:
  def test_the_first_step_is_waited_for(self):
    assert steps_until_due(StepTimer(0.0)) == 1

  def test_with_one_in_flight_each_step_is_waited_for_and_timed(self):
    timer = StepTimer(0.0, max_in_flight=1)
    for now in (1.0, 3.0, 3.5):
      assert steps_until_due(timer) == 1
      timer.fit_window(timer.end_burst(now, compiles=now == 1.0) / 1000)
    timer.end_segment()
    assert timer.last_bursts == ((2.0, 1), (0.5, 1))

  @pytest.mark.parametrize(
    ('step_sec', 'num_steps'),
    [
      (10.0, 1),
      (0.126, 1),
      (0.125, 2),  # twice an eighth is a quarter of a second
      (0.084, 2),
      (0.083, 3),
      (0.25 / 31.5, 31),
      (0.25 / 32.5, 32),
      (0.25 / 33.5, 32),  # never more, however fast they are
      (1e-6, 32),
      (0.0, 32),
    ],
  )
  def test_it_is_a_quarter_of_a_second_of_steps_and_32_at_most(self, step_sec, num_steps):
    timer = StepTimer(0.0)
    timer.fit_window(step_sec)
    assert steps_until_due(timer) == num_steps

  def test_it_begins_anew_with_each_burst(self):
    timer = StepTimer(0.0)
    timer.fit_window(0.1)
    for _ in range(3):
      assert steps_until_due(timer) == 2
      timer.end_burst(1.0, compiles=False)


def timed(timer: StepTimer, start: float, num_steps: int, seconds: float, compiles: bool = False):
  """One burst of steps that begins at `start` and takes `seconds`."""
  timer.skip_to(start)
  for _ in range(num_steps):
    timer.count_step()
  return timer.end_burst(start + seconds, compiles=compiles)


class TestBursts:
  def test_a_burst_gives_the_mean_of_its_steps(self):
    assert timed(StepTimer(100.0), 100.0, num_steps=4, seconds=2.0) == 0.5

  def test_a_burst_follows_on_the_one_before(self):
    timer = StepTimer(100.0)
    timer.count_step()
    assert timer.end_burst(101.0, compiles=False) == 1.0
    timer.count_step()
    assert timer.end_burst(103.0, compiles=False) == 2.0

  def test_without_a_step_there_is_none(self):
    timer = StepTimer(100.0)
    assert timer.end_burst(105.0, compiles=False) == 0.0
    assert timer.end_segment() is None

  def test_what_compiles_is_left_out(self):
    timer = StepTimer(0.0)
    assert timed(timer, 0.0, num_steps=1, seconds=30.0, compiles=True) == 30.0
    assert timer.end_segment() is None


class TestSegments:
  def test_a_segment_has_the_mean_of_its_steps_and_their_number(self):
    """Regression: of a median, work that is done every so many steps is no part."""
    timer = StepTimer(0.0)
    timed(timer, 0.0, num_steps=1, seconds=9.0)
    timed(timer, 9.0, num_steps=4, seconds=1.0)
    assert timer.end_segment() == (2.0, 5)
    assert timer.end_segment() is None

  def test_each_step_has_its_share_of_the_preparation_once(self):
    timer = StepTimer(0.0)
    for expected in (0.25 + 0.5, 0.25):
      timed(timer, 0.0, num_steps=4, seconds=1.0)
      timer.prepared(2.0 if expected > 0.5 else 0.0)
      assert timer.end_segment() == (expected, 4)

  def test_a_preparation_without_a_timed_step_is_left_out(self):
    timer = StepTimer(0.0)
    timer.prepared(2.0)
    assert timer.end_segment() is None
    timed(timer, 0.0, num_steps=4, seconds=1.0)
    assert timer.end_segment() == (0.25, 4)

  def test_the_speed_is_that_of_this_segment_or_of_the_last_one(self):
    timer = StepTimer(0.0)
    assert timer.steps_per_sec([]) is None
    assert timer.steps_per_sec([(0.1, 9), (0.5, 3)]) == 2.0
    timed(timer, 0.0, num_steps=4, seconds=1.0)
    assert timer.steps_per_sec([(0.1, 9)]) == 4.0


@pytest.mark.parametrize(
  ('parts', 'median'),
  [
    ([], None),
    ([(3.0, 1)], 3.0),
    ([(2.0, 1), (1.0, 1)], 1.0),
    ([(9.0, 2), (1.0, 3)], 1.0),
    ([(9.0, 3), (1.0, 2)], 9.0),
    ([(9.0, 1), (1.0, 1), (5.0, 1)], 5.0),
  ],
)
def test_the_median_is_over_steps_and_not_over_parts(parts, median):
  assert median_step_sec(parts) == median


@pytest.mark.parametrize(
  ('segments', 'mean'),
  [
    *(([], None), ([(3.0, 4)], 3.0), ([(99.0, 14), (1.0, 15)], 1.0)),
    ([(99.0, 14), (1.0, 30), (4.0, 10)], 1.75),
  ],
)
def test_the_mean_is_total_seconds_over_total_steps_without_the_first_segment(segments, mean):
  assert mean_step_sec(segments) == mean
