"""What a race is priced at: probes, prices of trials, the sum of all, and bad input."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_stepper import FakeHost
from fake_trial import rules, step_rules

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Generation
from algorithmic_efficiency.cli import main, plan
from algorithmic_efficiency.errors import UserError
from algorithmic_efficiency.experiments.race import (
  estimate as estimates,
)
from algorithmic_efficiency.experiments.race import (
  probe,
  step_cost,
  trial_estimate,
)
from algorithmic_efficiency.experiments.race.estimate import BudgetLimits
from algorithmic_efficiency.experiments.race.probe import Probe
from algorithmic_efficiency.experiments.race.race import Race, RaceSubmission, expand
from algorithmic_efficiency.launch import request
from algorithmic_efficiency.launch.slots import Slot
from algorithmic_efficiency.results import race_files
from algorithmic_efficiency.results.race_files import StepCost
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.run_options import RunOptions, with_options

PROBE = Probe(
  start_sec=2.0,
  first_step_sec=1.5,
  step_sec=0.5,
  first_eval_sec=1.0,
  eval_sec=3.0,
  partial_eval_sec=0.25,
  record_sec=0.125,
  end_sec=0.25,
  off_clock_sec=0.5,
  checkpoint_bytes=1000,
  row_bytes=10.0,
  folder_bytes=200,
  peak_memory_bytes={'host': 5},
  num_devices=1,
  host='some host',
)


@pytest.fixture(autouse=True)
def _no_framework(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(request, '_missing', lambda framework: [])


def race(folder: Path, *names: str, **changes: Any) -> Race:
  fields: dict[str, Any] = {
    'suite': 'quick',
    'entries': tuple(
      RaceSubmission(submission='nadamw', name=name) for name in names or ('nadamw',)
    ),
    'frameworks': ('jax',),
    'workloads': ('quick_vision',),
    'ruleset': 'self',
    'seed': 1,
    'allow_provisional': True,
    'experiment_dir': str(folder / 'runs'),
    'data_dir': str(folder),
  }
  return with_options(Race, {**fields, **changes})


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
  found = FakeHost(step_sec={'nadamw': 0.01, 'twin': 0.01, 'slow': 0.03})
  monkeypatch.setattr(probe, 'Stepper', found.stepper)
  monkeypatch.setattr(probe, 'time', SimpleNamespace(perf_counter=lambda: found.now))
  return found


class TestProbe:
  def one(self, folder: Path, **changes: Any) -> TrialConfig:
    return dataclasses.replace(expand(race(folder))[0], **changes)

  def test_it_takes_a_trial_apart(self, host, tmp_path):
    found = probe.probe(self.one(tmp_path), Slot())
    assert (found.start_sec, found.first_step_sec) == (2.0, pytest.approx(1.01))
    assert found.step_sec == pytest.approx(0.01)
    assert (found.first_eval_sec, found.record_sec) == (pytest.approx(1.0), 0.25)
    assert (found.end_sec, found.off_clock_sec) == (0.25, pytest.approx(0.5))
    assert (found.checkpoint_bytes, found.row_bytes, found.folder_bytes) == (1000, 100, 0)
    assert found.peak_memory_bytes == {'host': 1000}

  def test_an_evaluation_is_that_of_all_batches_by_two_of_each_split(self, host, tmp_path):
    """Of 359 examples in batches of 100 there are four; one takes 0.5 s, a second one 0.1 s."""
    host.eval_sec = lambda num_batches: 3 * (0.5 + 0.1 * (num_batches - 1))
    found = probe.probe(self.one(tmp_path), Slot())
    assert found.eval_sec == pytest.approx(3 * (0.5 + 3 * 0.1))
    assert found.partial_eval_sec == pytest.approx(0.5)
    found = probe.probe(self.one(tmp_path, options=RunOptions(splits=('validation',))), Slot())
    assert found.eval_sec == pytest.approx(3 * (0.5 + 3 * 0.1))

  def generation(self, monkeypatch, metric: str, **changes: Any) -> None:
    """Gives the workload another definition, of which a metric is generated."""
    definition = registry.workload('quick_vision', 'quick')
    one = dataclasses.replace(
      definition,
      generation=Generation(metrics=(metric,), **changes),
      metrics=('accuracy', 'bleu', 'loss'),
    )
    monkeypatch.setattr(probe, '_definition', lambda config: one)

  @pytest.mark.parametrize(
    ('changes', 'num_batches'),
    [({}, 4 + 4), ({'max_examples': 101}, 2 + 2), ({'splits': ('test',)}, 4)],
  )
  def test_generation_is_measured_apart(self, host, tmp_path, monkeypatch, changes, num_batches):
    """One batch takes 2 s; of 359 examples in batches of 100 there are four, in two splits."""
    num_splits = len(changes.get('splits', ('validation', 'test')))
    host.generation_sec = lambda max_batches: 2.0 * num_splits * max_batches
    before = probe.probe(self.one(tmp_path), Slot())
    assert (before.generation_sec, before.first_generation_sec) == (0.0, 0.0)
    self.generation(monkeypatch, 'bleu', **changes)
    found = probe.probe(self.one(tmp_path), Slot())
    assert found.generation_sec == pytest.approx(2.0 * num_batches)
    assert found.first_generation_sec == pytest.approx(1.0)
    for name in ('eval_sec', 'partial_eval_sec', 'first_eval_sec', 'step_sec'):
      assert getattr(found, name) == pytest.approx(getattr(before, name)), name

  def test_where_the_target_is_generated_a_partial_evaluation_generates_a_batch(
    self, host, tmp_path, monkeypatch
  ):
    host.generation_sec = lambda max_batches: 2.0 * 2 * max_batches
    before = probe.probe(self.one(tmp_path), Slot()).partial_eval_sec
    self.generation(monkeypatch, 'loss')
    found = probe.probe(self.one(tmp_path), Slot())
    assert found.partial_eval_sec == pytest.approx(before + 2.0)

  def test_it_ends_when_its_time_is_over(self, host, tmp_path):
    probe.probe(self.one(tmp_path), Slot(), limit_sec=1.0)
    short = len(host.calls)
    host.calls.clear()
    probe.probe(self.one(tmp_path), Slot(), limit_sec=1000.0)
    assert short < len(host.calls) < 20

  def test_bursts_are_no_longer_than_the_stretch_between_two_evaluations(self, host, tmp_path):
    """Those of quick_lm are 5 steps apart."""
    probe.probe(expand(race(tmp_path, workloads=('quick_lm',)))[0], Slot())
    assert max(num_steps for _, num_steps, _ in host.calls) == 5

  def test_a_shared_compilation_cache_that_was_filled_on_the_way_asks_for_a_second_look(
    self, host, tmp_path, monkeypatch
  ):
    cache = tmp_path / 'cache'
    cache.mkdir()
    devices = dataclasses.replace(self.one(tmp_path).devices, compilation_cache=str(cache))

    def fill(num_batches: int) -> float:
      (cache / 'program').write_bytes(b'')
      return 0.5

    host.eval_sec = fill
    probe.probe(self.one(tmp_path, devices=devices), Slot())
    assert sum(num_steps == 1 and batches == 1 for _, num_steps, batches in host.calls) == 2
    host.calls.clear()
    probe.probe(self.one(tmp_path, devices=devices), Slot())
    assert sum(num_steps == 1 and batches == 1 for _, num_steps, batches in host.calls) == 1

  def test_each_submission_is_probed_once_and_one_that_fails_says_why(self, host, tmp_path):
    configs = expand(race(tmp_path, 'nadamw', 'slow'))
    seen = []
    found, failures = probe.probe_all(configs, [Slot()], lambda *number: seen.append(number))
    assert failures == {}
    assert {cell: one.step_sec for cell, one in found.items()} == {
      ('nadamw', 'quick_vision', 'jax'): pytest.approx(0.01),
      ('slow', 'quick_vision', 'jax'): pytest.approx(0.03),
    }
    assert seen[-1] == (2, 2)
    host.fails = {'slow': 'ValueError: no.'}
    found, failures = probe.probe_all(configs, [Slot()])
    assert [name for name, *_ in found] == ['nadamw']
    assert failures == {('slow', 'quick_vision', 'jax'): 'ValueError: no.'}


class TestPriceOfATrial:
  def test_on_the_axis_of_steps(self):
    """20 steps with an evaluation after the first and then every 5: at 1, 5, 10, 15 and 20."""
    found = trial_estimate.trial(step_rules(20, 5), PROBE, checkpoints=True)
    assert found.sec == 2.0 + (1.5 + 19 * 0.5) + (1.0 + 5 * (3.0 + 0.125)) + 0.25
    assert found.disk_bytes == 200 + 5 * 10 + 2 * 1000
    half = trial_estimate.trial(step_rules(20, 5), PROBE, checkpoints=False, share=0.5)
    assert half.sec == 2.0 + (1.5 + 9 * 0.5) + (1.0 + 3 * (3.0 + 0.125)) + 0.25
    assert half.disk_bytes == 200 + 3 * 10

  def test_on_the_axis_of_seconds(self):
    """In 10 s of training an evaluation follows the first step and then every 4 s."""
    given = rules(max_sec=10.0, eval_period_sec=4.0)
    found = trial_estimate.trial(given, PROBE, checkpoints=True)
    assert found.sec == 2.0 + 10.0 + (1.0 + 3 * (3.0 + 0.125)) + 0.25
    half = trial_estimate.trial(given, PROBE, checkpoints=True, share=0.5)
    assert half.sec == 2.0 + 5.0 + (1.0 + 2 * (3.0 + 0.125)) + 0.25

  @pytest.mark.parametrize('given', [step_rules(20, 5), rules(max_sec=10.0, eval_period_sec=4.0)])
  def test_a_limit_on_steps_ends_it(self, given):
    limited = dataclasses.replace(given, max_global_steps=2)
    found = trial_estimate.trial(limited, PROBE, checkpoints=True)
    num_evals = 2 if given.axis == 'cost_adjusted_steps' else 1
    assert found.sec == 2.0 + (1.5 + 0.5) + (1.0 + num_evals * 3.125) + 0.25

  def test_glances_between_whole_evaluations_cost_less(self):
    given = dataclasses.replace(step_rules(20, 5), full_eval_every=2)
    found = trial_estimate.trial(given, PROBE, checkpoints=True)
    whole = trial_estimate.trial(step_rules(20, 5), PROBE, checkpoints=True)
    assert whole.sec - found.sec == 2 * (3.0 - 0.25)

  @pytest.mark.parametrize(
    ('every', 'full_eval_every', 'number'),
    [(1, 1, 5), (2, 1, 3), (3, 1, 3), (4, 1, 2), (None, 1, 2), (2, 2, 2), (1, 2, 3), (None, 99, 1)],
  )
  def test_evaluations_that_generate_cost_more(self, every, full_eval_every, number):
    """Of five evaluations with every=3 there are those of number 0, 3 and the last, 4."""
    given = dataclasses.replace(step_rules(20, 5), full_eval_every=full_eval_every)
    costly = dataclasses.replace(PROBE, generation_sec=7.0, first_generation_sec=4.0)
    without = trial_estimate.trial(given, costly, checkpoints=True).sec
    given = dataclasses.replace(given, generation=Generation(metrics=('bleu',), every=every))
    found = trial_estimate.trial(given, costly, checkpoints=True).sec
    assert found - without == 4.0 + number * 7.0

  def test_the_rules_of_a_trial_say_what_is_generated(self, tmp_path, monkeypatch):
    generation = Generation(metrics=('loss',))
    definition = dataclasses.replace(
      registry.workload('quick_vision', 'quick'), generation=generation
    )
    config = expand(race(tmp_path))[0]
    assert trial_estimate.rules_of(config).generation is None
    monkeypatch.setattr(registry, 'workload', lambda *names: definition)
    assert trial_estimate.rules_of(config).generation == generation


class TestExpectation:
  def one(self, folder: Path, **changes: Any) -> TrialConfig:
    return expand(race(folder, **changes))[0]

  def record(self, one: TrialConfig, charged_steps: int, **changes: Any) -> TrialRecord:
    fields = {
      'status': 'finished',
      'charged_steps': charged_steps,
      'definition_hash': registry.workload('quick_vision', 'quick').content_hash(),
    }
    return dataclasses.replace(one.record(), **{**fields, **changes})

  def test_it_is_that_of_trials_which_stopped(self, tmp_path):
    one = self.one(tmp_path)
    found = trial_estimate.expected_share(one, [self.record(one, 120), self.record(one, 240)])
    assert (found.share, found.basis) == (0.75, '2 trials that ran before')

  def test_the_same_framework_tells_more_than_the_other(self, tmp_path):
    one = self.one(tmp_path)
    other = self.record(one, 240, framework='pytorch')
    assert trial_estimate.expected_share(one, [other]).share == 1.0
    assert trial_estimate.expected_share(one, [other, self.record(one, 120)]).share == 0.5

  @pytest.mark.parametrize(
    'changes',
    [
      {'status': 'failed', 'stop_reason': 'failed'},
      {'stop_reason': 'step_limit'},
      {'submission': 'another'},
      {'definition_hash': 'of another definition'},
      {'options': {'stop_at': 'validation'}},
      {'smoke': True},
    ],
  )
  def test_other_trials_say_nothing_and_then_it_is_assumed(self, tmp_path, changes):
    one = self.one(tmp_path)
    found = trial_estimate.expected_share(one, [self.record(one, 120, **changes)])
    assert (found.share, found.basis) == (0.75, 'assumed: 3/4 of the budget')

  def test_a_trial_that_stops_at_no_goal_takes_its_budget(self, tmp_path):
    one = self.one(tmp_path, stop_at='never')
    assert trial_estimate.expected_share(one, []).share == 1.0


class TestRace:
  def estimate(
    self, given: Race, limits: BudgetLimits | None = None, **changes: Any
  ) -> estimates.Estimate:
    return estimates.from_probes(given, limits or BudgetLimits(), **changes)

  def test_it_is_the_sum_of_its_trials(self, host, tmp_path):
    """One submission, so nothing to be compared: 5 trials of 240 steps and 121 evaluations."""
    found = self.estimate(race(tmp_path))
    trial = 2.0 + (1.01 + 239 * 0.01) + (1.0 + 121 * (0.5 + 0.25)) + 0.25
    assert found.num_runs == 5
    assert found.trials[0].at_most_sec == pytest.approx(trial)
    assert found.wall_sec.at_most == pytest.approx(5 * trial)
    assert found.device_hours.at_most == pytest.approx(5 * trial / 3600)
    assert found.disk_bytes.at_most == pytest.approx(5 * (121 * 100 + 2 * 1000))
    assert found.peak_memory_bytes == {'host': 1000}

  def test_timing_steps_against_the_baseline_is_counted(self, host, tmp_path):
    found = self.estimate(race(tmp_path, 'nadamw', 'twin'))
    trials = sum(one.num_trials * one.at_most_sec for one in found.trials)
    known = {
      'start_sec': 2.0,
      'first_step_sec': 1.01,
      'step_sec': 0.01,
      'partial_eval_sec': 0.5 / 3,
    }
    one = dataclasses.replace(PROBE, **known)
    first, later = (
      step_cost.expected_sec([one, one], estimates.num_usable_cpus(), is_first=is_first)
      for is_first in (True, False)
    )
    assert first == pytest.approx(later + 2 * 101 * 0.01)  # two traces
    assert found.timing_sec == pytest.approx(first + 4 * later, rel=1e-3)
    assert found.wall_sec.at_most == pytest.approx(trials + found.timing_sec)
    assert any(line.startswith('timing of steps') for line in plan.lines(found))
    assert found.peak_memory_bytes == {'host': 3000}  # both, and the baseline once more

  def test_the_timing_has_the_baseline_between_any_two_wherever_it_is_named(self, host, tmp_path):
    fast, slow = (dataclasses.replace(PROBE, step_sec=sec) for sec in (0.01, 0.5))
    probes = {('nadamw', 'quick_vision', 'jax'): fast, ('other', 'quick_vision', 'jax'): slow}
    given = race(tmp_path, 'nadamw', 'other', studies=1)
    first, last = (
      estimates._timings(given, expand(given), dict(order), Slot())
      for order in (probes.items(), reversed(probes.items()))
    )
    assert first == last

  def test_timing_that_is_done_is_not_counted_again(self, host, tmp_path):
    probes = {(name, 'quick_vision', 'jax'): PROBE for name in ('nadamw', 'twin', 'late')}
    given = race(tmp_path, 'nadamw', 'twin', 'late', studies=1)

    def left() -> float:
      [seconds] = estimates._timings(given, expand(given), probes, Slot()).values()
      return seconds

    sec = []
    for name in ('nadamw', 'twin', 'late'):
      sec.append(left())
      cost = StepCost(
        submission=name,
        baseline='nadamw',
        workload='quick_vision',
        framework='jax',
        study=1,
        host='h',
        rounds=((1.0, 1.0, 1.0),),
      )
      race_files.append_costs(given.folder, [cost])
    assert sec[0] == sec[1] > sec[2] > 0.0  # the baseline is there in any case
    assert left() == 0.0

  def test_places_and_devices_share_the_work(self, host, tmp_path, monkeypatch):
    given = race(tmp_path, studies=4, workers=2)
    monkeypatch.setattr(estimates, 'slots', lambda devices, workers: (Slot(),) * (workers or 1))
    one, two = self.estimate(race(tmp_path, studies=4)), self.estimate(given)
    assert two.wall_sec.at_most == pytest.approx(one.wall_sec.at_most / 2)
    assert two.device_hours == one.device_hours
    four = self.estimate(given, BudgetLimits(num_devices=4, price_per_hour=3.0))
    assert four.wall_sec.at_most == pytest.approx(one.wall_sec.at_most / 4)
    assert four.price.at_most == pytest.approx(3.0 * one.device_hours.at_most)
    host.num_devices = 3
    with pytest.raises(UserError, match='One trial needs 3 devices; --devices gives 2'):
      self.estimate(given, BudgetLimits(num_devices=2))

  def test_what_is_done_costs_nothing_more_and_says_where_trials_stop(self, host, tmp_path):
    given = race(tmp_path)
    first = expand(given)[0]
    first.path.mkdir(parents=True)
    definition = registry.workload('quick_vision', 'quick').content_hash()
    record = dataclasses.replace(
      first.record(), status='finished', charged_steps=60, definition_hash=definition
    )
    record.write(first.path)
    found = self.estimate(given)
    assert (found.num_runs, found.num_done) == (5, 1)
    assert found.trials[0].basis == '1 trial that ran before'
    assert found.wall_sec.expected == pytest.approx(4 * found.trials[0].expected_sec)
    again = self.estimate(race(tmp_path, overwrite=True))
    assert again.num_done == 0
    assert again.wall_sec.expected == pytest.approx(5 * found.trials[0].expected_sec)
    elsewhere = self.estimate(
      race(tmp_path, experiment_dir=str(tmp_path / 'new')), evidence=tmp_path / 'runs'
    )
    assert elsewhere.trials[0].basis == '1 trial that ran before'

  def test_one_that_fails_costs_what_the_slowest_does_at_most(self, host, tmp_path):
    given = race(tmp_path, 'nadamw', 'slow', 'twin')
    whole = self.estimate(given)
    host.fails = {'twin': 'ValueError: no.'}
    found = self.estimate(given)
    _, slow, twin = found.trials
    assert (twin.submission, twin.at_most_sec) == ('twin', slow.at_most_sec)
    assert twin.basis == 'unknown, as its first steps fail; by slow'
    assert found.wall_sec.at_most > whole.wall_sec.at_most
    assert found.problems == (
      'twin on quick_vision (jax) is priced by the steps of slow, as its own fail: ValueError: no.',
    )

  def test_where_all_fail_there_is_no_price(self, host, tmp_path):
    host.fails = {'nadamw': 'ValueError: no.', 'slow': 'MemoryError'}
    with pytest.raises(UserError, match=r'nadamw: ValueError: no\.; slow: MemoryError') as refused:
      self.estimate(race(tmp_path, 'nadamw', 'slow'))
    assert 'no submission completes them on quick_vision (jax)' in str(refused.value)

  def test_what_failed_costs_nothing_unless_it_is_run_again(self, host, tmp_path):
    given = race(tmp_path)
    first, second, *_ = expand(given)
    for one, stop_reason in ((first, 'failed'), (second, 'interrupted')):
      one.path.mkdir(parents=True)
      dataclasses.replace(one.record(), status='failed', stop_reason=stop_reason).write(one.path)
    left, again = self.estimate(given), self.estimate(given, retry_failed=True)
    assert (left.num_done, again.num_done) == (1, 0)
    assert again.wall_sec.at_most == pytest.approx(5 / 4 * left.wall_sec.at_most)

  def test_it_is_stored_before_the_race_and_not_afterwards(self, host, tmp_path):
    found = self.estimate(race(tmp_path))
    estimates.store(found, tmp_path)
    assert race_files.read_estimate(tmp_path) == found.trials
    later = dataclasses.replace(found, num_done=1, trials=())
    estimates.store(later, tmp_path)
    assert race_files.read_estimate(tmp_path) == found.trials
    estimates.store(dataclasses.replace(later, num_done=0), tmp_path)
    assert race_files.read_estimate(tmp_path) == ()

  @pytest.mark.parametrize(
    'text', ['', '{}', '{"trials": [{}]}', '{"trials": 3}', '[]', '[' * 10**5]
  )
  @pytest.mark.parametrize('name', ['cost_estimate.json', 'plan.json'])
  def test_a_damaged_estimate_is_a_mistake(self, tmp_path, text, name):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=f'{name} is damaged'):
      race_files.read_estimate(tmp_path)

  @pytest.mark.parametrize('value', ['"long"', 'null', 'NaN', '1e308', '-1', '{"$float": "nan"}'])
  def test_a_time_that_no_trial_takes_is_a_mistake(self, host, tmp_path, value):
    estimates.store(self.estimate(race(tmp_path)), tmp_path)
    path = tmp_path / race_files.ESTIMATE_FILE
    path.write_text(re.sub(r'("expected_sec": )[^,]*', rf'\g<1>{value}', path.read_text()))
    with pytest.raises(UserError, match=r'trials\[0\].expected_sec: .*'):
      race_files.read_estimate(tmp_path)

  def test_the_estimate_of_version_0_1_0_is_read_under_its_name(self, host, tmp_path):
    found = self.estimate(race(tmp_path))
    estimates.store(found, tmp_path)
    (tmp_path / 'cost_estimate.json').rename(tmp_path / 'plan.json')
    assert race_files.read_estimate(tmp_path) == found.trials


def test_jobs_start_in_their_order_as_soon_as_a_place_is_free():
  assert estimates.wall_sec([3.0, 1.0, 1.0, 4.0], 1) == 9.0
  assert estimates.wall_sec([3.0, 1.0, 1.0, 4.0], 2) == 6.0  # the last behind the two short ones
  assert estimates.wall_sec([3.0, 1.0], 4) == 3.0
  assert estimates.wall_sec([], 2) == 0.0
  assert estimates.wall_sec([3.0, 1.0], 10**30) == 3.0


class TestCommand:
  BUDGET = ('plan', '--suite', 'algoperf_a100', '--submissions', 'nadamw', '--frameworks', 'jax')

  def test_from_budgets_in_words(self, capsys):
    assert main([*self.BUDGET, '--from_budget', '--price_per_hour', '2.5']) == 0
    shown = capsys.readouterr().out
    assert '135 trials, by the budgets of algoperf_a100, on 4x A100-SXM4-40GB.' in shown
    assert '1,107.8 h' in shown and '4,431.4' in shown and '11,078.46' in shown
    assert 'Not counted: starting, compiling, evaluations and checkpoints.' in shown

  def test_from_budgets_as_json(self, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*self.BUDGET, '--from_budget', '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['wall_sec']['at_most'] == 3_988_245
    assert len(found['trials']) == 9
    assert list(tmp_path.iterdir()) == []  # nothing is stored

  def test_from_probes(self, host, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = 'plan --suite quick --workloads quick_vision --submissions nadamw,twin=nadamw'
    assert main([*words.split(), '--ruleset', 'self', '--frameworks', 'jax']) == 0
    shown = capsys.readouterr().out
    assert '10 trials, by steps and batches that were probed on this machine.' in shown
    assert 'assumed: 3/4 of the budget' in shown
    stored = race_files.read_estimate(tmp_path / 'races' / 'quick_self')
    assert [one.submission for one in stored] == ['nadamw', 'twin']

  def test_what_could_not_be_probed_is_said(self, host, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    host.fails = {'twin': 'ValueError: no.'}
    words = 'plan --suite quick --workloads quick_vision --submissions nadamw,twin=nadamw'
    assert main([*words.split(), '--ruleset', 'self', '--frameworks', 'jax']) == 0
    assert 'as its own fail: ValueError: no.' in capsys.readouterr().out

  @pytest.mark.parametrize(
    ('flags', 'words'),
    [
      (
        '--from_budget --price_per_hour -1',
        '--price_per_hour must be a number from 0 on; it is -1',
      ),
      (
        '--from_budget --price_per_hour nan',
        "--price_per_hour: must be a finite number; it is 'nan'",
      ),
      ('--from_budget --devices 0', '--devices must be positive; it is 0'),
      ('--from_budget --devices 3', 'One trial needs 4 devices; --devices gives 3'),
      ('--from_budget --max_hours 0', '--max_hours must be positive'),
      ('--from_budget --max_hours 4000', 'may take 4.43e+03 device-hours'),
      ('--from_budget --workloads wnt', "Did you mean 'wmt'?"),
      ('--from_budget --submissions nadanw', "Did you mean 'nadamw'?"),
      ('--from_budget --suite algoperf_a10', "Did you mean 'algoperf_a100'?"),
      ('--from_budget --suite quick', 'are in steps'),
      ('--from_budget --frameworks jx', "Did you mean 'jax'?"),
      ('--from_budget --ruleset self --trials 2', 'Under self tuning a study has one trial'),
      ('--from_budget --studies -1', '--studies must be positive; it is -1'),
      ('--evidence nowhere', 'argument --evidence: must be a directory'),
    ],
  )
  def test_mistakes_are_one_sentence_and_start_nothing(
    self, flags, words, capsys, tmp_path, monkeypatch
  ):
    monkeypatch.chdir(tmp_path)
    given = flags.split()
    base = [
      word
      for name, value in zip(self.BUDGET[1::2], self.BUDGET[2::2], strict=True)
      if name not in given
      for word in (name, value)
    ]
    try:
      code = main(['plan', *base, *given])
    except SystemExit as end:
      code = end.code
    assert code == 2
    shown = capsys.readouterr()
    assert words in shown.err and shown.out == ''
    assert list(tmp_path.iterdir()) == []
