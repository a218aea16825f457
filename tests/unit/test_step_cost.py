"""What a step costs beside one of the baseline: bursts, their arithmetic, and their records."""

from __future__ import annotations

import dataclasses
import math
import statistics
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_stepper import FakeHost, race_configs

from algorithmic_efficiency import backends, errors
from algorithmic_efficiency.experiments.race import step_cost, trial_estimate
from algorithmic_efficiency.experiments.race.probe import Probe
from algorithmic_efficiency.experiments.race.step_cost import Pace
from algorithmic_efficiency.launch.slots import Slot
from algorithmic_efficiency.results import environment, files, race_files
from algorithmic_efficiency.results.race_files import StepCost

HOST = {'nadamw': 0.01, 'twin': 0.01, 'slow': 0.02}


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
  """Measures on a fake host; gives the problems."""

  def run(host: FakeHost, *names: str, to_run=None, **changes) -> list[str]:
    monkeypatch.setattr(step_cost, 'Stepper', host.stepper)
    return step_cost.measure(race_configs(*names, **changes), tmp_path, Slot(), to_run=to_run)

  return run


def costs(folder: Path) -> dict[tuple[str, int], float]:
  return {(one.submission, one.study): one.log_cost for one in race_files.read_costs(folder)}


@pytest.mark.parametrize('drift', [0.0, 0.02, -0.02])
def test_costs_are_those_of_the_steps_whatever_drifts(measure, tmp_path, drift):
  assert measure(FakeHost(step_sec=HOST, drift=drift), 'nadamw', 'slow', 'twin') == []
  found = costs(tmp_path)
  # From burst to burst such a host becomes 0.3 % slower: to the first order that cancels.
  exact = 1e-9 if drift == 0.0 else 3e-4
  assert found['twin', 1] == pytest.approx(0.0, abs=exact)
  assert found['nadamw', 1] == pytest.approx(0.0, abs=exact)
  assert found['slow', 1] == pytest.approx(math.log(2), abs=10 * exact)  # its bursts are longer


def test_the_baseline_has_a_burst_between_any_two_others(measure, tmp_path):
  host = FakeHost(step_sec=HOST)
  measure(host, 'slow', 'nadamw', 'twin')
  bursts = [name for name, steps, _ in host.calls if steps == 20]  # 0.2 s of the fastest
  first, *rounds = [bursts[0], *zip(bursts[1::2], bursts[2::2], strict=True)]
  assert first == 'nadamw' and {unit for _, unit in rounds} == {'nadamw'}
  others = [other for other, _ in rounds]
  assert len(others) == 3 * 7
  for index in range(7):
    assert sorted(others[3 * index :][:3]) == ['nadamw', 'slow', 'twin']  # the first is the copy


def test_steps_of_each_submission_are_looked_at_once(measure):
  host = FakeHost(step_sec=HOST)
  measure(host, 'nadamw', 'slow')
  assert traced(host) == ['nadamw', 'slow']


def traced(host: FakeHost) -> list[str]:
  """The submissions whose steps were timed one by one, 100 at a time."""
  return sorted(name for name, steps, _ in host.calls if steps == 101)


def test_steps_are_looked_at_again_where_100_do_not_tell(measure):
  host = FakeHost(step_sec=HOST, extra={'slow': (80, 2.0), 'twin': (20, 0.2)})
  measure(host, 'nadamw', 'slow', 'twin')
  assert traced(host) == ['nadamw', 'slow', 'slow', 'twin']


def test_a_period_that_was_found_holds_in_other_studies(measure, tmp_path):
  extra = {'twin': (50, 0.5)}
  measure(FakeHost(step_sec=HOST, extra=extra), 'nadamw', 'twin')
  later = FakeHost(step_sec=HOST, extra=extra)
  measure(later, 'nadamw', 'twin', 'slow', study=2)
  assert traced(later) == ['slow']
  assert {(one.submission, one.period) for one in race_files.read_costs(tmp_path)} == {
    *(('nadamw', 1), ('twin', 50), ('slow', 1))
  }
  assert costs(tmp_path)['twin', 2] == pytest.approx(math.log(2.0), abs=1e-9)


@pytest.mark.parametrize('study', [1, 2])
def test_what_is_compiled_for_periodic_work_alone_is_not_timed(measure, tmp_path, study):
  """Regression: where no trace was made, the first root of a process was compiled in a burst."""
  extra = {'twin': (50, 0.5)}
  for earlier in range(1, study):
    measure(FakeHost(step_sec=HOST, extra=extra), 'nadamw', 'twin', study=earlier)
  host = FakeHost(step_sec=HOST, extra=extra, compile_sec=3.0)
  measure(host, 'nadamw', 'twin', study=study)
  assert costs(tmp_path)['twin', study] == pytest.approx(math.log(2.0), abs=1e-9)


