"""The files of one trial held together: what is read, what is said, and what is not scored."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from scoring_runs import hit_at, miss, write_recorded_trial, write_trial

import scoring
from algorithmic_efficiency.results.measurements import EVAL_FILE, LOG_FILE
from scoring.notes import Note

WORKLOAD = 'ogbg'
GOOD = hit_at(WORKLOAD, 10.0)


def score(root: Path) -> tuple[list[float], dict[str, Note]]:
  """Times to target by name of the submission, and the notes by their kind."""
  result = scoring.score(scoring.load(root), 'algoperf_v06', workloads=[WORKLOAD], statistics=False)
  notes = {note.kind: note for note in result.notes}
  return result.times[:, 0].tolist(), notes


def statuses(root: Path) -> list[str]:
  result = scoring.score(scoring.load(root), 'algoperf_v06', workloads=[WORKLOAD], statistics=False)
  return result.outcomes.status.tolist()


def rewrite(path: Path, old: str, new: str) -> None:
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new))


RESAVED = {
  'an empty line at the end': lambda text: text + '\n',
  'a byte order mark': lambda text: '\ufeff' + text,
  'no newline after the last row': lambda text: text[:-1],
  'semicolons and decimal commas': lambda text: text.replace(',', ';').replace('.', ','),
  'other line ends': lambda text: text.replace('\n', '\r\n'),
}


@pytest.mark.parametrize('name', RESAVED)
def test_a_table_that_was_saved_again_still_wins_by_its_log(tmp_path, name):
  """Regression: such a file made a loser of a winner."""
  folder = write_recorded_trial(tmp_path, 'a', WORKLOAD, GOOD)
  write_recorded_trial(tmp_path, 'b', WORKLOAD, hit_at(WORKLOAD, 20.0))
  path = folder / EVAL_FILE
  path.write_bytes(RESAVED[name](path.read_text()).encode())
  assert score(tmp_path)[0] == [10.0, 20.0]


@pytest.mark.parametrize('name', [name for name in RESAVED if 'newline' not in name])
def test_it_is_read_without_a_log_too(tmp_path, name):
  folder = write_trial(tmp_path, 'a', WORKLOAD, GOOD)
  path = folder / EVAL_FILE
  path.write_bytes(RESAVED[name](path.read_text()).encode())
  assert score(tmp_path)[0] == [10.0]


def test_a_last_line_without_its_end_may_be_cut_in_a_number_and_is_not_believed(tmp_path):
  folder = write_trial(tmp_path, 'a', WORKLOAD, [*GOOD, (200, 20.0, GOOD[-1][2])])
  path = folder / EVAL_FILE
  path.write_text(path.read_text()[:-1])
  times, notes = score(tmp_path)
  assert times == [10.0]  # by the lines before it
  assert 'the last of 4 rows has no end' in notes['truncated'].detail
  path.write_text('\n'.join(path.read_text().split('\n')[:-1])[:-1])
  assert score(tmp_path)[0] == [np.inf]


def test_what_could_not_be_read_is_told_apart_from_what_did_not_reach(tmp_path):
  write_trial(tmp_path, 'a', WORKLOAD, miss(WORKLOAD))
  path = write_trial(tmp_path, 'b', WORKLOAD, GOOD) / EVAL_FILE
  path.write_text(path.read_text()[:-1])
  (write_trial(tmp_path, 'c', WORKLOAD, GOOD) / EVAL_FILE).write_bytes(b'\xff')
  assert statuses(tmp_path) == ['not_reached', 'truncated', 'damaged']


DAMAGES = {
  'no table': lambda path: path.unlink(),
  'a pipe for a table': lambda path: (path.unlink(), os.mkfifo(path)),
  'a table that is no text': lambda path: path.write_bytes(b'\xff\x00'),
  'a table that is cut in a row': lambda path: path.write_text(path.read_text()[:-9]),
  'a table that lacks rows': lambda path: path.write_text(
    ''.join(path.read_text().splitlines(keepends=True)[:2])
  ),
  'a table with a row more': lambda path: path.write_text(
    path.read_text() + path.read_text().splitlines()[-1].replace('100', '101') + '\n'
  ),
}


@pytest.mark.parametrize('name', DAMAGES)
def test_the_log_is_read_where_the_table_is_damaged_and_the_file_is_named(tmp_path, name):
  folder = write_recorded_trial(tmp_path, 'a', WORKLOAD, GOOD)
  DAMAGES[name](folder / EVAL_FILE)
  times, notes = score(tmp_path)
  assert times == [10.0]
  assert notes['altered_table'].where == str(folder)


def test_a_row_that_only_the_table_has_wins_nothing(tmp_path):
  folder = write_recorded_trial(tmp_path, 'a', WORKLOAD, miss(WORKLOAD))
  other = write_recorded_trial(tmp_path, 'b', WORKLOAD, [*miss(WORKLOAD), (200, 60.0, 0.9)])
  shutil.copy(other / EVAL_FILE, folder / EVAL_FILE)
  times, notes = score(tmp_path)
  assert times == [np.inf, 60.0]
  assert '4 of 3 rows' in notes['altered_table'].detail


def test_the_table_is_read_where_the_log_is_damaged(tmp_path):
  folder = write_recorded_trial(tmp_path, 'a', WORKLOAD, GOOD)
  lines = (folder / LOG_FILE).read_text().splitlines(keepends=True)
  (folder / LOG_FILE).write_text(''.join([*lines[:2], 'x\n', *lines[3:]]))
  times, notes = score(tmp_path)
  assert times == [10.0] and ':3: the line is damaged' in notes['damaged_log'].detail
  (folder / LOG_FILE).write_text(''.join(lines[:3]))  # cut behind a line: damaged all the same
  times, notes = score(tmp_path)
  assert times == [10.0] and 'the final row is missing' in notes['damaged_log'].detail


def test_a_log_that_is_gone_is_said(tmp_path):
  """Regression: a table without its log, which nothing confirms, was taken without a word."""
  folder = write_recorded_trial(tmp_path, 'a', WORKLOAD, GOOD)
  assert 'lost_log' not in score(tmp_path)[1]
  (folder / LOG_FILE).unlink()
  times, notes = score(tmp_path)
  assert times == [10.0] and notes['lost_log'] == Note('lost_log', str(folder), LOG_FILE)


def test_where_both_are_damaged_what_is_left_counts(tmp_path):
  folder = write_recorded_trial(tmp_path, 'a', WORKLOAD, GOOD)
  (folder / EVAL_FILE).unlink()
  lines = (folder / LOG_FILE).read_text().splitlines(keepends=True)
  (folder / LOG_FILE).write_text(''.join(lines[:4]))
  assert score(tmp_path)[0] == [10.0]
  (folder / LOG_FILE).write_text(''.join(lines[:3]))
  assert statuses(tmp_path) == ['damaged_log']


def _swap(folders: list[Path], names: tuple[str, ...]) -> None:
  for name in names:
    one, other = (folder / name for folder in folders)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


@pytest.mark.parametrize(
  ('names', 'said'),
  [
    ((EVAL_FILE,), 'submission_time_sec of step 1 is'),
    ((LOG_FILE,), 'submission_time_sec is 10 in the record and 20 at the end of the log'),
    ((EVAL_FILE, LOG_FILE), 'submission_time_sec is 10 in the record'),
    (('trial.json',), 'submission_time_sec is 20 in the record'),
  ],
)
def test_files_that_were_swapped_between_submissions_score_nothing(tmp_path, names, said):
  folders = [
    write_recorded_trial(tmp_path, name, WORKLOAD, hit_at(WORKLOAD, sec))
    for name, sec in (('a', 10.0), ('b', 20.0))
  ]
  _swap(folders, names)
  times, _ = score(tmp_path)
  assert times == [np.inf, np.inf]
  notes = scoring.load(tmp_path).attrs['runs'].notes
  assert any(said in note.detail for note in notes if note.kind == 'contradiction')


def test_a_folder_of_another_workload_or_seed_scores_nothing(tmp_path):
  folder = write_recorded_trial(tmp_path, 'a', 'wmt', hit_at('wmt', 10.0))
  folder.parent.rename(folder.parent.parent / f'{WORKLOAD}_jax')
  write_recorded_trial(tmp_path, 'b', WORKLOAD, GOOD, seeds={'trial': 7})
  times, _ = score(tmp_path)
  assert times == [np.inf, np.inf]


def test_trials_of_another_submission_and_copies_are_said(tmp_path):
  write_recorded_trial(tmp_path, 'a', WORKLOAD, GOOD)
  write_recorded_trial(tmp_path, 'a', WORKLOAD, GOOD, study=2, entry='b')
  shutil.copytree(tmp_path / 'a' / 'study_1', tmp_path / 'a' / 'study_3')
  _, notes = score(tmp_path)
  assert notes['mixed_submissions'].detail == 'a, b'
  assert 'study_3' in notes['duplicate'].where and 'study_1' in notes['duplicate'].detail


@pytest.mark.parametrize('value', ['9.99', '1e300', '1_0', '-1.5', 'inf'])
def test_a_value_that_the_metric_cannot_have_reaches_nothing(tmp_path, value):
  path = write_trial(tmp_path, 'a', WORKLOAD, GOOD) / EVAL_FILE
  lines = path.read_text().splitlines()
  lines[-1] = f'{lines[-1].rpartition(",")[0]},{value}'
  path.write_text('\n'.join(lines) + '\n')
  times, notes = score(tmp_path)
  assert times == [np.inf]
  assert {'damaged', 'impossible_metric', 'nan_metric'} & set(notes)


@pytest.mark.parametrize('value', ['-0.1', '-1e300', '0.0'])
def test_so_it_is_for_a_metric_that_is_to_be_small(tmp_path, value):
  path = write_trial(tmp_path, 'a', 'librispeech_conformer', miss('librispeech_conformer'))
  path /= EVAL_FILE
  lines = path.read_text().splitlines()
  lines[-1] = f'{lines[-1].rpartition(",")[0]},{value}'
  path.write_text('\n'.join(lines) + '\n')
  result = scoring.score(
    scoring.load(tmp_path), 'algoperf_v06', workloads=['librispeech_conformer'], statistics=False
  )
  assert np.isfinite(result.times[0, 0]) == (value == '0.0')


@pytest.mark.parametrize('charged', [(1, 50, 49), (1, 50, 99), (1, '', 100), (1, 50.5, 100)])
def test_charged_steps_that_fall_or_are_fewer_than_steps_score_nothing(tmp_path, charged):
  path = write_trial(tmp_path, 'a', WORKLOAD, GOOD) / EVAL_FILE
  lines = path.read_text().splitlines()
  rows = [f'{line},{count}' for line, count in zip(lines[1:], charged, strict=True)]
  path.write_text('\n'.join([lines[0] + ',charged_steps', *rows]) + '\n')
  times, notes = score(tmp_path)
  assert times == [np.inf] and 'charged_steps' in notes['bad_steps'].detail


def test_deleting_the_record_of_an_invalid_trial_does_not_make_it_valid(tmp_path):
  folder = write_recorded_trial(tmp_path, 'a', WORKLOAD, GOOD, status='invalid')
  write_recorded_trial(tmp_path, 'b', WORKLOAD, GOOD)
  (folder / 'trial.json').unlink()
  times, notes = score(tmp_path)
  assert times == [np.inf, 10.0] and notes['lost_record'].where == str(folder)
  (folder / LOG_FILE).unlink()
  assert 'no_record' in score(tmp_path)[1]  # it may be a log of AlgoPerf's
  write_recorded_trial(tmp_path, 'a', WORKLOAD, GOOD, study=2)
  assert score(tmp_path)[1]['lost_record'].where == str(folder)


@pytest.mark.parametrize(
  'content',
  [
    '{"status": ["invalid"]}',
    '[' * 100_000,
    '{"a": ' * 100_000,
    json.dumps({'charged_steps': 10**400}),
    json.dumps({'buckets': {'update': 'long'}}),
    json.dumps({'options': {'splits': 5}}),
    json.dumps({'options': {'splits': [[1]]}}),
    json.dumps({'batch_size': 10**30}),
    json.dumps({'seeds': None}),
    json.dumps({'environment': [1]}),
    json.dumps({'environment': {'devices': [1]}}),
  ],
)
def test_a_damaged_record_keeps_its_own_trial_from_the_score_and_is_named(tmp_path, content):
  folder = write_recorded_trial(tmp_path, 'a', WORKLOAD, GOOD)
  write_recorded_trial(tmp_path, 'b', WORKLOAD, GOOD)
  record = json.loads((folder / 'trial.json').read_text())
  with contextlib.suppress(RecursionError, ValueError):
    content = json.dumps(record | json.loads(content))
  (folder / 'trial.json').write_text(content)
  times, notes = score(tmp_path)
  assert times == [np.inf, 10.0]
  assert str(folder / 'trial.json') in notes['damaged'].detail


@pytest.mark.parametrize('content', ['[' * 100_000, f'{{"lr": {"1" * 400}}}', '[1]', '\xff'])
def test_damaged_hyperparameters_are_named_and_the_trial_counts(tmp_path, content):
  folder = write_trial(tmp_path, 'a', WORKLOAD, GOOD)
  (folder / 'hparams.json').write_bytes(content.encode('latin-1'))
  times, notes = score(tmp_path)
  assert times == [10.0] and 'hparams.json is damaged' in notes['no_hparams'].detail


def test_runs_whose_workload_folders_lie_below_the_root_have_a_race_folder(tmp_path):
  """Regression: the folder of their race was looked for above the root of the file system."""
  folder = write_trial(tmp_path, 'a', WORKLOAD, GOOD)
  race_of = importlib.import_module('scoring.load').race_of
  assert race_of('/a/ogbg_jax/trial_1') == Path('/')
  assert race_of(str(folder)) == tmp_path


@pytest.mark.parametrize('own', [1, 2])
def test_a_trial_that_is_there_twice_counts_once_in_its_own_study(tmp_path, own):
  """Regression: a copy made an interval narrower, as if it were another study."""
  record = {'study': own, 'seeds': {'trial': 7}}
  for study in (1, 2):
    rows = hit_at('quick_vision', 5.0)
    write_trial(tmp_path, 'mine', 'quick_vision', rows, study=study, record=record)
  [kept] = scoring.load(tmp_path).attrs['runs'].trials
  assert kept.study == f'study_{own}'


def test_trials_that_were_recorded_under_another_name_are_said(tmp_path):
  record = {'submission': 'theirs'}
  write_trial(tmp_path, 'mine', 'quick_vision', hit_at('quick_vision', 5.0), record=record)
  [note] = [one for one in scoring.load(tmp_path).attrs['runs'].notes if one.kind == 'other_name']
  assert (note.where, note.detail) == ('mine', 'recorded as theirs')
