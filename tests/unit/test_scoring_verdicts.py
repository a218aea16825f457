"""Verdicts: the test of all pairs together, the cells it looks at, and what is said of it."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import verdict_rates
from scoring_runs import hit_at, miss, write_times, write_trial

import scoring
from algorithmic_efficiency.cli import main
from algorithmic_efficiency.launch import request
from scoring import console, outputs
from scoring.statistics import randomization, simulation, verdicts
from scoring.statistics.comparison import compare, gather
from scoring.statistics.randomization import Signs, step_down

FOUR = ('fastmri', 'ogbg', 'wmt', 'imagenet_vit')
TWO = ('ogbg', 'wmt')


def scored(root, workloads=FOUR, **options):
  options = {'statistics': False, **options}
  return scoring.score(scoring.load(root), 'algoperf_v06', workloads=workloads, **options)


def write_studies(root, times):
  """Runs whose time by submission and workload is a list over studies with seeds 1, 2 and so on."""
  for submission, by_workload in times.items():
    for workload, seconds in by_workload.items():
      for study, sec in enumerate(seconds, 1):
        rows = miss(workload) if sec is None else hit_at(workload, sec)
        record = {'seeds': {'study': study}, 'status': 'finished'}
        write_trial(root, submission, workload, rows, study=study, record=record)
  return root


def noisy(root, centers, *, studies=5, spread=0.01, seed=0, workloads=TWO):
  rng = np.random.default_rng(seed)
  return write_studies(
    root,
    {
      name: {w: list(center * np.exp(spread * rng.standard_normal(studies))) for w in workloads}
      for name, center in centers.items()
    },
  )


class TestRandomization:
  def differences(self, num_pairs=4, num_blocks=7, seed=0):
    return np.random.default_rng(seed).standard_normal((num_pairs, num_blocks)) + 0.5

  def test_p_is_the_share_of_all_patterns_by_hand(self):
    differences = self.differences()
    found = step_down(differences, Signs.of(7, 0))
    norms = np.sqrt((differences**2).sum(axis=1))
    sizes = np.abs(differences.sum(axis=1) / norms)
    patterns = np.array(list(itertools.product([-1, 1], repeat=7)))
    flipped = np.abs(patterns @ (differences / norms[:, None]).T)
    alone = (flipped >= sizes - 1e-5).mean(axis=0)
    assert found.alone == pytest.approx(alone)
    adjusted, highest = {}, 0.0
    for pair in np.argsort(-sizes):
      left = [other for other in range(4) if other not in adjusted]
      highest = max(highest, (flipped[:, left].max(axis=1) >= sizes[pair] - 1e-5).mean())
      adjusted[pair] = highest
    assert found.adjusted == pytest.approx([adjusted[pair] for pair in range(4)])
    assert (found.adjusted >= found.alone).all()

  def test_drawn_patterns_come_near_to_all_of_them_and_can_be_drawn_again(self, monkeypatch):
    differences = self.differences(num_blocks=10)
    exact = step_down(differences, Signs.of(10, 0))
    monkeypatch.setattr(randomization, '_MAX_EXACT', 0)
    drawn = step_down(differences, Signs.of(10, 0))
    assert drawn.adjusted == pytest.approx(exact.adjusted, abs=0.02)
    assert (drawn.adjusted == step_down(differences, Signs.of(10, 0)).adjusted).all()
    assert (drawn.adjusted != step_down(differences, Signs.of(10, 1)).adjusted).any()

  def test_a_pair_without_a_difference_changes_no_other(self):
    differences = self.differences()
    alone = step_down(differences, Signs.of(7, 0))
    beside = step_down(np.vstack([differences, np.zeros(7)]), Signs.of(7, 0))
    assert beside.adjusted.tolist() == [*alone.adjusted, 1.0]

  def test_the_scale_of_a_pair_does_not_matter(self):
    differences = self.differences()
    scaled = differences * np.array([[1e-3], [1.0], [10.0], [1e4]])
    one, other = (step_down(found, Signs.of(7, 0)) for found in (differences, scaled))
    assert one.adjusted == pytest.approx(other.adjusted)

  @pytest.mark.parametrize(('blocks', 'least'), [(1, 1.0), (5, 2 / 32), (6, 2 / 64)])
  def test_the_smallest_p_of_few_blocks(self, blocks, least):
    found = step_down(np.linspace(0.9, 1.1, blocks)[None], Signs.of(blocks, 0))
    assert found.adjusted.tolist() == [least] == [randomization.least_p(blocks)]
    assert verdicts.can_decide(blocks) == (blocks >= 6)


class TestManySubmissions:
  def test_eight_that_are_35_percent_apart_are_all_told_apart(self, tmp_path):
    """Regression: with Holm's correction none of the 28 pairs was."""
    noisy(tmp_path, {f's{i}': 100 * 1.35**i for i in range(8)})
    found = verdicts.all_pairs(scored(tmp_path, TWO), seed=0)
    assert [one.verdict for one in found] == ['better'] * 28

  def test_a_duplicate_is_the_same_and_erases_no_verdict(self, tmp_path):
    """Regression: one duplicate erased all verdicts."""
    times = {'a': [100.0, 101, 99, 102, 98], 'b': [140.0, 139, 141, 142, 140]}
    runs = {name: dict.fromkeys(TWO, found) for name, found in times.items()}
    write_studies(tmp_path, {**runs, 'twin': runs['a']})
    found = {(one.a, one.b): one for one in verdicts.all_pairs(scored(tmp_path, TWO), seed=0)}
    assert found['a', 'twin'].verdict == 'same'
    assert found['a', 'b'].verdict == found['twin', 'b'].verdict == 'better'
    assert 'a and twin are the same: equally fast' in console.sentence(found['a', 'twin'])

  def test_two_that_miss_everything_are_not_the_same(self, tmp_path):
    write_studies(tmp_path, {name: dict.fromkeys(TWO, [None] * 3) for name in 'ab'})
    found = verdicts.one_pair(scored(tmp_path, TWO), 'a', 'b', seed=0)
    assert (found.verdict, found.speedup) == ('undecided', 1.0)

  @pytest.mark.parametrize('draw', verdict_rates.NULLS)
  def test_false_verdicts_are_few(self, draw):
    """A small version of tests/simulations/verdict_rates.py."""
    false, _ = verdict_rates.rates(draw, 6, (5, 2), 300)
    assert false <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 300)

  def test_the_simulation_finds_what_is_there(self):
    false, right = verdict_rates.rates(verdict_rates.far_apart, 8, (5, 2), 40)
    assert (false, right) == (0.0, 1.0)