def test_a_period_holds_no_longer_where_files_or_host_are_others(measure, tmp_path):
  file = tmp_path / 'entry.py'
  file.write_text('x = 1')
  measure(FakeHost(step_sec=HOST), 'nadamw', 'slow', file=str(file))
  elsewhere = FakeHost(step_sec=HOST, name='another host')
  measure(elsewhere, 'nadamw', 'slow', file=str(file), study=2)
  assert traced(elsewhere) == ['nadamw', 'slow']
  file.write_text('x = 2')
  changed = FakeHost(step_sec=HOST)
  measure(changed, 'nadamw', 'slow', file=str(file), study=3)
  assert traced(changed) == ['nadamw', 'slow']


def test_first_steps_compile_side_by_side_and_others_are_made_alone(measure, monkeypatch):
  host = FakeHost(step_sec=HOST)
  measure(host, 'nadamw', 'slow')
  assert host.most_at_work == 3
  monkeypatch.setattr(step_cost._Bursts, 'begin_first_step', lambda self: None)
  monkeypatch.setattr(step_cost._Bursts, 'end_first_step', lambda self: None)
  host = FakeHost(step_sec=HOST)
  measure(host, 'nadamw', 'slow', study=2)
  assert host.most_at_work == 1


def test_bursts_on_a_busy_machine_are_as_short_as_on_a_quiet_one(measure):
  """Regression: noise made steps uneven, so that bursts had 100 steps: 110 s for each study."""
  numbers = []
  for study in range(1, 11):
    slow_steps = (0.25, 0.5)
    host = FakeHost(
      step_sec={'nadamw': 0.055, 'twin': 0.055},
      slow_steps=slow_steps,
      rng=np.random.default_rng(study),
      name=f'host {study}',
    )
    measure(host, 'nadamw', 'twin', study=study)
    numbers.append(max(steps for _, steps, _ in host.calls if steps != 101))
  assert numbers.count(8) >= 9


@pytest.mark.parametrize('step_sec', [0.005, 0.01, 0.055, 0.15, 0.5, 3.0])
@pytest.mark.parametrize('share', [0.5, 1.0])
def test_timing_two_even_submissions_takes_no_longer_than_their_trials(step_sec, share):
  """Regression: of a demo of 10 minutes, trials took 3."""
  probe = Probe(
    start_sec=4.0,
    first_step_sec=2.0,
    step_sec=step_sec,
    first_eval_sec=1.0,
    eval_sec=3 * step_sec,
    partial_eval_sec=step_sec,
    record_sec=0.01,
    end_sec=0.3,
    off_clock_sec=0.5,
    checkpoint_bytes=0,
    row_bytes=0.0,
    folder_bytes=0,
    peak_memory_bytes={},
    num_devices=1,
    host='some host',
  )
  (config,) = race_configs('nadamw')
  rules = trial_estimate.rules_of(config)
  trials = 6 * trial_estimate.trial(rules, probe, checkpoints=False, share=share).sec
  timing = [
    step_cost.expected_sec([probe, probe], num_cpus=2, is_first=is_first)
    for is_first in (True, False, False)
  ]
  assert sum(timing) <= trials


def test_the_order_is_drawn_at_random_for_each_study(measure):
  starts, turns = set(), set()
  for study in range(1, 9):
    host = FakeHost(step_sec=HOST)
    measure(host, 'nadamw', 'slow', 'twin', study=study)
    starts.add(tuple(host.started))
    turns.add(tuple(name for name, steps, _ in host.calls if steps == 20))
  assert len(starts) > 4 and len(turns) > 4


class TestNumSteps:
  def test_even_steps_have_equally_many_enough_for_the_fastest(self):
    paces = [Pace(step_sec=sec, period=1) for sec in (0.01, 0.05, 1e-3)]
    assert step_cost.num_steps(paces) == [200, 40, 200]  # of the second, those of 2 s

  def test_a_burst_has_whole_periods_however_slow_its_steps_are(self):
    paces = [Pace(step_sec=0.01, period=period) for period in (1, 7, 50)]
    assert step_cost.num_steps(paces) == [50, 56, 50]
    slow = [Pace(step_sec=sec, period=100) for sec in (0.09, 0.15, 3.0)]
    assert step_cost.num_steps(slow) == [100, 100, 100]

  def test_long_bursts_have_fewer_rounds(self):
    for number, expected in ((1, 7), (50, 7), (100, 4), (1000, 3), (3000, 2), (10_000, 1)):
      assert step_cost.num_rounds([Pace(step_sec=0.01, period=1)], [number]) == expected


