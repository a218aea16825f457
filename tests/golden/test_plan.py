"""The price of a benchmark from its published budgets, against a sum by hand."""

from __future__ import annotations

import pytest

from algorithmic_efficiency.experiments.race.estimate import BudgetLimits, from_budgets
from algorithmic_efficiency.experiments.race.race import Race, RaceSubmission
from algorithmic_efficiency.launch import request
from algorithmic_efficiency.trial.run_options import with_options

# Seconds of the budgets of AlgoPerf on A100, and the 3 studies of 5 trials of external tuning.
A100 = {
  'criteo1tb': 8_915,
  'fastmri': 2_745,
  'finewebedu_lm': 31_967,
  'imagenet_resnet': 49_918,
  'imagenet_vit': 64_292,
  'librispeech_conformer': 43_680,
  'librispeech_deepspeech': 36_949,
  'ogbg': 11_303,
  'wmt': 16_114,
}
A100_SEC = 265_883  # their sum


@pytest.fixture(autouse=True)
def _no_framework(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(request, '_missing', lambda framework: ['everything'])


def race(**changes) -> Race:
  fields = {
    'suite': 'algoperf_a100',
    'entries': (RaceSubmission(submission='nadamw'),),
    'frameworks': ('jax',),
  }
  return with_options(Race, {**fields, **changes})


def test_external_tuning_on_a100():
  found = from_budgets(race(), BudgetLimits(price_per_hour=2.5))
  assert {one.workload: one.at_most_sec for one in found.trials} == A100
  assert found.num_runs == 135
  assert found.wall_sec.at_most == 3_988_245  # 15 x 265,883
  assert found.device_hours.at_most == pytest.approx(4_431.383_333)  # on 4 devices
  assert found.price.at_most == pytest.approx(11_078.458_333)
  assert found.wall_sec.expected == pytest.approx(0.75 * 3_988_245)


def test_self_tuning_has_one_trial_a_study_and_a_longer_budget():
  found = from_budgets(race(ruleset='self'), BudgetLimits())
  assert found.num_runs == 27
  assert found.wall_sec.at_most == 3 * 1.5 * A100_SEC


def test_submissions_and_frameworks_multiply_and_devices_divide():
  entries = (RaceSubmission(submission='nadamw'), RaceSubmission(submission='nadamw', name='twin'))
  both = race(entries=entries, frameworks=('jax', 'pytorch'), studies=1, trials=1)
  one, two = from_budgets(both, BudgetLimits()), from_budgets(both, BudgetLimits(num_devices=8))
  assert one.wall_sec.at_most == 4 * A100_SEC
  assert (two.num_parallel, two.device_hours) == (2, one.device_hours)
  # Each workload's four trials take turns on two groups of four devices.
  assert two.wall_sec.at_most == 2 * A100_SEC


def test_the_held_out_workloads_of_the_competition_are_priced_too():
  found = from_budgets(race(suite='algoperf_v05', studies=1, trials=1), BudgetLimits())
  base = 7_703 + 8_859 + 63_008 + 77_520 + 61_068 + 55_506 + 18_477 + 48_151
  held_out = 7_703 + 18_477 + 8_859 + 48_151 + 61_068 + 63_008
  assert found.wall_sec.at_most == base + held_out
