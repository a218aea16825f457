"""Errors of costs that studies have in common: how large, what cancels, what is drawn."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from scoring.cost_errors import NOT_MEASURED, CostErrors

# On one workload: the baseline and two others in one framework, one in another, one not measured.
NADAMW, A, B, OTHER, UNKNOWN = range(5)
ERRORS = CostErrors(
  log_sd=0.1,
  df=2,
  places=np.array([[0], [0], [0], [1], [NOT_MEASURED]]),
  is_unit=np.array([[True], [False], [False], [False], [False]]),
)
T_2 = 4.3027  # the quantile of two draws


@pytest.mark.parametrize(
  ('pair', 'factor'),
  [
    *(((A, B), 1.0), ((A, NADAMW), 1.0), ((A, OTHER), math.sqrt(2)), ((NADAMW, OTHER), 1.0)),
    *(((A, UNKNOWN), 1.0), ((NADAMW, UNKNOWN), 0.0)),
  ],
)
def test_the_error_of_the_baseline_cancels_between_those_measured_beside_it(pair, factor):
  assert ERRORS.least_effect(*pair, [0]) == pytest.approx(factor * T_2 * 0.1, rel=1e-4)
  logs = np.log(ERRORS.draw(np.random.default_rng(0), 20_000)[:, pair, 0])
  spread = np.abs(logs[:, 0] - logs[:, 1])
  assert np.quantile(spread, 0.5) == pytest.approx(factor * 0.1 * 0.8165, rel=0.05)


def test_draws_exceed_the_margin_as_often_as_it_says():
  logs = np.log(ERRORS.draw(np.random.default_rng(0), 40_000)[..., 0])
  margin = ERRORS.least_effect(A, B, [0], level=0.1)
  assert np.mean(np.abs(logs[:, A] - logs[:, B]) > margin) == pytest.approx(0.1, abs=0.005)


def test_the_margin_of_many_pairs_holds_all_of_them_at_once():
  pairs = [*itertools.combinations(range(5), 2)]
  alone, together = (ERRORS.quantile(some, [0], level=0.1) for some in (pairs[:1], pairs))
  rng = np.random.default_rng(1)
  logs = np.log(ERRORS.draw(rng, 20_000)[..., 0])  # with a spread that is as uncertain
  ratios = [
    np.abs(logs[:, a] - logs[:, b]) / sd
    for a, b in pairs
    if (sd := ERRORS.difference_sd(a, b, [0]))
  ]
  assert np.mean(np.max(ratios, axis=0) > together) == pytest.approx(0.1, abs=0.01)
  assert together > 1.5 * alone
  assert np.mean(ratios[0] > alone) == pytest.approx(0.1, abs=0.01)


def test_the_error_of_a_mean_over_workloads_is_smaller():
  two = dataclasses.replace(
    ERRORS, places=np.tile(ERRORS.places, 2), is_unit=np.tile(ERRORS.is_unit, 2)
  )
  one = ERRORS.least_effect(A, B, [0])
  assert two.least_effect(A, B, [0, 1]) == pytest.approx(one / math.sqrt(2))


def test_the_tails_of_one_degree_of_freedom_stay_finite():
  one = dataclasses.replace(ERRORS, log_sd=10.0, df=1)
  assert np.isfinite(one.draw(np.random.default_rng(0), 20_000)).all()


def test_without_a_measure_nothing_is_drawn_and_nothing_is_asked_for():
  unknown = dataclasses.replace(ERRORS, log_sd=0.0, df=0)
  assert (unknown.draw(np.random.default_rng(0), 3) == 1.0).all()
  assert unknown.least_effect(A, B, [0]) == ERRORS.least_effect(A, B, []) == 0.0
  factors, found = unknown.simulate(np.random.default_rng(0))
  assert (factors == 1.0).all() and found is unknown


def test_another_measurement_is_wrong_by_as_much_as_is_said():
  """Its margins hold its own errors as often as they say."""
  rng = np.random.default_rng(0)
  held = []
  for _ in range(4000):
    factors, found = ERRORS.simulate(rng)
    logs = np.log(factors[:, 0])
    assert logs[NADAMW] == logs[UNKNOWN] == 0.0
    held.append(abs(logs[A] - logs[B]) <= found.least_effect(A, B, [0], level=0.1))
  assert np.mean(held) == pytest.approx(0.9, abs=0.015)


def test_the_margin_of_a_cost_is_the_wider_of_that_over_studies_and_that_of_copies():
  logs = np.array([0.0, 0.2, 0.1])
  over_studies = 4.3027 * 0.1 / math.sqrt(3)
  assert ERRORS.margin(logs) == pytest.approx(T_2 * 0.1, rel=1e-4)
  assert dataclasses.replace(ERRORS, log_sd=0.01).margin(logs) == pytest.approx(over_studies, 1e-4)
  unknown = dataclasses.replace(ERRORS, log_sd=0.0, df=0)
  assert unknown.margin(logs) == pytest.approx(over_studies, 1e-4)
  assert math.isnan(unknown.margin(logs[:1]))