@pytest.mark.parametrize(('period', 'cost'), [(10, 2.0), (20, 2.0), (50, 1.5), (100, 2.0)])
def test_periodic_work_has_its_price(measure, tmp_path, period, cost):
  """Regression: a median of short bursts priced an inverse root every 20 steps at nothing."""
  host = FakeHost(step_sec=HOST, extra={'twin': (period, 0.01 * period * (cost - 1))})
  assert measure(host, 'nadamw', 'twin') == []
  assert costs(tmp_path)['twin', 1] == pytest.approx(math.log(cost), abs=1e-9)


@pytest.mark.parametrize('period', [10, 50, 100])
def test_periodic_work_has_its_price_on_a_busy_machine(measure, tmp_path, period):
  host = FakeHost(
    step_sec=HOST,
    extra={'twin': (period, 0.01 * period)},
    burst_noise=0.05,
    process_noise=0.02,
    slow_steps=(0.25, 0.5),
  )
  for study in range(1, 6):
    measure(host, 'nadamw', 'twin', study=study)
  found = [cost for (name, _), cost in costs(tmp_path).items() if name == 'twin']
  assert statistics.fmean(found) == pytest.approx(math.log(2.0), abs=0.06)


@pytest.mark.parametrize('step_sec', [0.09, 0.15, 0.5, 3.0])
@pytest.mark.parametrize('period', [10, 20, 50, 100])
def test_periodic_work_of_slow_steps_has_its_price(measure, tmp_path, step_sec, period):
  """Regression: a burst of steps above 0.1 s was shorter than their period: 1.5 was 1.83."""
  extra = {'slow': (period, 0.5 * step_sec * period)}
  host = FakeHost(step_sec={'nadamw': step_sec, 'slow': step_sec}, extra=extra)
  for study in (1, 2):
    measure(host, 'nadamw', 'slow', study=study)
    assert costs(tmp_path)['slow', study] == pytest.approx(math.log(1.5), abs=1e-9)


def test_no_trace_is_too_short_to_find_a_period(measure):
  """Regression: less than 100 slow steps were timed one by one, which can tell nothing."""
  host = FakeHost(step_sec={'nadamw': 0.3, 'slow': 1.0})
  measure(host, 'nadamw', 'slow')
  assert set(host.traces) == {101}


def test_what_it_takes_is_foretold(measure):
  host = FakeHost(step_sec={**HOST, 'slow': 0.5})
  measure(host, 'nadamw', 'slow')
  probes = [
    SimpleNamespace(
      start_sec=host.start_sec,
      first_step_sec=1.0 + sec,
      step_sec=sec,
      first_eval_sec=1.0,
      partial_eval_sec=host.eval_sec(1) + 0.25,  # and what is written then
    )
    for sec in (0.01, 0.5)
  ]
  warming_up = 3 * (2 * 0.01 + 0.5)
  first_burst = 22 * 0.01  # of the baseline
  assert step_cost.expected_sec(probes, 1) == pytest.approx(host.now - warming_up - first_burst)


def test_the_records_say_what_was_measured_and_where(measure, tmp_path):
  measure(FakeHost(step_sec=HOST), 'nadamw', 'slow', study=4)
  slow, floor = race_files.read_costs(tmp_path)[::-1]
  assert (slow.submission, slow.baseline, slow.study, slow.host) == (
    'slow',
    'nadamw',
    4,
    'some host',
  )
  assert slow.rounds == (pytest.approx((0.01, 0.02, 0.01)),) * 7
  assert floor.is_floor and not slow.is_floor


def test_steps_are_timed_behind_a_first_evaluation_as_in_trials(measure):
  """Regression: past evaluations that were empty told a submission that it was being timed."""
  host = FakeHost(step_sec=HOST)
  measure(host, 'nadamw', 'slow')
  evaluated = [call for call in host.calls if call[2] is not None]
  assert sorted(evaluated) == [('nadamw', 1, 1)] * 2 + [('slow', 1, 1)]


def test_a_step_is_a_batch_drawn(measure, tmp_path):
  measure(FakeHost(step_sec=HOST, draws={'slow': 2}), 'nadamw', 'slow')
  assert costs(tmp_path)['slow', 1] == pytest.approx(0.0)


