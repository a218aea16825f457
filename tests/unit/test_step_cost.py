"""What a step costs beside one of the baseline: bursts, their arithmetic, and their records."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_stepper import FakeHost

from algorithmic_efficiency import backends, errors
from algorithmic_efficiency.experiments.race import step_cost
from algorithmic_efficiency.launch.slots import Slot
from algorithmic_efficiency.results import files, race_files
from algorithmic_efficiency.results.race_files import StepCost
from algorithmic_efficiency.trial.config import TrialConfig

HOST = {'nadamw': 0.01, 'twin': 0.01, 'slow': 0.02}


def configs(
  *names: str, study: int = 1, framework: str = 'jax', file: str = __file__
) -> list[TrialConfig]:
  return [
    TrialConfig(
      workload='quick_vision',
      framework=framework,
      submission=name,
      submission_path=file,
      suite='quick',
      ruleset='self',
      study=study,
      trial=1,
      hyperparameters=None,
      seed=3,
      study_seed=2,
      root_seed=1,
      folder='nowhere',
    )
    for name in names
  ]


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
  """Measures on a fake host; gives the problems."""

  def run(host: FakeHost, *names: str, **changes) -> list[str]:
    monkeypatch.setattr(step_cost, 'Stepper', host.stepper)
    return step_cost.measure(configs(*names, **changes), tmp_path, Slot())

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
  num_steps = max(steps for _, steps, _ in host.calls)
  bursts = [name for name, steps, _ in host.calls if steps == num_steps]
  round_ = ['slow', 'nadamw', 'nadamw', 'nadamw', 'twin', 'nadamw']  # the second is the copy
  assert bursts == ['nadamw', *round_ * 7]
  assert num_steps == 20  # 0.2 s of the fastest, and as many for all


def test_the_bursts_of_a_slow_one_are_short_and_those_of_others_as_long_as_without_it(
  measure, tmp_path
):
  """Of steps that take 0.5 s there are 4 in a burst of 2 s, of those of 30 s one."""
  host = FakeHost(step_sec={'nadamw': 0.01, 'slow': 0.5, 'slowest': 30.0})
  measure(host, 'nadamw', 'slow', 'slowest')
  bursts = {
    name: max(n for each, n, _ in host.calls[-40:] if each == name) for name in host.step_sec
  }
  assert bursts == {'nadamw': 20, 'slow': 4, 'slowest': 1}
  assert sum(n for name, n, _ in host.calls if name == 'slowest') == 1 + 3 + 1 + 1 + 2 * 7
  assert costs(tmp_path)['slow', 1] == pytest.approx(math.log(50))
  assert costs(tmp_path)['slowest', 1] == pytest.approx(math.log(3000))


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
  warming_up = 2 * (3 + 1 + 8) * 0.01 + (3 + 1 + 4) * 0.5
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
  # quick_vision is evaluated every 15 steps: 0.1 s for each besides its own 0.01.
  assert costs(tmp_path)['twin', 1] == pytest.approx(math.log(11))


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


def test_without_the_baseline_of_the_suite_the_first_by_name_is_the_unit(measure, tmp_path):
  measure(FakeHost(step_sec=HOST), 'twin', 'slow')
  assert costs(tmp_path)['twin', 1] == pytest.approx(-math.log(2))


def test_a_baseline_that_comes_later_has_all_measured_anew(measure, tmp_path):
  measure(FakeHost(step_sec=HOST), 'twin', 'slow')
  measure(FakeHost(step_sec=HOST), 'twin', 'slow', 'nadamw')
  assert costs(tmp_path)['twin', 1] == pytest.approx(0.0)  # the last one counts
  assert costs(tmp_path)['slow', 1] == pytest.approx(math.log(2))


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
  measure(host, 'nadamw', 'slow', 'twin', study=2)
  assert host.most_alive == 2


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

  def test_a_cost_is_the_median_over_rounds_of_the_ratio_to_both_neighbours(self):
    assert self.cost().log_cost == pytest.approx(math.log(2))  # of 2, 8 / sqrt(4), 1 / 2

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
