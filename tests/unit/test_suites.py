"""The rules of the suites that ship: figures that a change of code must not move by accident."""

from __future__ import annotations

import dataclasses

import pytest

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.suites import SUITES, Suite, Tuning

# axis, (studies, trials, share of the budget) of external and self tuning, seconds of free
# initialisation and of silence, whether a trial ends when it diverges
RULES = {
  'quick': ('cost_adjusted_steps', (5, 5, 1.0), (5, 1, 1.0), 120.0, 600.0, True),
  'lite': ('cost_adjusted_steps', (5, 5, 1.0), (5, 1, 1.0), 120.0, 3_600.0, True),
  'full': ('seconds', (3, 5, 1.0), (3, 1, 1.5), 120.0, 3_600.0, False),
  'algoperf_v05': ('seconds', (5, 5, 1.0), (5, 1, 3.0), 120.0, 3_600.0, False),
  'algoperf_v06': ('seconds', (3, 5, 1.0), (3, 1, 1.5), 120.0, 3_600.0, False),
  'algoperf_a100': ('seconds', (3, 5, 1.0), (3, 1, 1.5), 120.0, 3_600.0, False),
}


def _numbers(tuning: Tuning) -> tuple[int, int, float]:
  return tuning.num_studies, tuning.num_trials, tuning.budget_factor


def test_the_rules_of_a_trial():
  found = {
    name: (
      *(suite.axis, _numbers(suite.tuning['external']), _numbers(suite.tuning['self'])),
      *(suite.free_init_sec, suite.heartbeat_timeout_sec, suite.stop_on_divergence),
    )
    for name, suite in SUITES.items()
  }
  assert found == RULES


def test_the_rules_of_scoring():
  assert {suite.max_ratio for suite in SUITES.values()} == {4.0}
  grids = {name for name, suite in SUITES.items() if suite.integral == 'grid'}
  assert grids == {'algoperf_v05', 'algoperf_v06', 'algoperf_a100'}
  assert {name for name, suite in SUITES.items() if suite.counts_only_runnable} == {'quick', 'lite'}


def test_batch_norm_follows_algoperf_in_its_suites_and_nowhere_else():
  found = {name for name, suite in SUITES.items() if suite.running_average_bn}
  assert found == {'algoperf_v05', 'algoperf_v06', 'algoperf_a100'}


def test_the_batch_size_is_fixed_where_steps_are_raced_and_nowhere_else():
  fixed = {name for name, suite in SUITES.items() if suite.fixes_batch_size}
  assert fixed == {'quick', 'lite'}


@pytest.mark.parametrize(
  ('names', 'expected'),
  [
    (['nadamw', 'baseline', 'adamw'], 'baseline'),
    (['zeta', 'nadamw', 'adamw'], 'adamw'),
    (['zeta', 'nadamw'], 'nadamw'),
    (['zeta', 'beta'], None),
  ],
)
def test_the_baseline_is_the_first_that_is_there(names, expected):
  assert SUITES['quick'].baseline_among(names) == expected


def test_a_ruleset_that_a_suite_lacks_is_a_clear_mistake():
  suite = dataclasses.replace(SUITES['quick'], tuning={'self': Tuning(num_studies=1, num_trials=1)})
  assert suite.rules_of('self').num_studies == 1
  with pytest.raises(errors.UserError, match='quick has no external tuning; it has: self'):
    suite.rules_of('external')


def test_the_hash_is_that_of_the_rules_of_a_trial_and_of_nothing_else():
  suite: Suite = SUITES['full']
  other = Tuning(num_studies=3, num_trials=1, budget_factor=2.0)
  of_account = [
    {'name': 'another'},
    {'axis': 'cost_adjusted_steps'},
    {'free_init_sec': 121.0},
    {'running_average_bn': True},
    {'tuning': {'self': other}},
  ]
  of_none = [
    {'title': 'another'},
    {'max_ratio': 5.0},
    {'heartbeat_timeout_sec': 1.0},
    {'tuning': {'self': Tuning(num_studies=9, num_trials=9, budget_factor=1.5)}},
  ]
  before = suite.rules_hash('self')
  assert before not in {dataclasses.replace(suite, **one).rules_hash('self') for one in of_account}
  assert {dataclasses.replace(suite, **one).rules_hash('self') for one in of_none} == {before}