def test_preparing_for_evaluations_is_part_of_what_steps_cost(measure, tmp_path):
  """Regression: where steps are raced, whatever was computed in prepare_for_eval was free."""
  measure(FakeHost(step_sec=HOST, prepare_sec={'twin': 1.5}), 'nadamw', 'twin')
  # quick_vision is evaluated every 2 steps: 0.75 s for each besides its own 0.01.
  assert costs(tmp_path)['twin', 1] == pytest.approx(math.log(76))


def test_what_was_measured_is_not_measured_again(measure, tmp_path):
  measure(FakeHost(step_sec=HOST), 'nadamw', 'slow')
  again = FakeHost(step_sec=HOST)
  measure(again, 'nadamw', 'slow')
  assert again.calls == []
  measure(again, 'nadamw', 'slow', 'twin')
  assert {name for name, _, _ in again.calls} == {'nadamw', 'twin'}
  measure(again, 'nadamw', 'slow', study=2)
  measure(again, 'nadamw', 'slow', framework='pytorch')
  assert len(race_files.read_costs(tmp_path)) == 2 + 1 + 2 + 2


def test_a_late_entry_is_measured_beside_the_baseline_and_all_other_costs_stay(measure, tmp_path):
  """Regression: the score of a late entry alone dropped what was measured of all others."""
  measure(FakeHost(step_sec=HOST), 'nadamw', 'slow')
  before = race_files.read_costs(tmp_path)
  measure(FakeHost(step_sec=HOST), 'twin', 'nadamw')
  assert race_files.read_costs(tmp_path)[:2] == before
  assert [(one.submission, one.baseline) for one in race_files.read_costs(tmp_path)[2:]] == [
    ('twin', 'nadamw')
  ]


def test_what_was_measured_on_another_host_is_measured_again(measure, tmp_path, monkeypatch):
  """Regression: a race that went on elsewhere had no costs there, and said they were done."""
  measure(FakeHost(step_sec=HOST, name='one'), 'nadamw', 'slow')
  monkeypatch.setattr(environment, 'host_hash_without_devices', lambda framework: 'f' * 16)
  again = FakeHost(step_sec=HOST, name='other')
  measure(again, 'nadamw', 'slow')
  assert {(one.submission, one.host) for one in race_files.read_costs(tmp_path)} == {
    (name, host) for name in ('nadamw', 'slow') for host in ('one', 'other')
  }
  calls = list(again.calls)
  measure(again, 'nadamw', 'slow')
  assert again.calls == calls


def test_on_another_host_only_those_that_run_there_and_the_baseline_are_measured(
  measure, tmp_path, monkeypatch
):
  measure(FakeHost(step_sec=HOST, name='one'), 'nadamw', 'slow')
  monkeypatch.setattr(environment, 'host_hash_without_devices', lambda framework: 'f' * 16)
  idle = FakeHost(step_sec=HOST, name='other')
  measure(idle, 'nadamw', 'slow', to_run=())
  assert idle.calls == []
  measure(FakeHost(step_sec=HOST, name='other'), 'nadamw', 'slow', 'twin', to_run={'twin'})
  found = {one.submission for one in race_files.read_costs(tmp_path) if one.host == 'other'}
  assert found == {'nadamw', 'twin'}


def test_what_was_measured_of_other_files_is_measured_again(measure, tmp_path):
  file = tmp_path / 'entry.py'
  file.write_text('x = 1')
  measure(FakeHost(step_sec=HOST), 'nadamw', 'slow', file=str(file))
  again = FakeHost(step_sec=HOST)
  measure(again, 'nadamw', 'slow', file=str(file))
  assert again.calls == []
  file.write_text('x = 2')
  measure(again, 'nadamw', 'slow', file=str(file))
  floor, slow, *_ = race_files.read_costs(tmp_path)
  assert (list(slow.hashes), list(floor.hashes)) == (['nadamw', 'slow'], ['nadamw'])
  assert len(race_files.read_costs(tmp_path)) == 4


def test_without_a_baseline_nothing_is_measured_and_that_is_said(measure, tmp_path):
  """Regression: the first by name was the unit, so that a late one changed the costs of all."""
  host = FakeHost(step_sec=HOST)
  (problem,) = measure(host, 'twin', 'slow')
  assert 'quick_vision (jax)' in problem and '(baseline, adamw, nadamw)' in problem
  assert host.calls == [] and costs(tmp_path) == {}


def test_one_submission_alone_has_nothing_to_be_compared_with(measure, tmp_path):
  host = FakeHost(step_sec=HOST)
  assert measure(host, 'nadamw') == []
  assert host.calls == [] and not (tmp_path / race_files.COSTS_FILE).exists()


