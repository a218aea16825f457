"""After how many steps work repeats: found in noise, and not found where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from algorithmic_efficiency.experiments.race.periods import period_of


def steps(number: int = 200, *, noise: float = 0.0, **every: float) -> np.ndarray:
  """Steps of one second, with `step_<n>` more seconds every n steps, and a noise in each."""
  seconds = 1.0 + noise * np.abs(np.random.default_rng(0).standard_normal(number))
  for name, more in every.items():
    seconds[3 :: int(name.removeprefix('step_'))] += more
  return seconds


@pytest.mark.parametrize('noise', [0.0, 0.1])
@pytest.mark.parametrize(
  ('work', 'expected'),
  [
    *(({'step_10': 10.0}, 10), ({'step_50': 25.0}, 50), ({'step_100': 100.0}, 100)),
    *(({'step_2': 1.0}, 2), ({'step_10': 2.0, 'step_100': 50.0}, 100)),
    ({'step_20': 10.0, 'step_50': 15.0}, 100),
  ],
)
def test_the_smallest_period_that_explains_the_steps_is_found(work, expected, noise):
  assert period_of(steps(noise=noise, **work)) == expected


def test_even_steps_have_a_period_of_one():
  assert period_of(steps(100)) == period_of(steps(noise=0.02)) == 1


def test_what_is_there_a_few_times_asks_for_more_steps():
  """Noise may be there twice or three times, too."""
  for work in ({'step_80': 80.0}, {'step_10': 2.0, 'step_80': 80.0}, {'step_30': 20.0}):
    assert period_of(steps(110, **work)) is None
  assert period_of(steps(200, step_80=80.0)) == 80
  assert period_of(steps(120, step_30=20.0)) == 30


@pytest.mark.parametrize('work', [{}, {'step_10': 10.0}])
def test_fewer_steps_than_the_longest_period_tell_nothing(work):
  assert period_of(steps(99, **work)) is None


def test_steps_that_were_not_timed_count_nowhere():
  seconds = steps(202, step_100=50.0)
  seconds[[0, 3, 101]] = np.nan
  assert period_of(seconds) == 100


def busy(rng: np.random.Generator, number: int = 101) -> np.ndarray:
  """Steps of about one second on a machine that has other work for a quarter of the time.

  Of single steps, and for spells of about ten steps.
  """
  spells = np.repeat(rng.random(number // 10 + 1) < 0.2, 10)[:number]
  single = (rng.random(number) < 0.1) * rng.exponential(1.0, number)
  return 1.0 + 0.5 * spells + single + 0.05 * np.abs(rng.standard_normal(number))


def test_a_busy_machine_has_no_period():
  """Regression: every trace of a busy machine was uneven, so that bursts had 100 steps."""
  rng = np.random.default_rng(1)
  found = [period_of(busy(rng)) for _ in range(40)]
  assert found.count(1) >= 20 and found.count(1) + found.count(None) >= 39
  again = [period_of(busy(rng, 202)) for _ in range(40)]
  assert again.count(1) >= 38 and None not in again


@pytest.mark.parametrize('extra', [0.5, 1.0])
@pytest.mark.parametrize('period', [3, 10, 20, 50, 64, 100])
def test_periodic_work_is_found_on_a_busy_machine(period, extra):
  rng = np.random.default_rng(2)
  found = []
  for _ in range(10):
    seconds = busy(rng, 202)
    seconds[rng.integers(period) :: period] += extra * period
    found.append(period_of(seconds))
  assert found.count(period) >= 9
