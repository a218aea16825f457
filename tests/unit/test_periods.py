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
  ],
)
def test_the_smallest_period_that_explains_the_steps_is_found(work, expected, noise):
  assert period_of(steps(noise=noise, **work)) == expected


def test_even_steps_have_a_period_of_one():
  assert period_of(steps()) == period_of(steps(noise=0.02)) == period_of([1.0]) == 1


def test_what_is_there_once_is_no_period():
  assert period_of(steps(99, step_50=60.0)) is None
  assert period_of(steps(40, step_50=60.0)) is None


def test_a_busy_machine_has_no_period():
  rng = np.random.default_rng(1)
  for _ in range(20):
    slow = rng.random(200) < 0.05
    assert period_of(1.0 + 3.0 * slow + 0.1 * rng.random(200)) is None