class TestCells:
  def test_a_workload_that_one_never_ran_is_a_miss_in_verdict_and_score(self, tmp_path):
    """Regression: the verdict dropped it, so that rank 1 was called worse than rank 2."""
    write_studies(
      tmp_path,
      {
        'part': {'ogbg': [95.0, 94, 96, 95, 94, 96]},
        'all': {'ogbg': [100.0, 99, 101, 100, 99, 101], 'wmt': [100.0] * 6},
      },
    )
    result = scored(tmp_path, TWO)
    (found,) = verdicts.all_pairs(result, seed=0)
    assert (found.a, found.verdict, found.num_workloads) == ('all', 'better', 2)
    assert (found.num_misses_a, found.num_misses_b, found.bound) == (0, 6, 'at least')
    assert found.paired

  def test_a_workload_that_neither_ran_is_left_out(self, tmp_path):
    noisy(tmp_path, {'a': 100.0, 'b': 140.0}, workloads=('ogbg',))
    assert verdicts.one_pair(scored(tmp_path, TWO), 'a', 'b', seed=0).num_workloads == 1

  def test_a_missed_held_out_variant_is_a_miss_of_its_base(self, tmp_path):
    times = {'ogbg': [100.0] * 3, 'ogbg_model_size': [100.0] * 3}
    write_studies(tmp_path, {'a': times, 'b': {**times, 'ogbg_model_size': [None] * 3}})
    result = scoring.score(
      scoring.load(tmp_path), 'algoperf_v05', workloads=tuple(times), statistics=False
    )
    found = verdicts.one_pair(result, 'a', 'b', seed=0)
    assert (found.num_misses_a, found.num_misses_b) == (0, 3)
    assert found.speedup == pytest.approx(4.0)

  def test_studies_without_a_partner_are_left_out(self, tmp_path):
    write_studies(tmp_path, {'a': {'ogbg': [100.0] * 5}, 'b': {'ogbg': [200.0, 200, 200]}})
    comparison = compare(gather(scored(tmp_path, TWO), [(0, 1)]), 0, 1)
    assert (comparison.num_studies, comparison.num_blocks, comparison.paired) == (3, 3, False)

  @pytest.mark.parametrize(
    ('a', 'b', 'bound', 'said'),
    [
      (100.0, 200.0, 'exact', 'a is 2.00 times as fast'),
      (100.0, 900.0, 'at least', 'a is at least 4.00 times as fast'),
      (None, 100.0, 'at most', 'b is at least 4.00 times as fast'),
    ],
  )
  def test_what_is_cut_off_is_said(self, tmp_path, a, b, bound, said):
    write_studies(tmp_path, {'a': {'ogbg': [a] * 3}, 'b': {'ogbg': [b] * 3}})
    found = verdicts.one_pair(scored(tmp_path, TWO), 'a', 'b', seed=0)
    assert found.bound == bound and said in console.sentence(found)

  def test_cut_offs_on_both_sides_bound_nothing(self, tmp_path):
    write_studies(
      tmp_path, {'a': {'ogbg': [None], 'wmt': [10.0]}, 'b': {'ogbg': [50.0], 'wmt': [None]}}
    )
    found = verdicts.one_pair(scored(tmp_path, TWO), 'a', 'b', seed=0)
    assert found.bound == 'about' and (found.num_misses_a, found.num_misses_b) == (1, 1)
    assert '1 study of a, 1 study of b' in console.sentence(found)


