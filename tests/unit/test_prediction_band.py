"""Where one more run is expected, and how a run lies there."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from published_logs import STEPS, loss

from algorithmic_efficiency.experiments.reproduction import prediction_band
from algorithmic_efficiency.experiments.reproduction.reference_logs import Log

AT = np.array(STEPS)


def log(curve, steps=AT) -> Log:
  curves = {'validation/loss': np.asarray(curve, dtype=float)}
  return Log(folder=Path('.'), point={}, suite=None, steps=np.asarray(steps), curves=curves)


def only(found):
  [one] = found
  return one


def agreement(run, logs):
  return only(prediction_band.agreements(run, prediction_band.bands(logs, AT)))


def test_the_band_is_the_prediction_interval_of_student():
  # Spreads are the same at all steps, so that neighbours change nothing.
  logs = [log(10.0 + offset - 0.01 * AT) for offset in (-1.0, 0.0, 0.0, 1.0)]
  found = prediction_band.bands(logs, AT)['validation/loss']
  half = 5.841 * np.sqrt(2 / 3) * np.sqrt(1 + 1 / 4)
  np.testing.assert_allclose(found.low, 10.0 - 0.01 * AT - half)
  np.testing.assert_allclose(found.high, 10.0 - 0.01 * AT + half)
  assert set(found.num_logs) == {4}


def within(t: float, degrees: int) -> float:
  """The probability that Student's t is no further than `t` from 0, integrated numerically."""
  at = np.linspace(-t, t, 20_001)
  density = (1 + at**2 / degrees) ** (-(degrees + 1) / 2)
  log_norm = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)
  return np.trapezoid(density, at) * math.exp(log_norm) / math.sqrt(degrees * math.pi)


@pytest.mark.parametrize('degrees', [*range(2, 31), 59, 60, 119, 500])
def test_student_is_never_less_than_it_is(degrees):
  assert 0.98999 <= within(prediction_band.student(degrees), degrees) <= 0.993


def test_the_neighbours_of_a_step_have_a_say_in_its_spread():
  still = [log(np.full(11, 5.0) + np.where(np.arange(11) == 4, x, 0.0)) for x in (-1, 0, 1)]
  found = prediction_band.bands(still, AT)['validation/loss']
  width = found.high - found.low
  wide = width > 0
  assert list(np.flatnonzero(wide)) == [3, 4, 5]


def test_the_resolution_of_a_metric_does_not_count():
  curve = np.linspace(0.0, 1.0, 11)
  logs = [log(curve) for _ in range(4)]
  assert agreement(log(curve + 0.002), logs).is_inside
  assert not agreement(log(curve + 0.02), logs).is_inside


def test_another_seed_is_inside_and_another_pace_is_not():
  logs = [log(loss(STEPS, seed)) for seed in range(4)]
  same = agreement(log(loss(STEPS, 7)), logs)
  assert same.is_inside and same.num_steps == 11 and same.num_logs == 4
  other = agreement(log(loss(STEPS, 7, pace=0.06)), logs)
  assert not other.is_inside
  assert other.value < other.low and other.step in STEPS


def test_one_step_of_ten_may_be_outside():
  logs = [log(loss(STEPS, seed)) for seed in range(4)]
  mean = np.mean([loss(STEPS, seed) for seed in range(4)], axis=0)
  once, twice = mean.copy(), mean.copy()
  once[5] *= 3
  twice[[5, 7]] *= 3
  assert agreement(log(once), logs).is_inside
  assert agreement(log(once), logs).step == STEPS[5]
  assert not agreement(log(twice), logs).is_inside


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_what_is_not_finite_is_outside(bad):
  logs = [log(loss(STEPS, seed)) for seed in range(4)]
  curve = loss(STEPS, 7)
  curve[-3:] = bad
  found = agreement(log(curve), logs)
  assert found.num_inside == 8 and found.step == STEPS[-3]


def test_logs_are_read_between_their_rows_and_not_beyond():
  steps = np.array([1, 25, 55, 95])
  found = log([4.0, 3.0, 2.0, 1.0], steps).at('validation/loss', np.array([0, 1, 40, 95, 96]))
  np.testing.assert_array_equal(found, [np.nan, 4.0, 2.5, 1.0, np.nan])


def test_a_step_needs_three_logs():
  logs = [log(loss(STEPS, seed)) for seed in range(3)] + [log(loss(STEPS[:5], 3), AT[:5])]
  assert list(prediction_band.bands(logs, AT)['validation/loss'].num_logs) == [4] * 5 + [3] * 6
  found = prediction_band.bands(logs[1:], AT)['validation/loss']
  assert list(found.steps) == list(STEPS[:5])
  assert prediction_band.bands(logs[:2], AT) == {}


def test_logs_that_diverged_say_nothing_from_there_on():
  logs = [log(loss(STEPS, seed)) for seed in range(4)]
  logs[0].curves['validation/loss'][6:] = np.nan
  found = prediction_band.bands(logs, AT)['validation/loss']
  assert list(found.num_logs[:5]) == [4] * 5 and list(found.num_logs[6:]) == [3] * 5


def test_a_run_is_held_against_the_band_as_far_as_it_got():
  logs = [log(loss(STEPS, seed)) for seed in range(4)]
  assert agreement(log(loss(STEPS[:4], 7), AT[:4]), logs).num_steps == 4


def test_metrics_that_the_run_lacks_are_left_out():
  logs = [log(loss(STEPS, seed)) for seed in range(3)]
  run = Log(folder=Path('.'), point={}, suite=None, steps=AT, curves={})
  assert prediction_band.agreements(run, prediction_band.bands(logs, AT)) == []
