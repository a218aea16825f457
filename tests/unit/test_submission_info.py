"""What a board says of who made a submission, from `submission_info.yml` to `leaderboard.json`."""

from __future__ import annotations

from pathlib import Path

import pytest
from scoring_runs import hit_at, write_recorded_trial, write_times

import scoring
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.results import submission_info
from scoring import about, outputs
from scoring.report import payload

WORKLOAD = 'ogbg'
INFO = {'authors': 'A. Author', 'paper': 'https://example.org/paper', 'date': '2026-01-31'}


def write(folder: Path, text: str) -> Path:
  (folder / submission_info.FILE).write_text(text)
  return folder


def test_facts_are_lines_of_text(tmp_path):
  text = (
    'authors: [A, B]\nversion: 1.0\ndate: 2026-01-31\ndescription: "two\\n lines"\nruleset: x\n'
  )
  assert submission_info.facts(write(tmp_path, text)) == {
    'authors': 'A, B',
    'version': '1.0',
    'date': '2026-01-31',
    'description': 'two lines',
  }


@pytest.mark.parametrize('text', ['[', '- a\n', 'authors: {a: b}\n', 'authors:\n', '\x00'])
def test_a_file_that_says_nothing_is_no_error(tmp_path, text):
  assert submission_info.facts(write(tmp_path, text)) == {}


def test_a_folder_without_the_file_says_nothing(tmp_path):
  assert submission_info.facts(tmp_path) == {}


def test_every_submission_of_ours_names_authors_and_a_paper():
  for entry in registry.submissions().values():
    facts = submission_info.facts(entry.folder)
    assert facts['authors'] and facts['paper'].startswith('https://'), entry.folder


def scored(root: Path) -> tuple:
  frame = scoring.load(root)
  return frame, scoring.score(frame, 'algoperf_v06', workloads=[WORKLOAD], num_resamples=10)


def test_the_board_says_what_the_trials_recorded(tmp_path):
  facts = {'submission_info': INFO, 'submission_hash': 'abc'}
  write_recorded_trial(tmp_path, 'mine', WORKLOAD, hit_at(WORKLOAD, 10.0), **facts)
  frame, result = scored(tmp_path)
  known = about.About(framework='jax', source_hash='abc', **INFO)
  assert about.of(result) == {'mine': known}
  (row,) = outputs.as_json(result)['leaderboard']
  assert (row['authors'], row['paper'], row['source_hash']) == ('A. Author', INFO['paper'], 'abc')
  assert row['version'] is None
  page = payload.build(frame, result)
  assert page['about_names'] == ['Authors', 'Framework', 'Date', 'Paper', 'Source hash']


def test_a_field_that_says_none_says_nothing(tmp_path):
  facts = {'submission_info': INFO | {'affiliations': 'none'}}
  write_recorded_trial(tmp_path, 'mine', WORKLOAD, hit_at(WORKLOAD, 10.0), **facts)
  frame, result = scored(tmp_path)
  assert about.of(result)['mine'].affiliations == ''
  assert 'Affiliations' not in payload.build(frame, result)['about_names']


def test_the_page_shows_no_folder_of_the_machine(tmp_path):
  """Regression: the environment named the folder of the compilation cache, home and all."""
  for study, folder in ((1, 'one/.cache'), (2, 'other/.cache')):
    devices = {'platform': 'cpu', 'compilation_cache': folder}
    rows, facts = hit_at(WORKLOAD, 10.0), {'environment': {'devices': devices}}
    write_recorded_trial(tmp_path, 'mine', WORKLOAD, rows, study=study, **facts)
  shown = payload.build(*scored(tmp_path))['environment']
  assert shown['counts'] == [2]
  assert [row['name'] for row in shown['rows']] == ['devices: platform']


def test_sources_that_changed_between_trials_are_all_named(tmp_path):
  for study, source in ((1, 'old'), (2, 'new')):
    rows = hit_at(WORKLOAD, 10.0)
    write_recorded_trial(tmp_path, 'mine', WORKLOAD, rows, study=study, submission_hash=source)
  assert about.of(scored(tmp_path)[1])['mine'].source_hash == 'new, old'


def test_logs_of_others_say_the_framework_alone(tmp_path):
  write_times(tmp_path, {'a': {WORKLOAD: 10.0}})
  frame, result = scored(tmp_path)
  assert about.of(result)['a'] == about.About(framework='jax')
  assert payload.build(frame, result)['about_names'] == []