def test_a_submission_that_fails_is_left_out_and_named(measure, tmp_path):
  host = FakeHost(step_sec=HOST, fails={'slow': 'ValueError: no'})
  (problem,) = measure(host, 'nadamw', 'slow', 'twin')
  assert 'slow on quick_vision (jax)' in problem and 'ValueError: no' in problem
  assert set(costs(tmp_path)) == {('nadamw', 1), ('twin', 1)}
  assert host.alive == 0


def test_without_a_baseline_that_runs_nothing_is_measured(measure, tmp_path):
  (problem,) = measure(FakeHost(step_sec=HOST, fails={'nadamw': 'no'}), 'nadamw', 'slow')
  assert 'nadamw' in problem
  assert costs(tmp_path) == {}


def test_a_gpu_has_one_submission_in_memory_beside_the_baseline(measure, monkeypatch):
  host = FakeHost(step_sec=HOST)
  measure(host, 'nadamw', 'slow', 'twin')
  assert host.most_alive == 4
  monkeypatch.setattr(backends, 'visible_gpus', lambda: ('0',))
  host = FakeHost(step_sec=HOST)
  measure(host, 'nadamw', 'slow', 'twin', study=2, workload='quick_lm')
  assert host.most_alive == 2
  assert traced(host) == ['nadamw', 'slow', 'twin']  # the baseline once, and not beside each


class TestRecords:
  def cost(self, **changes) -> StepCost:
    fields = {
      'submission': 'b',
      'baseline': 'a',
      'workload': 'quick_vision',
      'framework': 'jax',
      'study': 1,
      'host': 'h',
      'rounds': ((1.0, 2.0, 1.0), (1.0, 8.0, 4.0), (2.0, 1.0, 2.0)),
    }
    return StepCost(**{**fields, **changes})

  def test_a_cost_is_total_seconds_over_total_steps_beside_both_neighbors(self):
    assert self.cost().log_cost == pytest.approx(math.log((2 + 8 + 1) / (1 + 2.5 + 2)))

  def test_they_come_back_as_they_were_and_a_line_that_was_cut_off_counts_not(self, tmp_path):
    race_files.append_costs(tmp_path, [self.cost(), self.cost(study=2)])
    race_files.append_costs(tmp_path, [self.cost(study=3)])
    with open(tmp_path / race_files.COSTS_FILE, 'a') as file:
      file.write('{"submission": "b"')
    assert race_files.read_costs(tmp_path) == tuple(self.cost(study=k) for k in (1, 2, 3))
    # Regression: the next one was written behind it, and nothing could be read any more.
    race_files.append_costs(tmp_path, [self.cost(study=4)])
    assert race_files.read_costs(tmp_path) == tuple(self.cost(study=k) for k in (1, 2, 3, 4))

  def test_a_cost_that_was_changed_since_is_a_mistake(self, tmp_path):
    race_files.append_costs(tmp_path, [self.cost()])
    path = tmp_path / race_files.COSTS_FILE
    path.write_text(path.read_text().replace('8.0', '7.0'))
    with pytest.raises(errors.UserError, match='its checksum differs'):
      race_files.read_costs(tmp_path)

  @pytest.mark.parametrize('line', ['nothing', '{}', '[]', '{"study": 1}'])
  def test_what_is_no_record_is_a_mistake(self, tmp_path, line):
    (tmp_path / race_files.COSTS_FILE).write_text(f'{line}\n')
    with pytest.raises(errors.UserError, match='is damaged'):
      race_files.read_costs(tmp_path)

  @pytest.mark.parametrize(
    'changes',
    [
      *({'rounds': rounds} for rounds in (((1.0, 0.0, 1.0),), ((1.0, float('nan'), 1.0),), ())),
      *(
        {'rounds': rounds} for rounds in (((1.0, 1.0),), 'abc', ((1.0, 'x', 1.0),), ((1e308,) * 3,))
      ),
      *({'hashes': hashes} for hashes in (['a'], {'a': ['b']}, {'a': 1}, None)),
      *({'study': study} for study in ([1], 'one', 1.5, -1)),
    ],
  )
  def test_a_field_that_does_not_fit_is_a_mistake(self, tmp_path, changes):
    fields = dataclasses.asdict(self.cost()) | changes
    (tmp_path / race_files.COSTS_FILE).write_text(files.encode(fields) + '\n')
    with pytest.raises(errors.UserError, match='is damaged'):
      race_files.read_costs(tmp_path)