class TestWords:
  def test_a_set_that_cannot_decide_says_so(self, tmp_path):
    noisy(tmp_path, {'a': 100.0, 'b': 300.0}, workloads=('ogbg',))
    result = scored(tmp_path, ('ogbg',), statistics=True, num_resamples=20)
    text = 'Cannot decide with 5 studies on 1 workload, whatever the times: a verdict needs 6'
    assert any(text in line for line in outputs.footnotes(result))
    (found,) = result.statistics.verdicts
    assert not found.can_decide and text in console.sentence(found)

  @pytest.mark.parametrize(('workloads', 'studies'), [(1, 6), (2, 3), (3, 2), (4, 2), (6, 1)])
  def test_the_fewest_studies(self, workloads, studies):
    assert verdicts.least_studies(workloads) == studies

  def test_the_speedup_stands_beside_the_verdict(self, tmp_path):
    noisy(tmp_path, {'a': 100.0, 'b': 150.0, 'c': 900.0}, spread=0.0)
    result = scored(tmp_path, TWO, statistics=True, num_resamples=20)
    cells = [row['vs next'] for row in outputs.leaderboard_rows(result)]
    assert cells == ['better (1.50)', 'better (≥4.00)', '']

  def test_a_verdict_against_the_ranking_says_why(self, tmp_path):
    """The median study of `steady` is slower; its mean is faster, as `wild` misses at times."""
    wild, steady = [100.0] * 4 + [None] * 3, [104.0] * 7
    write_studies(
      tmp_path, {'wild': dict.fromkeys(FOUR, wild), 'steady': dict.fromkeys(FOUR, steady)}
    )
    result = scored(tmp_path, statistics=True, num_resamples=20)
    (found,) = result.statistics.verdicts
    assert (found.a, found.verdict) == ('wild', 'worse')
    why = 'steady is better than wild, which stands above it. The verdict takes the mean'
    assert any(line.startswith(why) for line in outputs.footnotes(result))
    assert any(line.startswith(why) for line in console.comparison_lines(result, found))

  def test_a_verdict_with_the_ranking_says_nothing(self, tmp_path):
    noisy(tmp_path, {'a': 100.0, 'b': 150.0})
    result = scored(tmp_path, TWO, statistics=True, num_resamples=20)
    (found,) = result.statistics.verdicts
    assert found.verdict == 'better' and outputs.against_ranking(result, found) == ''

  def test_compare_names_trials_that_were_cut_short(self, tmp_path, capsys):
    """Regression: one of the two had stopped at step 30 of 600, which nobody said."""
    for name, sec in (('whole', 100.0), ('short', None)):
      rows = miss('quick_vision')[:2] if sec is None else hit_at('quick_vision', sec)
      reason = 'step_limit' if sec is None else 'targets_reached'
      record = {'status': 'finished', 'stop_reason': reason}
      write_trial(tmp_path, name, 'quick_vision', rows, record=record)
    command = ['compare', 'whole', 'short', str(tmp_path), '--suite', 'quick']
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert 'whole is at least 4.00 times as fast' in shown and 'One study says nothing' in shown
    assert 'trial_1 at step 50 of 240 (step_limit); it counts as a miss.' in shown
    assert main([*command, '--json']) == 0
    assert len(json.loads(capsys.readouterr().out)['cut_short']) == 1


