"""Times to scores: the rules one by one, options, and properties that hold for any table."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scoring_runs import hit_at, miss, write_times, write_trial

import scoring
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.errors import UserError
from algorithmic_efficiency.results import race_files
from algorithmic_efficiency.results.race_files import Selection
from scoring import outputs, profiles, report
from scoring.notes import counted
from scoring.report import payload
from scoring.time_to_target import medians

TWO = ('ogbg', 'wmt')


def score(root, suite='algoperf_v06', workloads=TWO, **options):
  options.setdefault('statistics', False)
  return scoring.score(scoring.load(root), suite, workloads=workloads, **options)


def by_name(result) -> dict[str, float]:
  return dict(zip(result.submissions, result.scores.tolist(), strict=True))


def test_the_hand_case(tmp_path):
  write_times(tmp_path, {'A': {'ogbg': 10.0, 'wmt': 40.0}, 'B': {'ogbg': 20.0, 'wmt': 10.0}})
  found = by_name(score(tmp_path, integral='exact'))
  assert found == {'A': pytest.approx(0.5), 'B': pytest.approx((1 + 2 / 3) / 2)}
  assert round(found['B'], 4) == 0.8333


def test_a_study_counts_the_smallest_row_and_then_the_seconds(tmp_path):
  late_row = [(1, 1.0, 0.0), (2, 2.0, 0.0), (3, 3.0, 0.0), (4, 4.0, 0.3)]
  early_row = [(1, 1.0, 0.0), (2, 9.0, 0.3)]
  earlier_seconds = [(1, 1.0, 0.0), (2, 8.0, 0.3)]
  for trial, rows in enumerate((late_row, early_row, earlier_seconds), 1):
    write_trial(tmp_path, 'a', 'ogbg', rows, trial=trial)
  assert score(tmp_path, workloads=['ogbg']).times.tolist() == [[8.0]]


def test_the_median_over_studies_lets_misses_take_part(tmp_path):
  for study, seconds in enumerate((10.0, 30.0, None, 20.0, None), 1):
    rows = miss('ogbg') if seconds is None else hit_at('ogbg', seconds)
    write_trial(tmp_path, 'a', 'ogbg', rows, study=study)
  assert score(tmp_path, workloads=['ogbg']).times.tolist() == [[30.0]]


@pytest.mark.parametrize(
  ('values', 'expected'),
  [
    ([3.0, 1.0, 2.0], 2.0),
    ([1.0, 2.0], 1.5),
    ([1.0, np.inf], np.inf),
    ([1.0, 2.0, np.inf, np.inf], np.inf),
    ([np.inf, np.inf], np.inf),
    ([5.0, np.nan, np.nan], 5.0),
  ],
)
def test_medians(values, expected):
  assert medians(np.array(values)) == expected


def test_a_time_above_four_times_the_fastest_is_a_miss(tmp_path):
  write_times(tmp_path, {'a': {'ogbg': 10.0}, 'b': {'ogbg': 40.0}, 'c': {'ogbg': 40.1}})
  result = score(tmp_path, workloads=['ogbg'])
  assert result.ratios[:, 0].tolist() == [1.0, 4.0, np.inf]
  assert result.times[:, 0].tolist() == [10.0, 40.0, 40.1]  # the table is before the filters


HELD = ('ogbg', 'ogbg_model_size')


def held_out(tmp_path, times):
  write_times(tmp_path, times)
  return by_name(score(tmp_path, suite='algoperf_v05', workloads=HELD, integral='exact'))


def test_a_missed_variant_costs_its_base(tmp_path):
  found = held_out(
    tmp_path,
    {'a': {'ogbg': 10.0, 'ogbg_model_size': None}, 'b': {'ogbg': 20.0, 'ogbg_model_size': 5.0}},
  )
  assert found == {'a': 0.0, 'b': 1.0}  # the fastest is found again after the filters


def test_a_slow_variant_costs_its_base(tmp_path):
  found = held_out(
    tmp_path,
    {'a': {'ogbg': 10.0, 'ogbg_model_size': 21.0}, 'b': {'ogbg': 20.0, 'ogbg_model_size': 5.0}},
  )
  assert found == {'a': 0.0, 'b': 1.0}


def test_a_variant_without_its_base_is_no_competitor(tmp_path):
  """The fast variant of a submission that misses the base does not make the others slow."""
  found = held_out(
    tmp_path,
    {'a': {'ogbg': None, 'ogbg_model_size': 1.0}, 'b': {'ogbg': 20.0, 'ogbg_model_size': 5.0}},
  )
  assert found == {'a': 0.0, 'b': 1.0}


def test_a_workload_that_nobody_ran_is_a_miss_of_all(tmp_path):
  write_times(tmp_path, {'a': {'ogbg': 10.0}})
  result = scoring.score(scoring.load(tmp_path), 'algoperf_v06', statistics=False, integral='exact')
  assert by_name(result) == {'a': pytest.approx(1 / 8)}
  assert counted(result.notes)['absent_workload'] == 7


def test_each_suite_has_its_integral_and_grid_is_the_trapezoid_on_100_points(tmp_path):
  write_times(tmp_path, {'a': {'ogbg': 10.0}, 'b': {'ogbg': 23.0}})
  result = score(tmp_path, workloads=['ogbg'])
  tau = np.linspace(1, 4, 100)
  expected = np.trapezoid((tau >= 2.3).astype(float), tau) / 3
  assert by_name(result)['b'] == pytest.approx(expected, abs=1e-15)


def test_a_reference_is_the_unit(tmp_path):
  write_times(tmp_path, {'a': {'ogbg': 10.0}, 'b': {'ogbg': 20.0}, 'c': {'ogbg': 30.0}})
  result = score(tmp_path, workloads=['ogbg'], reference='b', integral='exact')
  assert result.ratios[:, 0].tolist() == [0.5, 1.0, 1.5]
  assert by_name(result)['a'] == 1.0


def test_options_choose_submissions(tmp_path):
  write_times(tmp_path, {name: {'ogbg': 10.0} for name in 'abc'})
  assert score(tmp_path, workloads=['ogbg'], include=['a', 'b']).submissions == ('a', 'b')
  result = score(tmp_path, workloads=['ogbg'], exclude=['a'])
  assert result.submissions == ('b', 'c')
  assert counted(result.notes)['excluded'] == 1


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'suite': 'algoperf_v6'}, "Did you mean 'algoperf_v06'"),
    ({'reference': 'aa'}, 'refer to'),
    ({'include': ['zz']}, "no submission among the runs 'zz'"),
    ({'exclude': ['a']}, 'no submission to score'),
    ({'workloads': ['ogb']}, "Did you mean 'ogbg'"),
    ({'workloads': ['wmt']}, 'no workload that the suite'),
    ({'against': 'nonesuch'}, "no published set 'nonesuch'"),
    ({'against': 'algoperf_v05'}, 'same suite'),
    ({'against': 'algoperf_v06'}, 'published set'),
  ],
)
def test_what_cannot_be_scored_gets_one_clear_message(tmp_path, options, message):
  write_times(tmp_path, {'a': {'ogbg': 10.0}})
  with pytest.raises(UserError, match=message):
    score(tmp_path, **{'workloads': ['ogbg'], **options})


def test_a_variant_alone_is_refused(tmp_path):
  write_times(tmp_path, {'a': {'ogbg_model_size': 10.0}})
  with pytest.raises(UserError, match='add ogbg'):
    score(tmp_path, suite='algoperf_v05', workloads=['ogbg_model_size'])


def test_strict_lists_all_that_is_broken(tmp_path):
  write_times(tmp_path, {'a': {'ogbg': 10.0}}, studies=3, trials=5)
  score(tmp_path, workloads=['ogbg'], strict=True)
  write_trial(tmp_path, 'b', 'ogbg', None, study=1, trial=1)
  with pytest.raises(UserError) as caught:
    score(tmp_path, strict=True)
  text = str(caught.value)
  for expected in ('no_data', '1 of 3 studies', '1 of 5 trials', 'absent_workload: wmt'):
    assert expected in text


def test_uneven_counts_are_noted(tmp_path):
  write_times(tmp_path, {'a': {'ogbg': 10.0}}, studies=2, trials=5)
  found = counted(score(tmp_path).notes)
  assert found['study_count'] == 1 and found['absent_workload'] == 1


def test_equal_scores_share_a_place(tmp_path):
  lost = {'ogbg': None, 'wmt': None}
  times = {'a': lost, 'b': lost, 'c': {'ogbg': 10.0, 'wmt': 10.0}, 'd': {'ogbg': 20.0, 'wmt': 20.0}}
  write_times(tmp_path, times)
  frame, result = scoring.load(tmp_path), score(tmp_path, statistics=True, num_resamples=20)
  expected = [('c', 1), ('d', 2), ('a', 3), ('b', 3)]
  rows = outputs.leaderboard_rows(result)
  assert [(row['submission'], int(row['#'])) for row in rows] == expected
  page = payload.build(frame, result)['leaderboard']
  for records in (outputs.as_json(result)['leaderboard'], page):
    assert [(record['submission'], record['rank']) for record in records] == expected


def test_the_heat_map_divides_and_refuses_as_the_score_does(tmp_path):
  times = {
    'quick': {'ogbg': 10.0, 'ogbg_model_size': None},  # misses its variant: no unit of others
    'a': {'ogbg': 20.0, 'ogbg_model_size': 100.0},
    'b': {'ogbg': 30.0, 'ogbg_model_size': 300.0},
    'lost': {'ogbg': None, 'ogbg_model_size': 10.0},  # misses its base: no cut-off for others
  }
  write_times(tmp_path, times)
  options = {'suite': 'algoperf_v05', 'workloads': ['ogbg', 'ogbg_model_size']}
  frame = scoring.load(tmp_path)
  result = score(tmp_path, **options, statistics=True, num_resamples=20)
  heat = payload.build(frame, result)['charts']['heat']
  cells = dict(zip([result.submissions[s] for s in result.ranking], heat, strict=True))
  assert result.ratios[:, 0].tolist() == [1.0, 1.5, np.inf, np.inf]
  assert [cells[name][0].get('miss') for name in 'ab'] == [None, None]
  assert [cells[name][0]['r'] for name in 'ab'] == [1.0, 1.5]
  assert [cells[name][1].get('miss') for name in 'ab'] == [None, None]
  assert [cells[name][1]['r'] for name in 'ab'] == [1.0, 3.0]
  assert cells['quick'][0]['miss'] == 'held_out' and cells['lost'][1]['miss'] == 'base'

  result = score(tmp_path, **options, reference='b', statistics=True, num_resamples=20)
  charts = payload.build(frame, result)['charts']
  b = charts['submissions'].index('b')
  assert charts['ratios_to'] == 'b' and charts['heat'][b][0]['r'] == 1.0


def test_published_competitors_stand_beside_ours(tmp_path):
  write_times(tmp_path, {'mine': {'ogbg': 100.0}, 'baseline': {'ogbg': 9_000.0}})
  result = scoring.score(
    scoring.load(tmp_path), 'algoperf_v05', against='algoperf_v05', statistics=False
  )
  assert len(result.published) == 11 and len(result.submissions) == 13
  assert 'baseline (published)' in result.published and 'baseline' in result.submissions
  assert result.times[result.submissions.index('shampoo_submission')].min() > 0


def test_runs_of_no_workload_of_a_published_set_are_refused(tmp_path):
  """Regression: the published board was shown, without the runs, and the command succeeded."""
  write_times(tmp_path, {'mine': {'quick_vision': 100.0}})
  with pytest.raises(UserError, match=r'no workload that the suite algoperf_v05.*: quick_vision'):
    score(tmp_path, suite='algoperf_v05', against='algoperf_v05', workloads=())


class TestSelection:
  """What a race has chosen is what is scored, unless the caller says otherwise."""

  def workloads(self, root: Path, selection: Selection | None, **options) -> tuple[str, ...]:
    write_times(root, {'mine': {'quick_vision': 100.0, 'quick_lm': 9.0}})
    if selection is not None:
      race_files.write_selection(root, selection)
    return score(root, suite='quick', **{'workloads': (), **options}).workloads

  def chosen(self, *names: str, suite: str = 'quick') -> Selection:
    return Selection(suite=suite, workloads=names)

  def test_it_is_remembered(self, tmp_path):
    result = self.workloads(tmp_path, self.chosen('quick_vision'), allow_provisional=True)
    assert result == ('quick_vision',)

  def test_the_caller_comes_first(self, tmp_path):
    options = {'workloads': ['quick_lm'], 'allow_provisional': True}
    assert self.workloads(tmp_path, self.chosen('quick_vision'), **options) == ('quick_lm',)

  @pytest.mark.parametrize('suite', [None, 'lite'])
  def test_without_one_for_this_suite_all_are_scored(self, tmp_path, suite):
    selection = None if suite is None else self.chosen('quick_vision', suite=suite)
    found = self.workloads(tmp_path, selection, allow_provisional=True)
    assert {'quick_vision', 'quick_lm'} <= set(found)

  def test_what_is_provisional_is_chosen_in_vain(self, tmp_path, monkeypatch):
    found = dict(registry.workloads())
    target = dataclasses.replace(found['quick_lm'].target, provisional=True)
    found['quick_lm'] = dataclasses.replace(found['quick_lm'], target=target)
    monkeypatch.setattr(registry, 'workloads', lambda: found)
    assert self.workloads(tmp_path, self.chosen('quick_vision', 'quick_lm')) == ('quick_vision',)

  def test_one_that_is_damaged_is_named(self, tmp_path):
    (tmp_path / race_files.SELECTION_FILE).write_text('[]')
    with pytest.raises(UserError, match=r'race\.json is damaged'):
      self.workloads(tmp_path, None)


def test_summaries_and_reports_of_an_earlier_score_do_not_stay(tmp_path):
  write_times(tmp_path / 'runs', {'a': {'ogbg': 10.0}, 'b': {'ogbg': 20.0}})
  out = tmp_path / 'out'
  result = score(tmp_path / 'runs', workloads=['ogbg'], statistics=True, num_resamples=20)
  outputs.write_tables(result, out)
  report.write(scoring.load(tmp_path / 'runs'), result, out)
  (out / 'notes.txt').write_text('mine')
  outputs.write_tables(score(tmp_path / 'runs', workloads=['ogbg'], exclude=['b']), out)
  report.remove(out)
  assert {path.name for path in out.iterdir()} == {
    'a_summary.csv',
    *('leaderboard.json', 'leaderboard.md', 'notes.txt', 'performance_profile.csv', 'scores.csv'),
    *('time_to_targets.csv', 'time_to_targets_raw.csv'),
  }


def test_self_tuning_has_no_hyperparameters_and_one_trial(tmp_path):
  write_times(tmp_path, {'a': {'ogbg': 10.0}, 'b': {'ogbg': 20.0}}, studies=3)
  result = score(
    tmp_path, workloads=['ogbg'], ruleset='self', strict=True, statistics=True, num_resamples=50
  )
  assert result.notes == ()
  assert result.rules.budget_sec('ogbg') == 1.5 * 12_011
  assert result.statistics.tuning_curves.num_trials == (1,)


# Cost-adjusted steps.


def steps_record(seed: int, host: str = 'h', **changes):
  return {
    'suite': 'algoperf_v06',
    'ruleset': 'external',
    'status': 'finished',
    'seeds': {'study': seed},
    'environment': {'host_hash': host},
    **changes,
  }


def test_cost_adjusted_steps_weigh_a_step_by_the_baselines_on_the_same_host(tmp_path):
  # A step of `slow` takes twice the baseline's on each host, though host 2 is ten times slower.
  for study, (host, sec) in enumerate((('h1', 0.3), ('h2', 3.0), ('h1', 0.3)), 1):
    for name, factor, steps in (('nadamw', 1, 200), ('slow', 2, 150)):
      write_trial(
        tmp_path,
        name,
        'ogbg',
        hit_at('ogbg', 10.0, steps=steps),
        study=study,
        record=steps_record(study, host, step_time_sec=sec * factor),
      )
  result = score(tmp_path, workloads=['ogbg'], axis='cost_adjusted_steps')
  times = dict(zip(result.submissions, result.cells.study_times[:, 0].tolist(), strict=True))
  assert times == {'nadamw': [200.0] * 3, 'slow': pytest.approx([300.0] * 3)}
  assert any('axis' in change for change in result.rules.changes)


def test_step_times_are_measured_from_the_rows_where_no_record_says_them(tmp_path):
  rows = [(1, 50.0, 0.0), (11, 51.0, 0.0), (21, 52.0, 0.3)]  # compilation is before the first row
  write_trial(tmp_path, 'a', 'ogbg', rows)
  assert score(tmp_path, workloads=['ogbg']).outcomes.step_sec.tolist() == [0.1]


def test_without_a_baseline_plain_steps_count_and_that_is_said(tmp_path):
  write_times(tmp_path, {'x': {'ogbg': 10.0}, 'y': {'ogbg': 20.0}})
  result = score(tmp_path, workloads=['ogbg'], axis='cost_adjusted_steps')
  assert result.times[:, 0].tolist() == [100.0, 100.0]
  assert counted(result.notes)['baseline'] == 1


# Suites.


def test_suites_that_need_runnable_members_count_those_alone():
  from scoring.rules import resolve

  rules = resolve('algoperf_a100')
  assert len(rules.base) == 9 and not rules.base_of
  assert len(resolve('algoperf_v05').base) == 8 and len(resolve('algoperf_v05').base_of) == 6
  for name in ('quick', 'lite'):
    try:
      members = resolve(name, allow_provisional=True).members
    except UserError:
      continue  # nothing of it can run yet
    assert all(registry.is_runnable(one) for one in members.values())


# Properties of any table of times.

TIMES = hnp.arrays(
  np.float64,
  st.tuples(st.integers(1, 5), st.just(5)),
  elements=st.one_of(
    st.just(np.inf), st.just(np.nan), st.floats(0.01, 1e6).map(lambda x: float(f'{x:.6g}'))
  ),
)
# Three base workloads, the first two with a variant each.
COLUMNS = profiles.columns(['b0', 'h0', 'b1', 'h1', 'b2'], {'h0': 'b0', 'h1': 'b1'}, 3)
PLAIN = profiles.columns(['b0', 'b1', 'b2', 'b3', 'b4'], {}, 5)


def scored(times, which=COLUMNS, integral='grid', **options):
  return profiles.scores(times, which, max_ratio=4.0, integral=integral, **options)


@given(TIMES, st.sampled_from(['grid', 'exact']), st.sampled_from([COLUMNS, PLAIN]))
def test_scores_lie_between_0_and_1(times, integral, which):
  found = scored(times, which, integral)
  assert ((found >= 0) & (found <= 1 + 1e-12)).all()


@given(TIMES, st.data(), st.sampled_from(['grid', 'exact']), st.sampled_from([COLUMNS, PLAIN]))
def test_a_lower_time_never_lowers_its_submissions_score(times, data, integral, which):
  s = data.draw(st.integers(0, times.shape[0] - 1))
  w = data.draw(st.integers(0, 4))
  before = scored(times, which, integral)[s]
  lower = times.copy()
  old = lower[s, w]
  lower[s, w] = (
    data.draw(st.floats(0.001, 1e6))
    if not np.isfinite(old)
    else old * data.draw(st.floats(0.001, 1.0))
  )
  assert scored(lower, which, integral)[s] >= before - 1e-12


@given(TIMES, st.randoms(use_true_random=False), st.integers(0, 4), st.integers(-20, 20))
def test_order_and_units_change_nothing(times, random, column, power):
  order = list(range(times.shape[0]))
  random.shuffle(order)
  for integral in ('grid', 'exact'):
    before = scored(times, COLUMNS, integral)
    assert (scored(times[order], COLUMNS, integral) == before[order]).all()
    scaled = times.copy()
    scaled[:, column] *= 2.0**power
    assert (scored(scaled, COLUMNS, integral) == before).all()


@given(TIMES)
def test_exact_and_grid_differ_by_at_most_half_a_step(times):
  for which in (COLUMNS, PLAIN):
    difference = np.abs(scored(times, which, 'exact') - scored(times, which, 'grid'))
    assert (difference <= 1 / 198 + 1e-12).all()


@given(TIMES)
def test_the_grid_is_the_trapezoid_of_the_profile(times):
  ratios = profiles.ratios(profiles.surviving(times, COLUMNS, 4.0))
  profile = profiles.profile(ratios, COLUMNS.num_counted, 4.0)
  area = np.trapezoid(profile, np.linspace(1, 4, 100), axis=1) / 3
  np.testing.assert_allclose(scored(times), area, atol=1e-12)


def slow_reference(times, base, variants):
  """The rules as they are written, for one table, cell by cell."""
  table = np.where(np.isnan(times), np.inf, times)
  for h, b in variants.items():
    table[np.isinf(table[:, b]), h] = np.inf
  for w in range(table.shape[1]):
    table[table[:, w] > 4 * table[:, w].min(), w] = np.inf
  for h, b in variants.items():
    table[np.isinf(table[:, h]), b] = np.inf
  total = np.zeros(len(table))
  for w in base:
    fastest = table[:, w].min()
    for s in range(len(table)):
      if np.isfinite(table[s, w]):
        total[s] += (4 - table[s, w] / fastest) / 3
  return total / len(base)


@settings(max_examples=200)
@given(TIMES)
def test_the_rules_agree_with_a_slow_reference(times):
  expected = slow_reference(times, [0, 2, 4], {1: 0, 3: 2})
  np.testing.assert_allclose(scored(times, COLUMNS, 'exact'), expected, atol=1e-9)


def test_renaming_changes_nothing(tmp_path):
  times = {'a': {'ogbg': 10.0, 'wmt': 30.0}, 'b': {'ogbg': 20.0, 'wmt': 11.0}}
  write_times(tmp_path / 'one', times)
  write_times(tmp_path / 'two', {f'z{9 - i}': t for i, t in enumerate(times.values())})
  one, two = by_name(score(tmp_path / 'one')), by_name(score(tmp_path / 'two'))
  assert (one['a'], one['b']) == (two['z9'], two['z8'])
