"""Sets of results that are stored as data: written from a race, and joined to other runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_scoring_costs import measured, run, times

import scoring
from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.results import race_files
from algorithmic_efficiency.results.race_files import Selection
from scoring import published
from scoring.published import __main__ as command

NAME = 'quick_board'


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  """The folder of sets, with one of two submissions, of which one has dear steps."""
  folder, runs = tmp_path / 'sets', tmp_path / 'raced'
  folder.mkdir()
  monkeypatch.setattr(published, '_FOLDER', folder)
  write_runs(runs)
  assert command.main([str(runs), NAME, 'self', 'quick']) == 0
  return folder


def hashes() -> dict[str, str]:
  suite = registry.suite('quick')
  return {
    'definition_hash': registry.workload('quick_vision', 'quick').content_hash(),
    'suite_hash': suite.rules_hash('self'),
    'submission_hash': '0123456789012345',  # digits alone are no number
  }


def write_runs(folder: Path) -> None:
  run(folder, {'nadamw': 100, 'dear': 80}, studies=3, host='there', **hashes())
  measured(folder, {'dear': [2.0, 2.1, 2.2]}, studies=3, host='there', floors=1.01)


def own(folder: Path, *, is_timed: bool = True) -> Path:
  run(folder, {'nadamw': 110, 'mine': 50}, studies=3, host='here', **hashes())
  if is_timed:
    measured(folder, {'mine': 1.5}, studies=3, host='here')
  return folder


def joined(runs: Path, **options):
  options = {'workloads': ('quick_vision',), 'statistics': False, **options}
  return scoring.score(scoring.load(runs), 'quick', ruleset='self', against=NAME, **options)


def test_a_set_has_the_outcomes_of_its_runs(board, tmp_path):
  table = published.read(NAME, 'self')
  assert published.suite_of(NAME) == 'quick'
  assert set(table.submission) == {'nadamw', 'dear'} and len(table) == 6
  assert set(table.host) == {'there of quick_board'}
  assert set(table.submission_hash) == {'0123456789012345'}
  assert table.seed.tolist() == [1, 2, 3, 1, 2, 3]
  assert set(table.status) == {'reached'} and set(table.suite) == {'quick'}


def test_steps_of_a_set_cost_what_they_cost_in_its_own_race(board, tmp_path):
  result = joined(own(tmp_path / 'own'))
  assert result.published == ('dear', 'nadamw (published)')
  assert times(result, 'dear') == pytest.approx([160.0, 168.0, 176.0])
  assert times(result, 'nadamw (published)') == [100.0] * 3
  assert times(result, 'mine') == pytest.approx([75.0] * 3)
  assert times(result, 'nadamw') == [110.0] * 3


def test_runs_of_the_host_of_a_set_keep_their_own_costs(board, tmp_path):
  run(tmp_path / 'own', {'nadamw': 110, 'dear': 50}, studies=3, host='there', **hashes())
  measured(tmp_path / 'own', {'dear': 4.0}, studies=3, host='there')
  result = joined(tmp_path / 'own')
  assert times(result, 'dear') == pytest.approx([200.0] * 3)
  assert times(result, 'dear (published)') == pytest.approx([160.0, 168.0, 176.0])


def test_plain_steps_are_compared_without_any_cost(board, tmp_path):
  result = joined(own(tmp_path / 'own', is_timed=False), axis='plain_steps')
  assert times(result, 'dear') == [80.0] * 3 and times(result, 'mine') == [50.0] * 3
  assert np.isnan(result.outcomes.cost).all()


def test_runs_of_a_race_in_plain_steps_are_scored_in_them(tmp_path):
  """Regression: they were scored on the axis of the suite, unless a flag said otherwise."""
  folder = own(tmp_path, is_timed=False)

  def rules_of(**options):
    options = {'workloads': ('quick_vision',), 'statistics': False, **options}
    return scoring.score(scoring.load(folder), 'quick', ruleset='self', **options).rules

  rules = rules_of()
  assert rules.axis == 'cost_adjusted_steps' and not any('axis' in text for text in rules.changes)
  race_files.write_selection(folder, Selection(suite='quick', workloads=None, plain_steps=True))
  rules = rules_of()
  assert rules.axis == 'plain_steps'
  assert any('a step counts as one' in text for text in rules.changes)
  assert rules_of(axis='cost_adjusted_steps').axis == 'cost_adjusted_steps'


def test_costs_in_no_common_unit_are_refused(board, tmp_path):
  run(tmp_path / 'own', {'mine': 50}, studies=3, host='here', **hashes())
  with pytest.raises(
    errors.UserError, match=r'not timed beside yours on quick_vision.*plain_steps'
  ):
    joined(tmp_path / 'own')


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('definition_hash', 'raced on other definitions of quick_vision than those of today'),
    ('suite_hash', 'raced by other rules of the suite quick than those of today'),
  ],
)
def test_a_set_of_other_definitions_or_rules_is_refused(name, message, board, tmp_path):
  file = published.file_of(NAME, 'self')
  file.write_text(file.read_text().replace(hashes()[name], '0' * 16))
  with pytest.raises(errors.UserError, match=message):
    joined(own(tmp_path / 'own'))


def test_a_set_is_made_of_runs_by_the_rules_of_today(board, tmp_path, capsys):
  run(tmp_path / 'old', {'a': 50}, **{**hashes(), 'definition_hash': 'f' * 16})
  assert command.main([str(tmp_path / 'old'), 'old', 'self', 'quick']) == 2
  assert 'is altered workload' in capsys.readouterr().err
  assert published.sets() == [NAME]


def test_the_suite_of_a_set_is_taken_where_none_is_given(board, tmp_path, capsys):
  from algorithmic_efficiency.cli import main

  runs = own(tmp_path / 'own')
  given = ['--ruleset', 'self', '--workloads', 'quick_vision', '--against', NAME]
  words = ['score', str(runs), *given, '--no_report', '--output_dir', str(tmp_path / 'out')]
  assert main([*words, '--resamples', '10']) == 0
  assert 'nadamw (published)' in capsys.readouterr().out


def test_a_set_is_told_from_one_whose_name_begins_alike(board):
  """Regression: `quick_board` had the suite of `quick_board_a`."""
  for file in [*board.iterdir()]:
    other = file.with_name(file.name.replace(NAME, f'{NAME}_a'))
    other.write_text(file.read_text().replace('"suite": "quick"', '"suite": "lite"'))
  assert (published.suite_of(NAME), published.suite_of(f'{NAME}_a')) == ('quick', 'lite')


@pytest.mark.parametrize('name', ['../evil', 'a/b', 'm*', '', 'A b'])
def test_a_set_has_a_plain_name(name, board, tmp_path, capsys):
  before = sorted(tmp_path.rglob('*'))
  assert command.main([str(tmp_path / 'raced'), name, 'self', 'quick']) == 2
  assert 'small letters, digits and _; it is' in capsys.readouterr().err
  assert sorted(tmp_path.rglob('*')) == before


def test_a_ruleset_that_a_set_lacks_is_named_with_those_it_has(board):
  with pytest.raises(errors.UserError, match=r'the ruleset self, and none of external\. Run with'):
    published.read(NAME, 'external')