class TestPlan:
  def plan(self, capsys, monkeypatch, *flags):
    monkeypatch.setattr(request, '_missing', lambda framework: ['everything'])
    command = ['plan', '--from_budget', '--suite', 'algoperf_a100', '--frameworks', 'jax', *flags]
    assert main(command) == 0
    return capsys.readouterr().out

  def test_a_race_that_cannot_decide_says_so_beforehand(self, capsys, monkeypatch):
    flags = ('--workloads', 'wmt', '--submissions', 'nadamw,momentum')
    said = 'Cannot decide with 3 studies on 1 workload'
    assert said in self.plan(capsys, monkeypatch, *flags)
    assert json.loads(self.plan(capsys, monkeypatch, *flags, '--json'))['cannot_decide']

  @pytest.mark.parametrize(
    'flags',
    [
      ('--workloads', 'wmt,ogbg', '--submissions', 'nadamw,momentum'),
      ('--workloads', 'wmt', '--submissions', 'nadamw'),
    ],
  )
  def test_any_other_race_says_nothing(self, capsys, monkeypatch, flags):
    assert 'Cannot decide' not in self.plan(capsys, monkeypatch, *flags)


class TestSpeedup:
  def test_it_is_that_of_the_verdict(self, tmp_path):
    """Regression: one page had 1.22 and 1.46 for one pair."""
    noisy(tmp_path, {'baseline': 100.0, 'fast': 70.0, 'lost': 700.0}, spread=0.2)
    result = scored(tmp_path, TWO, statistics=True, num_resamples=200)
    pairs = {(one.a, one.b): one.speedup for one in result.statistics.verdicts}
    found = {one.submission: one for one in result.statistics.speedups}
    assert found['fast'].ratio == pytest.approx(pairs['fast', 'baseline'])
    assert found['lost'].ratio == pytest.approx(1 / pairs['baseline', 'lost'])
    assert found['fast'].low < found['fast'].ratio < found['fast'].high
    assert found['lost'].bound == 'at most'

  def test_workloads_that_are_missed_are_those_not_scored_on(self, tmp_path):
    """Regression: what was slower than the cut-off was scored on nowhere, and not missed."""
    write_times(
      tmp_path,
      {'baseline': {'ogbg': 10.0, 'wmt': 10.0}, 'slow': {'ogbg': 41.0, 'wmt': 39.0}},
      studies=2,
    )
    result = scored(tmp_path, TWO, statistics=True, num_resamples=20)
    (found,) = result.statistics.speedups
    assert (found.num_missed, found.num_missed_by_reference) == (1, 0)
    rows = {row['submission']: row['scored on'] for row in outputs.leaderboard_rows(result)}
    assert rows == {'baseline': '2 of 2', 'slow': '1 of 2'}


