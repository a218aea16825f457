"""The charts of the report: what they say, and that their colors can be told apart and read."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from scoring_runs import hit_at, miss, write_trial

import scoring
from algorithmic_efficiency.errors import UserError
from scoring.report import cell_charts, colors, figures, line_charts, payload, plots
from scoring.report.chart_parts import Frame, short_number
from scoring.report.colors import HEAT_LIMITS

WORKLOADS = ('ogbg', 'wmt')


class TestColors:
  @pytest.mark.parametrize('scheme', [colors.light, colors.dark])
  def test_lines_are_all_different_and_stand_out(self, scheme):
    found = scheme(30)
    lines = colors.series(found)
    assert len(set(lines)) == 30
    assert min(colors.contrast(line, found['back']) for line in lines) >= 3

  @pytest.mark.parametrize('scheme', [colors.light, colors.dark])
  def test_texts_can_be_read(self, scheme):
    found = scheme(1)
    pairs = [(f'ink{shade}', f'heat{shade}') for shade in range(len(HEAT_LIMITS) + 1)]
    pairs += [(ink, 'back') for ink in ('text', 'quiet', 'link', 'better', 'worse')]
    pairs += [('text', 'better-back'), ('text', 'worse-back'), ('text', 'line')]
    pairs += [('quiet', 'panel'), ('text', 'panel')]
    for ink, back in pairs:
      assert colors.contrast(found[ink], found[back]) >= 4.5, (ink, back)

  def test_black_on_white_has_the_largest_contrast(self):
    assert colors.contrast('#000000', '#ffffff') == pytest.approx(21)

  def test_both_schemes_have_the_same_roles(self):
    assert list(colors.light(3)) == list(colors.dark(3))


@pytest.fixture(scope='module')
def board(tmp_path_factory) -> dict[str, Any]:
  return payload.build(*scored(write(tmp_path_factory.mktemp('charts'))))['charts']


def write(root: Path) -> Path:
  """Three submissions of three studies and two trials; the last one misses a workload."""
  for name, seconds in (('first', 100.0), ('second', 130.0), ('third', 250.0)):
    for workload in WORKLOADS:
      for study in (1, 2, 3):
        for trial in (1, 2):
          lost = name == 'third' and workload == 'wmt'
          rows = miss(workload) if lost else hit_at(workload, seconds + 10 * study + trial)
          point = {'lr': 0.1 * trial}
          write_trial(root, name, workload, rows, study=study, trial=trial, hyperparameters=point)
  return root


def scored(root: Path, **options: Any) -> tuple:
  frame = scoring.load(root)
  options = {'workloads': WORKLOADS, 'num_resamples': 10, **options}
  return frame, scoring.score(frame, 'algoperf_v06', **options)


@pytest.fixture
def frame(board) -> Frame:
  return figures.file_frame(board)


def narrow(board: dict[str, Any]) -> Frame:
  return Frame(colors=colors.light(len(board['submissions'])), width=390, alone=False)


def test_the_area_under_a_profile_is_the_score(board):
  for place, (score, _, _) in enumerate(board['scores']):
    steps = [(ratio, share) for s, ratio, share in board['profile'] if s == place]
    pairs = itertools.pairwise(steps)
    area = sum(share * (after - ratio) for (ratio, share), (after, _) in pairs)
    assert area / (board['max_ratio'] - 1) == pytest.approx(
      score, abs=0.02
    )  # the score sums a grid


def test_profiles_that_coincide_are_drawn_side_by_side(board, frame):
  twins = {**board, 'profile': [[s, ratio, 0.5] for s in range(3) for ratio in (1.0, 4.0)]}
  rows = line_charts.profile(twins, frame)['data']['values']
  at_one = [row for row in rows if row['ratio'] == 1.0]
  assert {row['share'] for row in at_one} == {0.5}
  drawn = [row['drawn'] for row in at_one]
  assert len(set(drawn)) == 3 and sum(drawn) / 3 == pytest.approx(0.5)


def test_cells_say_time_ratio_and_why_they_miss(board, frame):
  rows = cell_charts.times(board, frame)['data']['values']
  cells = {(row['submission'], row['workload']): row for row in rows}
  assert cells['first', 'ogbg']['shade'] == 0 and cells['first', 'ogbg']['below'] == '\u00d71.00'
  assert cells['second', 'ogbg']['shade'] == 1
  missed = cells['third', 'wmt']
  assert (missed['shade'], missed['time'], missed['below']) == ('miss', 'miss', 'budget')
  assert 'in their budget' in missed['outcome']


def test_a_phone_gets_a_table_for_each_workload(board):
  spec = cell_charts.times(board, narrow(board))
  assert spec['facet']['sort'] == list(WORKLOADS) and spec['columns'] == 1


def test_the_matrix_has_each_pair_from_both_sides(board, frame):
  cells = cell_charts.verdicts(board, frame)['data']['values']
  found = {(cell['submission'], cell['other']): cell for cell in cells}
  assert len(found) == 6
  forth, back = found['first', 'third'], found['third', 'first']
  assert (forth['verdict'], back['verdict']) == ('better', 'worse')
  assert forth['speedup'][0] == '≥' and back['speedup'][0] == '≤'
  assert float(forth['speedup'][1:]) * float(back['speedup'][1:]) == pytest.approx(1, abs=0.02)


def test_curves_beyond_their_range_are_named(board, frame):
  view = {**board['curves'][0], 'outside': [2]}
  text = json.dumps(line_charts.curves(board, view, frame))
  assert 'Beyond this range: third' in text
  falls = {**board, 'workloads': [{**one, 'max': False} for one in board['workloads']]}
  places = [
    layer['encoding']['y']['value']
    for shown in (board, falls)
    for layer in line_charts.curves(shown, view, frame)['layer']
    if 'Beyond' in str(layer)
  ]
  assert places == ['height', 0]  # ogbg rises to its target
  assert 'Beyond' not in json.dumps(line_charts.curves(board, view | {'outside': []}, frame))


def test_what_says_nothing_is_not_drawn(tmp_path, board):
  assert figures.empty(board) == set()
  write_trial(tmp_path, 'alone', 'ogbg', hit_at('ogbg', 10.0))
  alone = payload.build(*scored(tmp_path, workloads=['ogbg']))
  assert figures.empty(alone['charts']) == {'performance_profile', 'verdicts', 'tuning_budget'}
  assert alone['tried'] is None and alone['misses'] == [] and alone['speedups'] == []


@pytest.mark.parametrize(
  ('value', 'text'),
  [
    (None, 'miss'),
    (0.01234, '0.0123'),
    (999.6, '1000'),
    (4321.0, '4321'),
    (33_100.0, '33.1k'),
    (44_000.0, '44.0k'),
    (100_000.0, '100k'),
    (2_500_000.0, '2.50M'),
  ],
)
def test_numbers_are_short(value, text):
  assert short_number(value) == text


class TestFiles:
  @pytest.fixture(autouse=True)
  def _converter(self):
    pytest.importorskip('vl_convert')

  def test_every_chart_is_a_file_of_every_format(self, board, tmp_path):
    stale = tmp_path / 'tuning_budget.svg'
    stale.write_text('of an earlier score')
    few = {**board, 'tuning': {'k': [1], 'score': [[1.0]] * 3}}
    files = figures.write({'charts': few}, tmp_path)
    starts = {'.svg': b'<svg', '.png': b'\x89PNG', '.pdf': b'%PDF'}
    assert all(path.read_bytes().startswith(starts[path.suffix]) for path in files)
    assert {path.stem for path in files} == {
      *('performance_profile', 'scores', 'time_to_target', 'verdicts'),
    }
    assert not stale.exists()

  def test_a_picture_has_title_legend_and_every_line(self, board, frame):
    text = figures.Chart(line_charts.profile(board, frame)).to_bytes('svg').decode()
    for word in ('Performance profile', board['title'], 'first', 'second', 'third'):
      assert f'>{word}<' in text
    for ink in colors.series(frame.colors):
      assert ink in text

  def test_the_training_curves_are_drawn(self, board, frame):
    view = next(one for one in board['curves'] if one['split'] == 'validation')
    text = figures.Chart(line_charts.curves(board, view, frame)).to_bytes('svg').decode()
    assert 'target 0.28098' in text and 'NaN' not in text

  def test_a_notebook_shows_the_chart(self, board, frame):
    shown = figures.Chart(cell_charts.scores(board, frame))._repr_mimebundle_()
    assert shown['image/svg+xml'].startswith('<svg')
    assert shown['application/vnd.vegalite.v6+json']['$schema'].endswith('v6.json')

  @pytest.mark.parametrize('name', ['chart', 'chart.gif'])
  def test_another_format_is_refused(self, name, tmp_path):
    with pytest.raises(UserError, match=r'must end with .svg, .png, .pdf, .json; it is chart'):
      figures.Chart({}).save(tmp_path / name)


@pytest.fixture(scope='module')
def runs(tmp_path_factory) -> Path:
  return write(tmp_path_factory.mktemp('plots'))


class TestPlots:
  @pytest.mark.parametrize('kind', ['profile', 'times'])
  def test_a_chart_needs_no_statistics(self, runs, kind):
    chart = plots.draw(kind, *scored(runs, statistics=False))
    assert chart.spec['data']['values']

  def test_curves_are_of_one_workload(self, runs):
    with pytest.raises(UserError, match=r'these runs have 2. Choose one with --workloads: ogbg'):
      plots.draw('curves', *scored(runs, statistics=False))
    found = scored(runs, statistics=False, workloads=['ogbg'])
    assert plots.draw('curves', *found, x='steps').spec['usermeta']['whole'][0] == [0.0, 100.0]

  def test_the_only_workload_of_runs_needs_no_name(self, tmp_path):
    """Regression: the others of the suite counted as workloads of the runs."""
    write_trial(tmp_path, 'a', 'ogbg', [(10, 1.0, 0.2), (20, 2.0, 0.3)])
    chart = plots.draw('curves', *scored(tmp_path, statistics=False))
    assert 'of ogbg on validation' in chart.spec['description']

  def test_examples_need_a_batch_size(self, runs):
    found = scored(runs, statistics=False, workloads=['ogbg'])
    with pytest.raises(UserError, match=r"against seconds, steps; x is 'examples'. The runs do"):
      plots.draw('curves', *found, x='examples')

  def test_a_plot_of_nothing_is_refused(self, tmp_path):
    write_trial(tmp_path, 'a', 'ogbg', [(10, 1.0, float('nan'))])
    found = scored(tmp_path, statistics=False, workloads=['ogbg'])
    with pytest.raises(UserError, match='nothing to draw: no evaluation of ogbg has a value on'):
      plots.draw('curves', *found)

  @pytest.mark.parametrize(
    ('kind', 'options', 'message'),
    [('curve', {}, "Did you mean 'curves'"), ('curves', {'split': 'tests'}, "mean 'test'")],
  )
  def test_a_misspelt_word_gets_the_nearest(self, runs, kind, options, message):
    found = scored(runs, statistics=False, workloads=['ogbg'])
    with pytest.raises(UserError, match=message):
      plots.draw(kind, *found, **options)
