"""Steps weighed by measured costs: which cost counts, what is too small to say, what is shown."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scoring_runs import hit_at, miss, write_trial

import scoring
from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.results import race_files
from algorithmic_efficiency.results.race_files import PlannedTrials, StepCost
from scoring import console, cost_errors, outputs, planned, report, spent
from scoring.report import payload
from scoring.statistics import costs, verdicts


def run(
  root: Path,
  steps: dict[str, int],
  *,
  studies: int = 5,
  step_sec: dict[str, float] | None = None,
  host: str = 'h',
  workload: str = 'quick_vision',
  framework: str = 'jax',
  reached: bool = True,
  **record: Any,
) -> None:
  """Trials that reach the target after so many steps, or do not."""
  for name, number in steps.items():
    for study in range(1, studies + 1):
      fields = {
        'submission': name,
        'suite': 'quick',
        'ruleset': 'self',
        'status': 'finished',
        'seeds': {'study': study},
        'step_time_sec': (step_sec or {}).get(name, 1.0),
        'environment': {'host_hash': host},
        'buckets': {'setup': 3.0, 'update': 9.0},
        **record,
      }
      rows = hit_at(workload, 50.0, steps=number) if reached else miss(workload)
      write_trial(root, name, workload, rows, study=study, framework=framework, record=fields)


def measured(
  root: Path,
  ratios: dict[str, float | list[float]],
  *,
  floors: float | list[float] = 1.0,
  studies: int = 5,
  host: str = 'h',
  workload: str = 'quick_vision',
  hashes: dict[str, str] | None = None,
) -> None:
  """Costs beside the runs; a list has one for each study."""
  for name, given in {**ratios, 'nadamw': floors}.items():
    for study in range(1, studies + 1):
      ratio = given[study - 1] if isinstance(given, list) else given
      cost = StepCost(
        submission=name,
        baseline='nadamw',
        workload=workload,
        framework='jax',
        study=study,
        host=host,
        rounds=((1.0, ratio, 1.0),),
        hashes=hashes or {},
      )
      race_files.append_costs(root, [cost])


def scored(root: Path, **options: Any):
  options = {'ruleset': 'self', 'workloads': ('quick_vision',), 'num_resamples': 20, **options}
  return scoring.score(scoring.load(root), 'quick', **options)


def times(result, name: str) -> list[float]:
  s = result.submissions.index(name)
  return result.cells.study_times[s, 0].tolist()


UNMEASURED = 'errors of these costs that all studies share, on quick_vision.'
SHORT = {'suite': 'quick', 'ruleset': 'self', 'environment': {'host_hash': 'h'}}


class TestAxis:
  def test_measured_costs_weigh_the_steps_of_their_study(self, tmp_path):
    run(tmp_path, {'nadamw': 100, 'slow': 100}, studies=2, step_sec={'slow': 9.0})
    measured(tmp_path, {'slow': [2.0, 3.0]}, studies=2, floors=1.5)
    result = scored(tmp_path, statistics=False)
    assert times(result, 'nadamw') == [100.0, 100.0]  # the unit, whatever its noise
    assert times(result, 'slow') == pytest.approx([200.0, 300.0])
    assert not [note for note in result.notes if note.kind in ('step_times', 'baseline')]

  def test_steps_that_took_far_longer_in_trials_than_when_timed_are_noted(self, tmp_path):
    """Regression: a submission that idled while it was timed was given the cost of idling."""
    step_sec = {'nadamw': 2.0, 'sly': 4.0, 'honest': 4.0, 'untimed': None}
    run(tmp_path, dict.fromkeys(step_sec, 100), studies=2, step_sec=step_sec)
    measured(tmp_path, {'sly': 1.2, 'honest': 1.8, 'untimed': 1.0}, studies=2)
    result = scored(tmp_path, statistics=False)
    (note,) = [note for note in result.notes if note.kind == 'timed_otherwise']
    assert note.detail == 'sly: 2.00 of a step of nadamw in trials, 1.20 when timed'

  def test_a_study_without_a_cost_of_its_own_is_named(self, tmp_path):
    """Regression: a cut costs.jsonl changed a score, and no word said so."""
    run(tmp_path, {'nadamw': 100, 'slow': 100}, studies=3)
    measured(tmp_path, {'slow': [2.0, 3.0, 9.0]}, studies=3)
    path = tmp_path / race_files.COSTS_FILE
    lines = path.read_text().splitlines(keepends=True)
    last = next(line for line in reversed(lines) if '"slow"' in line)
    path.write_text(''.join(line for line in lines if line != last))
    result = scored(tmp_path, statistics=False)
    assert times(result, 'slow') == pytest.approx([200.0, 300.0, 100 * 6**0.5])  # of logarithms
    [note] = [note for note in result.notes if note.kind == 'study_cost']
    assert note.where.startswith('slow, ') and note.where.endswith('study_3')

  def test_without_any_the_step_times_of_the_runs_count(self, tmp_path):
    run(tmp_path, {'nadamw': 100, 'slow': 100}, studies=1, step_sec={'slow': 9.0})
    result = scored(tmp_path, statistics=False)
    assert times(result, 'slow') == [900.0]
    assert result.outcomes.log_bias.isna().all()

  def test_what_the_costs_rest_on_stands_in_the_caption_and_in_the_notes(self, tmp_path):
    """Regression: a copy without costs.jsonl had another score, and no word on it."""
    run(tmp_path, {'nadamw': 100, 'slow': 100}, studies=1, step_sec={'slow': 9.0})
    measured(tmp_path, {'slow': 2.0}, studies=1)
    result = scored(tmp_path, statistics=False)
    (caption,) = [text for text in outputs.footnotes(result) if text.startswith('Cost of a step')]
    assert 'in turn with the baseline (costs.jsonl): quick_vision.' in caption
    (tmp_path / race_files.COSTS_FILE).unlink()
    result = scored(tmp_path, statistics=False)
    (caption,) = [text for text in outputs.footnotes(result) if text.startswith('Cost of a step')]
    assert (
      'the step times of the runs, which were not timed with the baseline: quick_vision.' in caption
    )
    (note,) = [note for note in result.notes if note.kind == 'step_times']
    assert note.detail == 'no costs in costs.jsonl'

  def test_a_step_that_nobody_timed_has_no_cost_and_is_said(self, tmp_path):
    """Regression: its cost was shown as 1.00."""
    run(tmp_path, {'nadamw': 100}, studies=1)
    target = registry.workload('quick_vision').target.validation
    folder = write_trial(tmp_path, 'quick', 'quick_vision', [(1, 1.0, target)], record=SHORT)
    result = scored(tmp_path, num_resamples=20)
    assert times(result, 'quick') == [1.0]
    assert [note.where for note in result.notes if note.kind == 'untimed'] == [str(folder)]
    costs = {one.submission: one.cost for one in result.statistics.step_costs}
    assert math.isnan(costs['quick']) and costs['nadamw'] == 1.0
    assert [one['cost'] for one in outputs.as_json(result)['step_costs']] == [None, 1.0]
    shown = payload.build(scoring.load(tmp_path), result)['step_costs']['rows']
    assert [row['values'] for row in shown] == [['not timed'], ['1.00']]

  def test_a_step_of_a_run_is_a_batch_drawn(self, tmp_path):
    """Regression: who drew two batches for an update paid for them as steps, and as a slow step."""
    run(tmp_path, {'nadamw': 100}, studies=1)
    twice = {'global_step': 50, 'charged_steps': 100}
    run(tmp_path, {'two': 100}, studies=1, step_sec={'two': 2.0}, **twice)
    assert times(scored(tmp_path, statistics=False), 'two') == [100.0]

  def test_a_study_that_was_not_measured_takes_the_median_of_the_others(self, tmp_path):
    run(tmp_path, {'nadamw': 100, 'slow': 100}, studies=4)
    measured(tmp_path, {'slow': [2.0, 8.0, 3.0]}, studies=3)
    assert times(scored(tmp_path, statistics=False), 'slow')[3] == pytest.approx(300.0)

  def test_where_one_was_not_measured_all_are_weighed_by_the_runs(self, tmp_path):
    names = {'nadamw': 100, 'slow': 100, 'other': 100}
    run(tmp_path, names, studies=1, step_sec={'slow': 9.0, 'other': 4.0})
    measured(tmp_path, {'slow': 2.0}, studies=1)
    result = scored(tmp_path, statistics=False)
    assert times(result, 'slow') == [900.0] and times(result, 'other') == [400.0]
    (note,) = [note for note in result.notes if note.kind == 'step_times']
    assert 'quick_vision on host h' in note.where and note.detail.startswith('other not timed')

  def test_one_that_reached_nothing_needs_no_cost(self, tmp_path):
    run(tmp_path, {'nadamw': 100, 'slow': 100}, studies=1, step_sec={'slow': 9.0})
    run(tmp_path, {'crashed': 100}, studies=1, status='failed', reached=False)
    measured(tmp_path, {'slow': 2.0}, studies=1)
    result = scored(tmp_path, statistics=False)
    assert times(result, 'slow') == pytest.approx([200.0])
    assert times(result, 'crashed') == [math.inf]

  def test_hosts_never_mix(self, tmp_path):
    run(tmp_path, {'nadamw': 100, 'slow': 100}, studies=1, step_sec={'slow': 9.0}, host='h')
    measured(tmp_path, {'slow': 2.0}, studies=1, host='another')
    result = scored(tmp_path, statistics=False)
    assert times(result, 'slow') == [900.0]
    (note,) = [note for note in result.notes if note.kind == 'step_times']
    assert 'quick_vision on host h' in note.where and 'on other hosts alone' in note.detail

  def test_costs_of_another_workload_are_not_missed(self, tmp_path):
    run(tmp_path, {'nadamw': 100, 'slow': 100}, studies=1)
    measured(tmp_path, {'slow': 2.0}, studies=1, workload='mnist')
    notes = scored(tmp_path, statistics=False).notes
    assert [n.detail for n in notes if n.kind == 'step_times'] == ['no costs in costs.jsonl']

  def test_the_last_measurement_of_a_study_counts(self, tmp_path):
    run(tmp_path, {'nadamw': 100, 'slow': 100}, studies=1)
    measured(tmp_path, {'slow': 5.0}, studies=1)
    measured(tmp_path, {'slow': 2.0}, studies=1)
    assert times(scored(tmp_path, statistics=False), 'slow') == pytest.approx([200.0])

  def test_floors_of_an_earlier_measurement_or_baseline_are_forgotten(self, tmp_path):
    run(tmp_path, {'nadamw': 100, 'slow': 100}, studies=2)
    measured(tmp_path, {'slow': 2.0}, studies=2, floors=1.5)
    floor = race_files.read_costs(tmp_path)[-1]
    other = dataclasses.replace(floor, baseline='a', submission='a', study=3)
    race_files.append_costs(tmp_path, [other])
    measured(tmp_path, {'slow': 2.0}, studies=2, floors=1.25)
    found = scored(tmp_path, statistics=False).outcomes.log_bias
    assert found.tolist() == pytest.approx([math.log(1.25)] * 4)

  def test_costs_of_files_that_were_changed_since_count_not(self, tmp_path):
    run(tmp_path, {'nadamw': 100}, studies=2, submission_hash='n')
    run(tmp_path, {'slow': 100}, studies=2, step_sec={'slow': 9.0}, submission_hash='new')
    measured(tmp_path, {'slow': 5.0}, studies=2, floors=1.5, hashes={'nadamw': 'n', 'slow': 'old'})
    assert times(scored(tmp_path, statistics=False), 'slow') == [900.0, 900.0]
    measured(tmp_path, {'slow': 2.0}, studies=1, hashes={'nadamw': 'n', 'slow': 'new'})
    result = scored(tmp_path, statistics=False)
    assert times(result, 'slow') == pytest.approx([200.0, 200.0])
    assert result.outcomes.log_bias.tolist() == [0.0] * 4

  def test_a_cost_against_an_earlier_baseline_counts_not(self, tmp_path):
    run(tmp_path, {'nadamw': 100, 'slow': 100}, studies=2)
    measured(tmp_path, {'slow': 5.0}, studies=2)
    found = race_files.read_costs(tmp_path)
    (tmp_path / race_files.COSTS_FILE).unlink()
    race_files.append_costs(tmp_path, [dataclasses.replace(one, baseline='a') for one in found])
    measured(tmp_path, {'slow': 2.0}, studies=1)
    assert times(scored(tmp_path, statistics=False), 'slow') == pytest.approx([200.0, 200.0])

  def test_names_with_a_framework_behind_them_find_their_costs(self, tmp_path):
    for framework in ('jax', 'pytorch'):
      run(tmp_path, {'nadamw': 100, 'slow': 100}, studies=1, framework=framework)
    measured(tmp_path, {'slow': 2.0}, studies=1)
    result = scored(tmp_path, statistics=False)
    assert times(result, 'slow_jax') == pytest.approx([200.0])
    assert times(result, 'slow_pytorch') == [100.0]

  def test_the_costs_are_found_from_the_folder_of_one_submission_too(self, tmp_path):
    run(tmp_path, {'nadamw': 100, 'slow': 100}, studies=1)
    measured(tmp_path, {'slow': 2.0}, studies=1)
    assert times(scored(tmp_path / 'slow', statistics=False), 'slow') == pytest.approx([200.0])


class TestUnit:
  """A workload has one unit: the step of one baseline, or the plain step."""

  def race(self, root: Path) -> None:
    """Two submissions in two frameworks, whose steps take what they take."""
    run(root, {'slow': 90}, studies=1, step_sec={'slow': 9.0})
    run(root, {'quick': 100}, studies=1, step_sec={'quick': 0.5}, framework='pytorch')

  def score(self, root: Path) -> tuple[dict[str, float], Any]:
    result = scored(root, statistics=False)
    return {name: times(result, name)[0] for name in result.submissions}, result

  def test_without_a_baseline_one_more_run_turns_nothing(self, tmp_path):
    """Regression: a run of five steps became the unit of its framework and turned the board."""
    self.race(tmp_path)
    before, _ = self.score(tmp_path)
    run(tmp_path, {'lbfgs': 5}, studies=1, step_sec={'lbfgs': 40.0}, reached=False)
    run(tmp_path, {'early': 80}, studies=1, step_sec={'early': 0.01}, framework='pytorch')
    after, _ = self.score(tmp_path)
    assert before == {'quick': 100.0, 'slow': 90.0}
    assert after == {**before, 'early': 80.0, 'lbfgs': math.inf}

  def test_plain_steps_are_said_in_the_caption_and_in_a_note_with_what_is_missing(self, tmp_path):
    self.race(tmp_path)
    _, result = self.score(tmp_path)
    (caption,) = [text for text in outputs.footnotes(result) if text.startswith('Cost of a step')]
    assert '1 for all (plain steps)' in caption and caption.endswith('quick_vision.')
    notes = [note for note in result.notes if note.kind == 'baseline']
    assert [note.where for note in notes] == [
      f'quick_vision on host h ({framework})' for framework in ('jax', 'pytorch')
    ]
    assert notes[0].detail == 'needs steps of baseline, adamw or nadamw'
    with pytest.raises(errors.UserError, match='which --strict refuses'):
      scored(tmp_path, statistics=False, strict=True)

  def test_a_baseline_in_one_framework_is_the_unit_of_neither(self, tmp_path):
    self.race(tmp_path)
    run(tmp_path, {'nadamw': 50}, studies=1, step_sec={'nadamw': 3.0})
    found, result = self.score(tmp_path)
    assert found == {'nadamw': 50.0, 'quick': 100.0, 'slow': 90.0}
    (note,) = [note for note in result.notes if note.kind == 'baseline']
    assert note.where == 'quick_vision on host h (pytorch)'
    assert not [note for note in result.notes if note.kind == 'step_times']

  def test_a_baseline_in_both_frameworks_is_the_unit_of_both(self, tmp_path):
    self.race(tmp_path)
    for framework, sec in (('jax', 3.0), ('pytorch', 0.25)):
      run(tmp_path, {'nadamw': 50}, studies=1, step_sec={'nadamw': sec}, framework=framework)
    found, _ = self.score(tmp_path)
    assert found['slow'] == 270.0 and found['quick'] == 200.0

  def test_where_nothing_reached_the_target_no_baseline_is_missed(self, tmp_path):
    run(tmp_path, {'nadamw': 50, 'slow': 90}, studies=1, step_sec={'slow': 2.0})
    run(tmp_path, {'quick': 100}, studies=1, framework='pytorch', reached=False)
    found, result = self.score(tmp_path)
    assert found['slow'] == 180.0 and found['quick'] == math.inf
    assert not [note for note in result.notes if note.kind == 'baseline']

  def test_two_baselines_that_are_each_in_one_framework_give_no_unit(self, tmp_path):
    self.race(tmp_path)
    run(tmp_path, {'nadamw': 50}, studies=1, step_sec={'nadamw': 3.0})
    run(tmp_path, {'baseline': 50}, studies=1, framework='pytorch')
    found, result = self.score(tmp_path)
    assert found['slow'] == 90.0 and found['quick'] == 100.0
    (note,) = [note for note in result.notes if note.kind == 'baseline']
    assert note.detail == 'needs one of baseline, adamw or nadamw everywhere'

  def test_costs_beside_another_submission_give_no_unit(self, tmp_path):
    run(tmp_path, {'a': 100, 'slow': 100}, studies=1)
    measured(tmp_path, {'slow': 5.0}, studies=1)
    found = race_files.read_costs(tmp_path)
    (tmp_path / race_files.COSTS_FILE).unlink()
    race_files.append_costs(tmp_path, [dataclasses.replace(one, baseline='a') for one in found])
    assert self.score(tmp_path)[0] == {'a': 100.0, 'slow': 100.0}


class TestVerdict:
  def verdict(self, root: Path, a: str = 'nadamw', b: str = 'twin', **options: Any):
    return verdicts.one_pair(scored(root, statistics=False, **options), a, b, seed=0)

  def same_steps(self, root: Path, ratio: float, floors: tuple[float, float]) -> None:
    """Ten studies that say the same: with fewer no single workload decides."""
    run(root, {'nadamw': 100, 'twin': 100}, studies=10)
    measured(root, {'twin': ratio}, floors=[*floors] * 5, studies=10)

  def test_what_is_within_the_noise_of_the_cost_is_undecided(self, tmp_path):
    self.same_steps(tmp_path, 1.10, (1.02, 1.02))
    result = scored(tmp_path, statistics=False)
    found = verdicts.one_pair(result, 'nadamw', 'twin', seed=0)
    assert found.p < 0.01 and found.speedup == pytest.approx(1.10)
    noise = cost_errors.of(result).least_effect(0, 1, [0])
    assert found.min_effect == pytest.approx(math.exp(noise)) and noise > 0.1
    assert (found.verdict, found.more_studies) == ('undecided', None)
    assert console.sentence(found).endswith(f'is known to {found.min_effect - 1:.0%} only.')

  @pytest.mark.parametrize('floor', [1.002, 1 / 1.002])
  def test_what_is_above_it_is_decided(self, tmp_path, floor):
    self.same_steps(tmp_path, 1.10, (floor, floor))
    found = self.verdict(tmp_path)
    assert 1.01 < found.min_effect < 1.05
    assert found.verdict == 'better'

  def test_it_widens_the_intervals(self, tmp_path):
    """Regression: noise of step costs was in no interval."""
    widths = []
    for folder, floor in (('sure', 1.0), ('unsure', 1.02)):
      self.same_steps(tmp_path / folder, 1.10, (floor, floor))
      statistics = scored(tmp_path / folder, num_resamples=200).statistics
      (speedup,) = statistics.speedups
      twin = statistics.intervals.times[1, 0]
      widths.append((np.ptp(twin), speedup.high - speedup.low))
    assert widths[0] == (pytest.approx(0.0), pytest.approx(0.0))
    assert widths[1][0] > 2 and widths[1][1] > 0.02

  def test_two_per_cent_are_needed_in_any_case(self, tmp_path):
    self.same_steps(tmp_path, 1.015, (1.0, 1.0))
    found = self.verdict(tmp_path)
    assert found.verdict == 'undecided' and found.min_effect == pytest.approx(1.02)
    assert 'too small' in console.sentence(found)

  def test_without_measured_costs_the_floor_is_that_of_timers(self, tmp_path):
    run(tmp_path, {'nadamw': 100, 'twin': 100}, studies=10, step_sec={'twin': 1.1})
    result = scored(tmp_path, statistics=False)
    found = verdicts.one_pair(result, 'nadamw', 'twin', seed=0)
    assert found.verdict == 'better' and found.min_effect == pytest.approx(1.02)
    assert UNMEASURED in ' '.join(console.comparison_lines(result, found))

  def test_costs_without_a_known_error_are_named_and_others_are_not(self, tmp_path):
    """Regression: costs that were not measured counted as exact, and nothing said so."""
    self.same_steps(tmp_path, 1.10, (1.02, 1.02))
    result = scored(tmp_path, statistics=False)
    found = verdicts.one_pair(result, 'nadamw', 'twin', seed=0)
    said = [*outputs.footnotes(result), *console.comparison_lines(result, found)]
    assert not any(UNMEASURED in text for text in said)
    without_copy = [one for one in race_files.read_costs(tmp_path) if not one.is_floor]
    (tmp_path / race_files.COSTS_FILE).unlink()
    race_files.append_costs(tmp_path, without_copy)
    result = scored(tmp_path, statistics=False)
    assert any(UNMEASURED in text for text in outputs.footnotes(result))
    assert cost_errors.not_measured(result) == ('quick_vision',)

  def test_plain_steps_and_seconds_have_no_error_of_costs(self, tmp_path):
    run(tmp_path, {'a': 100, 'b': 100}, studies=2)
    for options in ({}, {'axis': 'seconds'}):
      assert cost_errors.not_measured(scored(tmp_path, statistics=False, **options)) == ()


class TestReport:
  def result(self, root: Path, **options: Any):
    run(root, {'nadamw': 100, 'slow': 150}, studies=3)
    measured(root, {'slow': [2.0, 3.0, 4.0]}, floors=[1.0, 0.95, 1.01], studies=3)
    config = [
      PlannedTrials(
        submission=name,
        workload='quick_vision',
        framework='jax',
        num_trials=5,
        at_most_sec=21.0,
        expected_sec=16.0,
        off_clock_sec=1.0,
        basis='assumed: 3/4 of the budget',
      )
      for name in ('nadamw', 'slow')
    ]
    race_files.write_estimate(root, config)
    return scored(root, **options)

  def test_costs_of_steps_with_their_spread_and_noise(self, tmp_path):
    found = {one.submission: one for one in costs.steps(self.result(tmp_path))}
    slow, logs = found['slow'], [math.log(cost) for cost in (2.0, 3.0, 4.0)]
    center, error = statistics.fmean(logs), statistics.stdev(logs) / math.sqrt(3)
    assert slow.cost == pytest.approx(24 ** (1 / 3))
    bounds = [math.exp(center + sign * 4.30265 * error) for sign in (-1, 1)]  # t with 2 degrees
    assert (slow.low, slow.high) == pytest.approx(bounds, rel=1e-4)
    assert slow.noise == pytest.approx(abs(math.log(0.95 * 1.01)) / 3, rel=0.02)
    assert (found['nadamw'].cost, found['nadamw'].low) == (1.0, 1.0)

  def test_the_interval_of_a_cost_is_no_narrower_than_the_noise_of_the_baseline(self, tmp_path):
    run(tmp_path, {'nadamw': 100, 'slow': 150}, studies=3)
    measured(tmp_path, {'slow': 2.0}, floors=1.01, studies=3)
    _, slow = sorted(costs.steps(scored(tmp_path)), key=lambda one: one.submission)
    assert slow.high == pytest.approx(2.0 * 1.01**12.7062)  # t with one degree of freedom

  def test_without_a_measure_the_interval_is_that_of_the_runs(self, tmp_path):
    run(tmp_path, {'nadamw': 100, 'slow': 150}, studies=1)
    (slow,) = [one for one in costs.steps(scored(tmp_path)) if one.submission == 'slow']
    assert slow.cost == 1.0 and slow.noise is None
    assert math.isnan(slow.low) and math.isnan(slow.high)

  def test_seconds_have_no_cost_of_a_step(self, tmp_path):
    assert costs.steps(self.result(tmp_path, axis='seconds', statistics=False)) == ()

  def test_what_was_planned_against_what_was_taken(self, tmp_path):
    """Three trials each of 12 s by their own clocks, for which 15 s, at most 20, were planned."""
    one, total = planned.forecasts(self.result(tmp_path, statistics=False))
    assert (one.workload, total.workload) == ('quick_vision', None)
    assert (one.num_trials, one.expected_sec, one.at_most_sec) == (6, 90.0, 120.0)
    assert one.actual_sec == 72.0 and one.error == pytest.approx(0.25)
    assert dataclasses.replace(one, workload=None) == total
    assert planned.sentence(one) == (
      'quick_vision: 72 s of 6 finished trials; expected 90 s (25% more than it took), at most '
      '2.0 min. Where trials stop: assumed: 3/4 of the budget.'
    )

  def test_trials_that_did_not_finish_are_not_compared(self, tmp_path):
    self.result(tmp_path, statistics=False)
    for path in tmp_path.glob('slow/*/*/*/trial.json'):
      path.write_text(path.read_text().replace('finished', 'failed'))
    one, _ = planned.forecasts(scored(tmp_path, statistics=False))
    assert (one.num_trials, one.expected_sec, one.actual_sec) == (3, 45.0, 36.0)

  def test_both_stand_in_the_files_and_on_the_page(self, tmp_path):
    result = self.result(tmp_path)
    record = json.loads(json.dumps(outputs.as_json(result)))
    assert record['forecasts'][0]['error'] == pytest.approx(0.25)
    assert record['step_costs'][1]['noise'] == pytest.approx(0.01389, rel=1e-3)
    shown = payload.build(scoring.load(tmp_path), result)
    assert shown['step_costs'] == {
      'workloads': ['quick_vision'],
      'rows': [
        {'submission': 'nadamw', 'values': ['1.00']},
        {'submission': 'slow', 'values': ['2.88 (1.21 to 6.85)']},
      ],
      'noise': ['1.4%'],
    }
    page = report.write(scoring.load(tmp_path), result, tmp_path / 'out', figures=False)
    text = page.read_text()
    assert 'What a step costs' in text and '2.88 (1.21 to 6.85)' in text and '1.4%' in text
    assert 'expected 90 s (25% more than it took)' in text

  def test_without_them_the_page_says_less(self, tmp_path):
    run(tmp_path, {'nadamw': 100, 'slow': 150}, studies=2)
    result = scored(tmp_path)
    shown = payload.build(scoring.load(tmp_path), result)
    assert shown['forecasts'] == []
    assert shown['step_costs']['noise'] == ['from the runs']
    page = report.write(scoring.load(tmp_path), result, tmp_path / 'out', figures=False)
    assert 'Planned and taken' not in page.read_text()


class TestSpent:
  """Shares of the wall time of finished trials, and the part that was waited for data."""

  def runs(self, root: Path, **waited: float | None) -> None:
    buckets = {'data': 3.0, 'update': 6.0, 'eval': 1.0}
    for name, seconds in waited.items():
      run(root, {name: 100}, studies=2, buckets=buckets, data_wait_sec=seconds)

  def test_shares_are_of_all_trials_together(self, tmp_path):
    self.runs(tmp_path, nadamw=2.0, slow=None)
    known, unknown = spent.of(scored(tmp_path, statistics=False))
    assert (known.submission, known.workload, known.num_trials) == ('nadamw', 'quick_vision', 2)
    assert known.shares == pytest.approx({'data': 0.3, 'update': 0.6, 'eval': 0.1})
    assert known.waited == pytest.approx(0.2)
    assert math.isnan(unknown.waited) and unknown.shares == known.shares

  def test_they_stand_on_the_page(self, tmp_path):
    self.runs(tmp_path, nadamw=2.0, slow=None)
    result = scored(tmp_path)
    rows = payload.build(scoring.load(tmp_path), result)['spent']['rows']
    assert [row['waited'] for row in rows] == ['20.0%', '']
    page = report.write(scoring.load(tmp_path), result, tmp_path / 'out', figures=False)
    text = page.read_text()
    assert 'Where the time went' in text and '60.0%' in text and '20.0%' in text

  def test_trials_without_a_clock_have_no_shares(self, tmp_path):
    run(tmp_path, {'nadamw': 100, 'slow': 150}, studies=2, buckets={})
    result = scored(tmp_path)
    assert spent.of(result) == ()
    page = report.write(scoring.load(tmp_path), result, tmp_path / 'out', figures=False)
    assert 'Where the time went' not in page.read_text()


def test_logs_of_a_cost_are_symmetric():
  """A floor that is too cheap is as large as one that is too dear."""
  rounds = ((1.0, 2.0, 1.0),)
  fields = {'submission': 'a', 'baseline': 'a', 'workload': 'w', 'framework': 'jax', 'host': ''}
  dear = StepCost(**fields, study=1, rounds=rounds)
  cheap = StepCost(**fields, study=1, rounds=((2.0, 1.0, 2.0),))
  assert dear.log_cost == -cheap.log_cost == math.log(2)


class TestErrors:
  def test_they_are_the_mean_noise_of_the_baseline_against_itself(self, tmp_path):
    noise = {'quick_vision': [0.05, -0.01], 'quick_lm': [-0.03, -0.05]}
    for workload, logs in noise.items():
      run(tmp_path, {'nadamw': 100, 'slow': 100}, studies=2, workload=workload)
      floors = [math.exp(one) for one in logs]
      measured(tmp_path, {'slow': 2.0}, floors=floors, studies=2, workload=workload)
    run(tmp_path, {'slow': 100}, studies=2, workload='quick_lm', framework='pytorch')
    result = scored(tmp_path, statistics=False, workloads=tuple(noise), allow_provisional=True)
    found = cost_errors.of(result)
    vision, lm = (result.workloads.index(name) for name in noise)
    assert found.df == 1 and found.log_sd == pytest.approx(0.02)  # the other has no unit
    assert found.is_unit[:, vision].tolist() == [True, False, False]
    assert found.places[:, vision].tolist() == [0, 0, cost_errors.NOT_MEASURED]
    assert found.places[:, lm].tolist() == [cost_errors.NOT_MEASURED] * 3