def test_pairing_by_seed_finds_what_unpaired_studies_hide(tmp_path):
  """Studies that share their noise differ by a constant factor, which pairs show."""
  rng = np.random.default_rng(5)
  for workload in FOUR:
    for study in range(1, 6):
      common = 100.0 * float(np.exp(0.4 * rng.standard_normal()))
      for name, factor in (('a', 1.0), ('b', 1.1)):
        for root, seed in (('paired', study), ('unpaired', study + 10 * (name == 'b'))):
          record = {'seeds': {'study': seed}, 'status': 'finished'}
          rows = hit_at(workload, common * factor)
          place = study if root == 'paired' or name == 'a' else study % 5 + 1
          write_trial(tmp_path / root, name, workload, rows, study=place, record=record)
  found = {}
  for root in ('paired', 'unpaired'):
    result = scored(tmp_path / root)
    found[root] = verdicts.one_pair(result, 'a', 'b', seed=0)
  assert found['paired'].paired and found['paired'].verdict == 'better'
  assert not found['unpaired'].paired and found['unpaired'].verdict == 'undecided'
  assert found['unpaired'].more_studies > 5
  assert found['paired'].speedup == pytest.approx(1.1)


def test_verdicts_turn_with_the_pair(tmp_path):
  result = scored(noisy(tmp_path, {'a': 100.0, 'b': 150.0}, spread=0.1), TWO)
  one = verdicts.one_pair(result, 'a', 'b', seed=0)
  other = verdicts.one_pair(result, 'b', 'a', seed=0)
  assert (one.verdict, other.verdict) == ('better', 'worse')
  assert one.speedup == pytest.approx(1 / other.speedup)


def test_a_tiny_but_certain_difference_is_undecided(tmp_path):
  noisy(tmp_path, {'a': 100.0, 'b': 101.0}, spread=1e-6)
  verdict = verdicts.one_pair(scored(tmp_path, TWO), 'a', 'b', seed=0)
  assert verdict.p < 0.05 and verdict.verdict == 'undecided' and verdict.more_studies is None


def test_misses_count_as_the_cut_off(tmp_path):
  for study in range(1, 6):
    for workload in FOUR:
      write_trial(tmp_path, 'a', workload, hit_at(workload, 10.0 + study), study=study)
      write_trial(tmp_path, 'b', workload, miss(workload), study=study)
  verdict = verdicts.one_pair(scored(tmp_path), 'a', 'b', seed=0)
  assert verdict.verdict == 'better' and 3 < verdict.speedup <= 4


def test_copies_of_one_algorithm_are_rarely_told_apart():
  """At most 5 % false verdicts, and a twin 15 % faster is found, with the noise of real runs."""
  noise = simulation.read_noise()
  rates = simulation.simulate(noise, num_workloads=4, num_studies=5, num_suites=1000)
  margin = 2 * np.sqrt(0.05 * 0.95 / 1000)
  assert rates.false_verdicts <= 0.05 + margin
  assert rates.found >= 0.8


def test_a_verdict_is_one_grammatical_sentence():
  verdict = verdicts.Verdict(
    a='a',
    b='b',
    verdict='undecided',
    speedup=2.0,
    bound='exact',
    min_effect=1.02,
    statistic=2.2,
    p=0.0625,
    adjusted_p=0.0625,
    paired=True,
    num_studies=5,
    num_workloads=2,
    num_misses_a=0,
    num_misses_b=0,
    can_decide=True,
    more_studies=1,
  )
  assert console.sentence(verdict) == (
    'Undecided between a and b: a is 2.00 times as fast in the geometric mean over 2 workloads '
    'with 5 studies paired by seed (p = 0.062). About 1 more study of each would decide it.'
  )
