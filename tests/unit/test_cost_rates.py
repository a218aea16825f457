"""How often differences of costs are found: a small version of tests/simulations/cost_rates.py."""

from __future__ import annotations

import math

import cost_rates
import pytest
from cost_rates import DIFFERENCE, Noise

from scoring import cost_errors


def rates(noise: Noise, ratio: float) -> list[float]:
  return [
    cost_rates.found(noise, num_workloads=2, num_studies=number, ratio=ratio, num_suites=200)
    for number in (3, 5, 40)
  ]


@pytest.mark.parametrize('name', ['no part that stays', '0.7 % stays, heavy tails'])
def test_more_studies_find_more_and_are_wrong_no_more_often(name):
  """Regression: the largest noise of any study was the floor, so that more studies found less."""
  noise = cost_rates.SETTINGS[name]
  few, usual, many = rates(noise, math.log1p(DIFFERENCE))
  assert few < usual - 0.05 and usual < many - 0.05
  assert max(rates(noise, 0.0)) <= 0.09  # 5 %, and three standard errors


def test_a_difference_is_found_where_a_board_has_a_verdict():
  """Regression: the table was of an interval for the mean, which decided on any few studies."""
  one_workload = {'num_workloads': 1, 'num_suites': 5, 'ratio': math.log(1.5)}
  quiet = Noise(place_sd=0.0, process_sd=0.001)
  assert cost_rates.found(quiet, num_studies=5, **one_workload) == 0.0  # whatever the times
  assert cost_rates.found(quiet, num_studies=6, **one_workload) == 1.0
  below = {**one_workload, 'ratio': math.log1p(0.01)}  # 2 % are needed
  assert cost_rates.found(quiet, num_studies=6, **below) == 0.0


def test_no_two_of_many_equal_entries_are_told_apart_by_errors_that_stay():
  """Regression: each pair had its own 5 %, so that 31 % of boards with 8 entries had a verdict."""
  design = {'num_workloads': 4, 'num_studies': 5, 'num_suites': 40, 'num_entries': 8}
  assert cost_rates.found(cost_rates.SETTINGS['2 % stays'], ratio=0.0, **design) <= 0.15


def test_a_part_that_stays_is_never_averaged_away(monkeypatch):
  noise = cost_rates.SETTINGS['2 % stays']
  assert rates(noise, 0.0)[-1] <= 0.09
  monkeypatch.setattr(cost_errors.CostErrors, 'difference_sd', lambda *_: 0.0)
  assert rates(noise, 0.0)[-1] > 0.25  # of those above 2 %, by the spread over studies alone


def test_a_quiet_and_a_busy_host_agree_on_the_costs_of_four_algorithms():
  overlaps, holds = cost_rates.agreement(1, num_studies=3)
  assert overlaps == dict.fromkeys(cost_rates.ALGORITHMS.keys() - {'nadamw'}, 1.0)
  assert sum(holds.values()) >= len(holds) - 1  # of intervals of 95 %


@pytest.mark.parametrize('host', [cost_rates.quiet, cost_rates.busy])
def test_timing_takes_no_longer_than_trials(host):
  """Regression: on a busy machine, it took twice as long as the trials of a demo."""
  assert cost_rates.timing_share(host(0, 0.05)) <= 1.0
