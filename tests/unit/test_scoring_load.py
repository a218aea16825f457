"""Reading runs: layouts, and every irregularity that is survived, counted and shown."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from file_limit import file_size_limit
from scoring_runs import hit_at, miss, write_times, write_trial

import scoring
from algorithmic_efficiency.errors import UserError
from scoring import measurement_file, outputs, report
from scoring.notes import KINDS, Note, counted

WORKLOAD = 'ogbg'


def kinds(frame) -> dict[str, int]:
  found = counted(frame.attrs['runs'].notes)
  found.pop('no_hparams', None)
  return found


def outcome(root, **options):
  """The result of scoring `WORKLOAD` alone."""
  frame = scoring.load(root)
  return scoring.score(frame, 'algoperf_v06', workloads=[WORKLOAD], statistics=False, **options)


def time_of(root) -> float:
  return float(outcome(root).times[0, 0])


def test_rows_and_columns(tmp_path):
  write_trial(tmp_path, 'a', WORKLOAD, hit_at(WORKLOAD, 10.0), study=2, trial=3)
  frame = scoring.load(tmp_path)
  assert list(frame['row']) == [0, 1, 2]
  assert list(frame['submission_time_sec']) == [0.1, 5.0, 10.0]
  assert list(frame['global_step']) == [1, 50, 100]
  assert set(frame['trial']) == {'trial_3'} and set(frame['study']) == {'study_2'}
  assert not np.isnan(frame['test']).any()
  assert np.isnan(frame['charged_steps']).all()


def test_numbers_of_a_file_are_packed_as_they_are():
  text = b'global_step,score,validation/ssim\n1,0.5,nan\n2,1.5,0.25\n'
  read = measurement_file.parse(text, 'ssim')
  packed = read.packed()
  assert packed.damage is read.damage and packed.num_rows == 2
  for name, values in read.columns.items():
    assert np.array_equal(packed.columns[name], values, equal_nan=True)
    assert memoryview(packed.columns[name]).nbytes == 8 * len(values)


@pytest.mark.parametrize('name', [b'a\xff', b'a\nb', b'a\x1b[31m'])
def test_a_name_that_no_table_could_show_is_refused(name, tmp_path):
  """Regression: a name that is no UTF-8 ended scoring with a traceback."""
  (tmp_path / os.fsdecode(name)).mkdir()
  with pytest.raises(UserError, match=r'must be printable text; .* is not. Rename it'):
    scoring.load(tmp_path)


def test_a_bar_in_a_name_is_none_of_the_table(tmp_path):
  write_trial(tmp_path, 'a|b', WORKLOAD, hit_at(WORKLOAD, 10.0))
  assert r'| a\|b |' in outputs.markdown(outcome(tmp_path))


@pytest.mark.parametrize(
  ('options', 'spared'),
  [
    ({'stop_at': 'validation'}, '--stop_at validation'),
    ({'splits': ['validation']}, '--splits validation'),
    ({'full_eval_every': 4}, '--full_eval_every 4'),
  ],
)
def test_what_a_trial_was_spared_is_said(tmp_path, options, spared):
  every = {'stop_at': 'both', 'splits': ['test', 'validation', 'eval_train'], 'full_eval_every': 1}
  for submission, found in (('a', {}), ('b', every), ('c', {**every, **options})):
    record = {'suite': 'algoperf_v06', 'options': found}
    write_trial(tmp_path, submission, WORKLOAD, hit_at(WORKLOAD, 10.0), record=record)
  notes = [note for note in scoring.load(tmp_path).attrs['runs'].notes if note.kind == 'spared']
  assert [note.detail for note in notes] == [spared]
  assert '/c/' in notes[0].where


@pytest.mark.parametrize('depth', ['root', 'submission', 'around'])
def test_a_root_a_submission_and_a_folder_around_a_root_are_found(tmp_path, depth):
  root = tmp_path / 'external_tuning'
  write_trial(root, 'a', WORKLOAD, hit_at(WORKLOAD, 10.0))
  given = {'root': root, 'submission': root / 'a', 'around': tmp_path}[depth]
  frame = scoring.load(given)
  assert set(frame['submission']) == {'a'} and len(frame) == 3


@pytest.mark.parametrize('name', ['anything_jax', 'mine_pytorch', f'{WORKLOAD}_jax', 'lr10²', '²'])
@pytest.mark.parametrize('depth', ['root', 'submission', 'around'])
def test_what_lies_in_a_folder_says_what_it_is_and_not_its_name(tmp_path, name, depth):
  """Regression: a submission called as workload folders are hid all others."""
  root = tmp_path / 'runs'
  write_trial(root, name, WORKLOAD, hit_at(WORKLOAD, 10.0))
  write_trial(root, 'b', WORKLOAD, hit_at(WORKLOAD, 20.0))
  given = {'root': root, 'submission': root / name, 'around': tmp_path}[depth]
  frame = scoring.load(given)
  assert set(frame['submission']) == ({name} if depth == 'submission' else {name, 'b'})
  assert set(frame['workload']) == {WORKLOAD} and set(kinds(frame)) == set()


def test_folders_that_may_be_submissions_or_studies_are_studies_and_said(tmp_path):
  write_trial(tmp_path / 'x', '.', WORKLOAD, hit_at(WORKLOAD, 10.0))
  write_trial(tmp_path / 'x', '.', WORKLOAD, hit_at(WORKLOAD, 20.0), study=2)
  (tmp_path / 'x' / 'study_2').rename(tmp_path / 'x' / 'other')
  frame = scoring.load(tmp_path / 'x')
  assert set(frame['submission']) == {'x'}
  assert [n.detail for n in frame.attrs['runs'].notes if n.kind == 'study_names'] == ['other']


def test_a_link_to_nothing_is_said(tmp_path):
  """Regression: a study whose disk was not there was left out without a word."""
  write_times(tmp_path, {'a': {WORKLOAD: 10.0}})
  link = tmp_path / 'a' / 'study_2'
  link.symlink_to(tmp_path / 'gone')
  note = Note('dangling_link', str(link), f'to {tmp_path / "gone"}')
  assert note in scoring.load(tmp_path).attrs['runs'].notes


def test_a_known_workload_folder_without_trials_is_said(tmp_path):
  write_trial(tmp_path, 'a', WORKLOAD, GOOD)
  (tmp_path / 'a' / 'study_1' / 'wmt_jax').mkdir()
  assert kinds(scoring.load(tmp_path)) == {'no_data': 1}


def test_links_are_submissions_of_their_own_names(tmp_path):
  """Regression: two of them were one, and the better trial of both counted."""
  for owner, seconds in (('A', 10.0), ('B', 20.0)):
    write_trial(tmp_path / owner, 'mine', WORKLOAD, hit_at(WORKLOAD, seconds))
  (tmp_path / 'set').mkdir()
  for name, owner in (('alice', 'A'), ('bob', 'B')):
    (tmp_path / 'set' / name).symlink_to(tmp_path / owner / 'mine')
  result = outcome(tmp_path / 'set')
  assert result.submissions == ('alice', 'bob') and result.times[:, 0].tolist() == [10.0, 20.0]
  assert outcome(tmp_path / 'set' / 'bob').submissions == ('bob',)


def test_a_submission_in_two_frameworks_takes_no_name_that_is_another_s(tmp_path):
  for framework, seconds in (('jax', 10.0), ('pytorch', 20.0)):
    write_trial(tmp_path, 'a', WORKLOAD, hit_at(WORKLOAD, seconds), framework=framework)
  write_trial(tmp_path, 'a_jax', WORKLOAD, hit_at(WORKLOAD, 30.0))
  result = outcome(tmp_path)
  assert result.submissions == ('a (jax)', 'a_jax', 'a_pytorch')
  assert result.times[:, 0].tolist() == [10.0, 30.0, 20.0]


def test_no_two_outputs_share_a_name(tmp_path):
  """Regression: the summary of `a b` was replaced by that of `a_b`."""
  names = ('a b', 'a_b', 'a_b_2', 'B', 'b')
  for number, name in enumerate(names):
    write_trial(tmp_path / 'runs', name, WORKLOAD, hit_at(WORKLOAD, 10.0 + number))
  written = outputs.write_tables(outcome(tmp_path / 'runs'), tmp_path / 'out')
  assert len({path.name.casefold() for path in written}) == len(written)
  assert {path.name for path in written} >= {'a_b_summary.csv', 'a_b_2_summary.csv'}
  seconds = [path.read_text().split(',')[-3] for path in written if 'summary' in path.name]
  assert sorted(map(float, seconds)) == [10.0, 11.0, 12.0, 13.0, 14.0]


def test_several_sets_under_one_folder_are_refused(tmp_path):
  for name in ('external_tuning', 'self_tuning'):
    write_trial(tmp_path / name, 'a', WORKLOAD, miss(WORKLOAD))
  with pytest.raises(UserError, match='several sets'):
    scoring.load(tmp_path)


def test_runs_without_a_study_folder_are_one_study(tmp_path):
  folder = write_trial(tmp_path / 'x', 'a', WORKLOAD, hit_at(WORKLOAD, 10.0))
  target = tmp_path / 'runs' / 'a' / f'{WORKLOAD}_jax' / 'trial_1'
  target.parent.mkdir(parents=True)
  folder.rename(target)
  assert time_of(tmp_path / 'runs') == 10.0


def test_time_stamped_folders_of_a_submission_are_merged(tmp_path):
  write_trial(tmp_path, 'a-2024-01-02-03-04-05', WORKLOAD, miss(WORKLOAD), study=1)
  write_trial(tmp_path, 'a-2024-02-02-03-04-05', WORKLOAD, hit_at(WORKLOAD, 10.0), study=1)
  frame = scoring.load(tmp_path)
  assert set(frame['submission']) == {'a'}
  assert kinds(frame)['merged'] == 1
  assert time_of(tmp_path) == 10.0  # both trials are kept, and the better counts


def test_a_submission_in_both_frameworks_is_two(tmp_path):
  write_trial(tmp_path, 'a', WORKLOAD, hit_at(WORKLOAD, 10.0), framework='jax')
  write_trial(tmp_path, 'a', WORKLOAD, hit_at(WORKLOAD, 20.0), framework='pytorch')
  result = outcome(tmp_path)
  assert result.submissions == ('a_jax', 'a_pytorch')
  assert result.times[:, 0].tolist() == [10.0, 20.0]


def test_a_goal_reached_exactly_counts_and_nan_never_does(tmp_path):
  rows = [(1, 1.0, float('nan')), (2, 2.0, float('inf')), *hit_at(WORKLOAD, 10.0)[1:]]
  write_trial(tmp_path, 'a', WORKLOAD, rows)
  assert time_of(tmp_path) == 10.0
  assert kinds(scoring.load(tmp_path)) == {'nan_metric': 1}


GOOD = hit_at(WORKLOAD, 10.0)
DAMAGES = {
  'empty': (lambda text: '', 'no_data'),
  'header alone cut': (lambda text: text[:30], 'truncated'),
  'last line cut': (lambda text: text[:-4], 'truncated'),
  'last line without its end': (lambda text: text[:-1], 'truncated'),
  'last row short': (lambda text: text[:-20].rsplit(',', 1)[0] + '\n', 'truncated'),
  'no csv': (lambda text: '\x00\x01\xff\n\x80', 'damaged'),
  'word in a number': (lambda text: text.replace(',50,', ',fifty,'), 'damaged'),
  'row too long': (lambda text: text.replace('5.0,50', '5.0,0,50'), 'damaged'),
  'no metric': (lambda text: text.replace('validation/', 'other/'), 'missing_column'),
  'no step': (lambda text: text.replace('global_step', 'step'), 'missing_column'),
  'column twice': (lambda text: text.replace('train/', 'test/'), 'damaged'),
  'step repeated': (lambda text: text.replace(',50,', ',1,'), 'bad_steps'),
  'step decreases': (lambda text: text.replace(',50,', ',200,'), 'bad_steps'),
  'step is no whole number': (lambda text: text.replace(',50,', ',50.5,'), 'bad_steps'),
  'step is missing': (lambda text: text.replace(',50,', ',,'), 'bad_steps'),
  'time is negative': (lambda text: text.replace('0.1', '-0.1'), 'bad_times'),
  'time is NaN': (lambda text: text.replace('5.0', 'nan'), 'bad_times'),
  'time is infinite': (lambda text: text.replace('10.0', 'inf'), 'bad_times'),
  'time decreases': (lambda text: text.replace('5.0', '50.0'), 'bad_times'),
}


@pytest.mark.parametrize('name', DAMAGES)
def test_a_damaged_file_counts_as_not_reached_and_is_said(tmp_path, name):
  change, kind = DAMAGES[name]
  folder = write_trial(tmp_path, 'a', WORKLOAD, GOOD)
  write_trial(tmp_path, 'b', WORKLOAD, GOOD)
  path = folder / 'eval_measurements.csv'
  text = path.read_text()
  damaged = change(text)
  assert damaged != text
  path.write_bytes(damaged.encode('latin-1'))
  result = outcome(tmp_path)
  assert result.times[:, 0].tolist() == [np.inf, 10.0]
  found = [note for note in result.notes if note.kind == kind]
  assert found and found[0].where == str(folder)


def test_a_trial_without_a_file_is_a_study_not_reached(tmp_path):
  write_trial(tmp_path, 'a', WORKLOAD, GOOD, study=1)
  for study in (2, 3):
    write_trial(tmp_path, 'a', WORKLOAD, None, study=study)
  assert time_of(tmp_path) == np.inf
  assert kinds(scoring.load(tmp_path)) == {'no_data': 2}


def test_strays_and_unknown_workloads_are_counted(tmp_path):
  write_trial(tmp_path, 'a', WORKLOAD, GOOD)
  (tmp_path / 'a' / 'study_1' / 'trial_7').mkdir()
  (tmp_path / 'a' / 'study_1' / 'notes').mkdir()
  (tmp_path / 'a' / 'study_1' / f'{WORKLOAD}_jax' / 'plots').mkdir()
  (tmp_path / 'a' / 'study_1' / 'nonesuch_jax' / 'trial_1').mkdir(parents=True)
  found = kinds(scoring.load(tmp_path))
  assert found == {'stray_trial': 1, 'stray_file': 2, 'unknown_workload': 1}


def record(**changes):
  return {'suite': 'algoperf_v06', 'ruleset': 'external', 'status': 'finished', **changes}


@pytest.mark.parametrize(
  ('changes', 'kind'),
  [
    ({'status': 'invalid', 'reason': 'the clock was patched'}, 'invalid_trial'),
    ({'suite': 'algoperf_a100'}, 'other_suite'),
    ({'ruleset': 'self'}, 'other_suite'),
    ({'smoke': True}, 'smoke'),
    ({'definition_hash': '0' * 16}, 'altered_workload'),
  ],
)
def test_what_the_runner_recorded_keeps_a_trial_from_scoring(tmp_path, changes, kind):
  write_trial(tmp_path, 'a', WORKLOAD, GOOD, record=record())
  write_trial(tmp_path, 'b', WORKLOAD, GOOD, record=record(**changes))
  result = outcome(tmp_path)
  assert result.times[:, 0].tolist() == [10.0, np.inf]
  assert counted(result.notes)[kind] == 1


@pytest.mark.parametrize(
  ('changes', 'kind'),
  [
    ({'status': 'running'}, 'cut_short'),
    ({'stop_reason': 'step_limit'}, 'cut_short'),
    ({'status': 'failed', 'reason': 'it raised'}, 'failed_trial'),
    ({'notes': ['the batch size is another']}, 'runner_note'),
  ],
)
def test_what_the_runner_remarked_is_said_and_scores(tmp_path, changes, kind):
  write_trial(tmp_path, 'a', WORKLOAD, GOOD, record=record(**changes))
  assert time_of(tmp_path) == 10.0
  assert kinds(scoring.load(tmp_path)) == {kind: 1, 'lost_log': 1}


def test_a_damaged_trial_record_is_said(tmp_path):
  folder = write_trial(tmp_path, 'a', WORKLOAD, GOOD, record=record())
  (folder / 'trial.json').write_text('{"suite": ')
  assert time_of(tmp_path) == np.inf
  assert kinds(scoring.load(tmp_path)) == {'damaged': 1}


def test_charged_steps_are_the_steps_where_they_are_recorded(tmp_path):
  folder = write_trial(tmp_path, 'a', WORKLOAD, GOOD, record=record())
  path = folder / 'eval_measurements.csv'
  lines = path.read_text().splitlines()
  lines = [
    lines[0] + ',charged_steps',
    *(f'{line},{7 * s}' for s, line in zip((1, 50, 100), lines[1:], strict=True)),
  ]
  path.write_text('\n'.join(lines) + '\n')
  assert outcome(tmp_path).outcomes.step.tolist() == [700.0]


@pytest.mark.parametrize('given', ['missing', 'file', 'empty', 'elsewhere'])
def test_a_folder_without_runs_gets_one_clear_message(tmp_path, given):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'file').write_text('x')
  (tmp_path / 'elsewhere' / 'deep' / 'deeper').mkdir(parents=True)
  with pytest.raises(UserError, match=r'runs|folder'):
    scoring.load(tmp_path / given)


def test_the_order_of_the_rows_changes_nothing(tmp_path):
  write_times(tmp_path, {'a': {WORKLOAD: 10.0}, 'b': {WORKLOAD: 30.0}}, studies=3, trials=2)
  frame = scoring.load(tmp_path)
  shuffled = frame.sample(frac=1.0, random_state=3)
  for one in (frame, shuffled):
    result = scoring.score(one, 'algoperf_v06', workloads=[WORKLOAD], integral='exact')
    assert result.scores.tolist() == pytest.approx([1.0, 1 / 3])


def test_a_frame_without_its_attributes_is_scored_by_its_rows(tmp_path):
  write_times(tmp_path, {'a': {WORKLOAD: 10.0}})
  frame = scoring.load(tmp_path)
  frame.attrs.clear()
  result = scoring.score(frame, 'algoperf_v06', workloads=[WORKLOAD])
  assert result.times.tolist() == [[10.0]]


def test_hyperparameters_are_read(tmp_path):
  write_trial(tmp_path, 'a', WORKLOAD, GOOD, hyperparameters={'b': 1, 'a': 2})
  trial = scoring.load(tmp_path).attrs['runs'].trials[0]
  assert json.loads(trial.hyperparameters) == {'a': 2, 'b': 1}


def test_notes_are_a_closed_set():
  assert all(KINDS.values())
  with pytest.raises(ValueError, match='no kind'):
    Note('nonesuch', 'somewhere')


class TestFullDisk:
  """Regression: a traceback, and an earlier result that was cut."""

  def test_of_tables(self, tmp_path):
    write_trial(tmp_path / 'runs', 'a', WORKLOAD, hit_at(WORKLOAD, 10.0))
    result, folder = outcome(tmp_path / 'runs'), tmp_path / 'out'
    outputs.write_tables(result, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with (
      file_size_limit(10),
      pytest.raises(UserError, match=r'could not be written.*score the runs'),
    ):
      outputs.write_tables(result, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

  @pytest.mark.parametrize('room', [10, 20_000])  # for nothing, and for the data but no figure
  def test_of_a_report(self, room, tmp_path):
    pytest.importorskip('jinja2')
    pytest.importorskip('vl_convert')
    write_trial(tmp_path / 'runs', 'a', WORKLOAD, hit_at(WORKLOAD, 10.0))
    frame = scoring.load(tmp_path / 'runs')
    result = scoring.score(frame, 'algoperf_v06', workloads=[WORKLOAD])
    with file_size_limit(room), pytest.raises(UserError, match='could not be written'):
      report.write(frame, result, tmp_path / 'out')
    assert [path.name for path in (tmp_path / 'out').iterdir() if not path.stat().st_size] == []
