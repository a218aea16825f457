"""Packages of entries: packed, verified, and refused where somebody has changed them."""

from __future__ import annotations

import json
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import entry_runs
import pytest
from entry_package import Package
from entry_runs import NAME, ROOT_SEED, SUITE

from algorithmic_efficiency import errors, seeds
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.cli import main
from algorithmic_efficiency.entries import archive, manifest
from algorithmic_efficiency.entries.pack import Packed, Packing, pack
from algorithmic_efficiency.entries.verify import Report, Verification, verify

TRIAL = f'runs/{NAME}/study_2/quick_vision_jax/trial_1'  # one that spends its budget
HIT = f'runs/{NAME}/study_2/quick_vision_jax/trial_2'  # one that reaches its targets


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A folder with an entrant's code, the runs of a race, and the package of both."""
  folder = tmp_path_factory.mktemp('entrant')
  code = entry_runs.write_code(folder / NAME)
  entry_runs.write_race(folder / 'race', code)
  packed(folder)
  return folder


def packed(home: Path, **changes: Any) -> Packed:
  fields = {'entry': str(home / NAME), 'runs': home / 'race', 'output': home / 'entry.zip'}
  return pack(Packing(**{**fields, **changes}))


def report_of(package: Path, **changes: Any) -> Report:
  return verify(Verification(**{'package': package, 'suite': SUITE, **changes}), quiet=True)


def refusals(report: Report) -> dict[str, list[str]]:
  """Why a package is refused: texts by check."""
  found: dict[str, list[str]] = {}
  for one in report.findings:
    if one.severity == 'refused':
      found.setdefault(one.check, []).append(f'{one.where}: {one.text}')
  return found


def evals(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
  return [record['row'] for record in records if record['kind'] == 'eval']


# Packing.


def test_an_honest_race_is_accepted(home: Path):
  report = report_of(home / 'entry.zip', seed=ROOT_SEED)
  assert report.findings == ()
  assert (report.verdict, report.num_trials) == ('accepted', 4)


def test_the_same_files_give_the_same_bytes(home: Path, tmp_path: Path):
  again = tmp_path / 'home'
  shutil.copytree(home, again)
  for path in again.rglob('*'):
    os.utime(path, (1, 1))
  packed(again)
  assert (again / 'entry.zip').read_bytes() == (home / 'entry.zip').read_bytes()


def test_secrets_caches_and_weights_stay_at_home_and_are_listed(home: Path, tmp_path: Path):
  shutil.copytree(home, tmp_path / 'home')
  code = tmp_path / 'home' / NAME
  hidden = ('.netrc', '.env', 'id_rsa', 'aws_credentials.json', 'checkpoint_3', 'best.pt')
  for name in hidden:
    (code / name).write_text('secret')
  (code / '__pycache__').mkdir()
  (code / '__pycache__' / 'a.pyc').write_text('secret')
  shutil.move(tmp_path / 'home' / 'race', code / 'runs')
  done = packed(tmp_path / 'home', runs=code / 'runs', output=code / 'entry.zip')
  assert {path.name for path in done.left_out} >= {*hidden, '__pycache__', 'checkpoint_1', '.lock'}
  assert Package.read(done.path).files.keys() == Package.read(home / 'entry.zip').files.keys()
  assert b'secret' not in done.path.read_bytes()


@pytest.mark.parametrize('where', [NAME, f'race/{NAME}/study_1/quick_vision_jax/trial_1'])
def test_links_are_refused(home: Path, tmp_path: Path, where: str):
  shutil.copytree(home, tmp_path / 'home')
  (tmp_path / 'outside').write_text('secret')
  (tmp_path / 'home' / where / 'output.txt').symlink_to(tmp_path / 'outside')
  with pytest.raises(errors.UserError, match=r'output\.txt is a symbolic link'):
    packed(tmp_path / 'home')


def test_a_linked_folder_of_trials_is_refused(home: Path, tmp_path: Path):
  shutil.copytree(home, tmp_path / 'home')
  study = tmp_path / 'home' / 'race' / NAME / 'study_1'
  shutil.move(study, tmp_path / 'outside')
  study.symlink_to(tmp_path / 'outside')
  with pytest.raises(errors.UserError, match='study_1 is a symbolic link'):
    packed(tmp_path / 'home')


def test_missing_and_failed_trials_are_named_unless_it_is_partial(home: Path, tmp_path: Path):
  shutil.copytree(home, tmp_path / 'home')
  race = tmp_path / 'home' / 'race' / NAME
  shutil.rmtree(race / 'study_1' / 'quick_vision_jax' / 'trial_1')
  failed = race / 'study_2' / 'quick_vision_jax' / 'trial_2' / 'trial.json'
  fields = json.loads(failed.read_text())
  del fields['checksum']
  failed.write_text(json.dumps(fields | {'status': 'failed', 'stop_reason': 'out_of_memory'}))
  with pytest.raises(errors.UserError) as error:
    packed(tmp_path / 'home')
  assert 'study_1/quick_vision_jax/trial_1 is missing' in str(error.value)
  assert 'study_2/quick_vision_jax/trial_2 failed: out_of_memory' in str(error.value)
  done = packed(tmp_path / 'home', partial=True)
  assert len(done.shortcomings) == 2 and done.manifest.is_partial
  report = report_of(done.path)
  assert report.verdict == 'doubtful'
  assert {one.check for one in report.findings if one.severity == 'doubtful'} == {'trials'}


def test_code_that_was_changed_after_the_runs_is_not_packed(home: Path, tmp_path: Path):
  shutil.copytree(home, tmp_path / 'home')
  file = tmp_path / 'home' / NAME / 'submission_jax.py'
  file.write_text(file.read_text() + '\n')
  with pytest.raises(errors.UserError, match='have been changed since'):
    packed(tmp_path / 'home')


def test_code_that_would_be_left_out_is_not_packed(home: Path, tmp_path: Path):
  code = entry_runs.write_code(tmp_path / NAME)
  (code / 'secrets.py').write_text('KEY = 1\n')
  entry_runs.write_race(tmp_path / 'race', code)
  with pytest.raises(errors.UserError, match=r'secrets\.py would be left out'):
    packed(tmp_path)


def test_an_entry_says_who_made_it(home: Path, tmp_path: Path):
  shutil.copytree(home, tmp_path / 'home')
  (tmp_path / 'home' / NAME / 'submission_info.yml').unlink()
  with pytest.raises(errors.UserError, match=r'needs submission_info\.yml'):
    packed(tmp_path / 'home')


def test_too_large_a_file_is_not_packed(
  home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setattr(archive, 'MAX_FILE_BYTES', 1_000)
  with pytest.raises(errors.UserError, match='must stay within its limits'):
    packed(home, output=tmp_path / 'entry.zip')
  assert not list(tmp_path.iterdir())


def test_the_costs_of_others_stay_at_home(home: Path, tmp_path: Path):
  from algorithmic_efficiency.results import race_files
  from algorithmic_efficiency.results.race_files import Selection, StepCost

  shutil.copytree(home, tmp_path / 'home')
  race = tmp_path / 'home' / 'race'
  for name in (NAME, 'other', 'nadamw'):
    cost = StepCost(
      submission=name,
      baseline='nadamw',
      workload='quick_vision',
      framework='jax',
      study=1,
      host='h',
      rounds=((1.0, 1.0, 1.0),),
    )
    race_files.append_costs(race, [cost])
  race_files.write_selection(race, Selection(suite='small', workloads=None))
  done = packed(tmp_path / 'home')
  with zipfile.ZipFile(done.path) as found:
    found.extractall(tmp_path / 'unpacked')
  costs = race_files.read_costs(tmp_path / 'unpacked' / 'runs')
  assert [cost.submission for cost in costs] == [NAME, 'nadamw']
  assert report_of(done.path).verdict == 'accepted'


# Tampering. Each one makes hashes, checksums and tables fit what it changes.


def time_halved(package: Package) -> None:
  def halve(records: list[dict[str, Any]]) -> None:
    for record in records:
      for name in ('score', 'accumulated_submission_time'):
        if name in record.get('row', {}):
          record['row'][name] /= 2

  package.log(HIT, halve)
  package.record(
    HIT, lambda fields: fields.update(submission_time_sec=fields['submission_time_sec'] / 2)
  )


def time_halved_in_buckets_too(package: Package) -> None:
  """As above, with the total and the buckets; the time of a step is forgotten."""

  def halve(records: list[dict[str, Any]]) -> None:
    for row in evals(records):
      half = row['accumulated_submission_time'] / 2
      row.update(score=half, accumulated_submission_time=half)
      row['total_duration'] -= half
    records[-1]['row']['score'] /= 2

  def in_record(fields: dict[str, Any]) -> None:
    for name in ('data', 'update'):
      fields['buckets'][name] /= 2
    fields['submission_time_sec'] /= 2

  package.log(HIT, halve)
  package.record(HIT, in_record)


def row_removed(package: Package) -> None:
  package.log(TRIAL, lambda records: records.pop(7))


def last_row_removed(package: Package) -> None:
  package.log(TRIAL, lambda records: records.pop(-2))


def row_added(package: Package) -> None:
  def add(records: list[dict[str, Any]]) -> None:
    row = dict(records[5]['row'])
    for name in ('global_step', 'charged_steps'):
      row[name] += 1
    for name in ('total_duration', 'accumulated_eval_time'):
      row[name] += 0.01
    row['accumulated_submission_time'] = row['score'] = row['score'] + 0.001
    row['total_duration'] += 0.001
    records.insert(6, {'kind': 'eval', 'row': row})

  package.log(TRIAL, add)


def target_claimed(package: Package) -> None:
  package.record(TRIAL, lambda fields: fields.update(stop_reason='targets_reached'))


def target_reached_in_a_row(package: Package) -> None:
  def reach(records: list[dict[str, Any]]) -> None:
    target = registry.workload('quick_vision', registry.suite(SUITE).name).target
    evals(records)[6].update(entry_runs.at_target(target))

  package.log(TRIAL, reach)


def code_changed(package: Package) -> None:
  package.files['submission/submission_jax.py'] += b'\n'


def space_changed(package: Package) -> None:
  name = 'submission/tuning_search_space.json'
  space = json.loads(package.files[name])
  range_of_rate = next(one for one in space.values() if 'min' in one)
  range_of_rate['max'] *= 2
  package.files[name] = json.dumps(space).encode()


def rules_of_another_suite(package: Package) -> None:
  package.record(TRIAL, lambda fields: fields.update(suite_hash='0' * 16))


def another_workload(package: Package) -> None:
  package.record(TRIAL, lambda fields: fields.update(definition_hash='0' * 16))


def trial_copied_to_another_study(package: Package) -> None:
  for name in [name for name in package.files if name.startswith(f'{HIT}/')]:
    package.files[name.replace('study_2', 'study_1')] = package.files[name]


def trial_copied_with_its_seeds_adjusted(package: Package) -> None:
  trial_copied_to_another_study(package)
  study = seeds.derive(ROOT_SEED, 'study', 1)
  trial = seeds.derive(study, 'trial', 2)
  copy = HIT.replace('study_2', 'study_1')
  package.record(
    copy,
    lambda fields: fields.update(
      study=1, seeds={'seed': ROOT_SEED, 'study': study, 'trial': trial}
    ),
  )
  package.log(copy, lambda records: records[0].update(seed=trial))


def seed_changed(package: Package) -> None:
  seed = seeds.derive(99, 'trial', 1)
  package.record(TRIAL, lambda fields: fields['seeds'].update(trial=seed))
  package.log(TRIAL, lambda records: records[0].update(seed=seed))


def root_seed_changed(package: Package) -> None:
  study = seeds.derive(8, 'study', 2)
  trial = seeds.derive(study, 'trial', 1)
  found = {'seed': 8, 'study': study, 'trial': trial}
  package.record(TRIAL, lambda fields: fields.update(seeds=found))
  package.log(TRIAL, lambda records: records[0].update(seed=trial))


def table_changed(package: Package) -> None:
  name = f'{TRIAL}/eval_measurements.csv'
  package.files[name] = package.files[name].replace(b'validation', b'Validation', 1)


def value_in_the_table_changed(package: Package) -> None:
  lines = package.files[f'{TRIAL}/eval_measurements.csv'].splitlines(keepends=True)
  place = lines[0].decode().strip().split(',').index('total_duration')
  fields = lines[3].split(b',')
  fields[place] = b'1.5'
  lines[3] = b','.join(fields)
  package.files[f'{TRIAL}/eval_measurements.csv'] = b''.join(lines)


def trial_left_out(package: Package) -> None:
  for name in [name for name in package.files if name.startswith(f'{TRIAL}/')]:
    del package.files[name]


def trial_too_many(package: Package) -> None:
  for name in [name for name in package.files if name.startswith(f'{TRIAL}/')]:
    package.files[name.replace('trial_1/', 'trial_9/')] = package.files.pop(name)


def record_lost(package: Package) -> None:
  del package.files[f'{TRIAL}/trial.json']


def log_of_a_newer_version(package: Package) -> None:
  package.log(TRIAL, lambda records: records[0].update(schema=99))


def log_lost(package: Package) -> None:
  del package.files[f'{TRIAL}/measurements.jsonl']


def batch_size_changed(package: Package) -> None:
  package.record(TRIAL, lambda fields: fields.update(batch_size=4_096))


def smoke_run(package: Package) -> None:
  package.record(TRIAL, lambda fields: fields.update(smoke=True))


def went_on_beyond_its_budget(package: Package) -> None:
  def go_on(records: list[dict[str, Any]]) -> None:
    row = dict(evals(records)[-1])
    row.update(global_step=row['global_step'] + 15, charged_steps=row['charged_steps'] + 15)
    for name, seconds in (('total_duration', 6.0), ('accumulated_eval_time', 1.0)):
      row[name] += seconds
    row['score'] = row['accumulated_submission_time'] = row['score'] + 5.0
    records.insert(-1, {'kind': 'eval', 'row': row})
    records[-1]['row'].update(global_step=row['global_step'], score=row['score'])

  package.log(TRIAL, go_on)


def info_incomplete(package: Package) -> None:
  package.files['submission/submission_info.yml'] = b'authors: nobody\n'


def runs_of_somebody_else(package: Package) -> None:
  for name in [name for name in package.files if name.startswith(f'{TRIAL}/')]:
    package.files[name.replace(NAME, 'other')] = package.files[name]


TAMPERINGS: dict[Callable[[Package], None], tuple[str, str]] = {
  time_halved: ('times', 'do not add up'),
  time_halved_in_buckets_too: ('times', 'wall time is'),
  row_removed: ('rows', 'A row is missing'),
  last_row_removed: ('rows', 'Its last row is of step'),
  row_added: ('rows', 'A row was added'),
  target_claimed: ('targets', 'no row does'),
  target_reached_in_a_row: ('targets', 'reached its targets and went on'),
  code_changed: ('code', 'code was changed after these trials'),
  space_changed: ('points', 'gives its seed another point'),
  rules_of_another_suite: ('rules', 'It ran with the rules 0000'),
  another_workload: ('rules', 'It ran with the workload 0000'),
  trial_copied_to_another_study: ('seeds', 'Its record is that of study 2'),
  trial_copied_with_its_seeds_adjusted: ('trials', 'It is there twice'),
  seed_changed: ('seeds', 'The seed of its trial is'),
  root_seed_changed: ('seeds', 'Its root seed is 8'),
  table_changed: ('files', 'evaluation files that are not what the log says'),
  value_in_the_table_changed: ('files', 'is not what measurements.jsonl says'),
  trial_left_out: ('trials', '1 of 4 trials are missing'),
  trial_too_many: ('trials', 'The suite has no such trial'),
  record_lost: ('files', 'lost their trial.json'),
  log_of_a_newer_version: ('files', 'newer version'),
  log_lost: ('files', 'lost their measurements.jsonl'),
  batch_size_changed: ('rules', 'Its batch size is 4096'),
  smoke_run: ('rules', 'smoke run'),
  went_on_beyond_its_budget: ('rows', 'beyond its budget'),
  info_incomplete: ('info', 'It lacks'),
  runs_of_somebody_else: ('files', 'runs of others'),
}


@pytest.mark.parametrize('tamper', TAMPERINGS, ids=lambda one: one.__name__)
def test_a_package_that_was_changed_is_refused_with_the_reason(
  tamper: Callable[[Package], None], home: Path, tmp_path: Path
):
  package = Package.read(home / 'entry.zip')
  tamper(package)
  report = report_of(package.write(tmp_path / 'entry.zip'))
  check, text = TAMPERINGS[tamper]
  assert report.verdict == 'refused'
  assert any(text in one for one in refusals(report)[check]), report.findings


def test_a_seed_that_was_not_drawn_is_refused(home: Path):
  found = refusals(report_of(home / 'entry.zip', seed=ROOT_SEED + 1))
  assert found.keys() == {'seeds'} and len(found['seeds']) == 4


def test_a_package_for_another_suite_is_refused(home: Path):
  found = refusals(report_of(home / 'entry.zip', suite='quick'))
  assert found == {'rules': ['entry.json: It is an entry for the suite small, not quick.']}


# What is wrong with the file itself.


def written(path: Path, members: list[tuple[zipfile.ZipInfo | str, bytes]]) -> Path:
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as found:
    for info, content in members:
      found.writestr(info, content)
  return path


def member(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
  info = zipfile.ZipInfo(name)
  info.external_attr = mode << 16
  info.compress_type = zipfile.ZIP_DEFLATED
  return info


MEMBERS: dict[str, tuple[list[tuple[Any, bytes]], str]] = {
  'climbs out': ([('../../outside', b'')], 'climbs out'),
  'climbs out within': ([('runs/../../outside', b'')], 'climbs out'),
  'absolute': ([('/outside', b'')], 'absolute'),
  'drive': ([('C:/outside', b'')], 'absolute'),
  'backslash': ([(member('runs\\..\\outside'), b'')], 'plain form'),
  'current folder': ([('runs/./a', b'')], 'plain form'),
  'symbolic link': ([(member('submission/a', stat.S_IFLNK | 0o777), b'/etc/passwd')], 'symbolic'),
  'pipe': ([(member('submission/a', stat.S_IFIFO | 0o644), b'')], 'no regular file'),
  'folder': ([(member('submission/a/'), b'')], 'no regular file'),
  'bomb': ([('submission/a', bytes(50 * 2**20))], 'grows'),
  'upper case': ([('runs/a', b''), ('runs/A', b'')], 'upper and lower case'),
  'file and folder': ([('runs/a', b''), ('runs/a/b', b'')], 'both a file and a folder'),
  'not printable': ([('runs/\u202ea', b'')], 'not printable'),
  'other normal form': ([('runs/e\u0301', b'')], 'plain form'),
  'long name': ([('runs/' + 'a' * 300, b'')], 'too long'),
  'no manifest': ([('runs/a', b'')], 'algoeff pack'),
  'manifest is no JSON': ([('entry.json', b'{')], 'damaged'),
  'manifest of a newer format': (
    [('entry.json', b'{"submission":"a","suite":"quick","ruleset":"self","format":9}')],
    'reads up to',
  ),
  'file that is not listed': (
    [('entry.json', b'{"submission":"a","suite":"quick","ruleset":"self"}'), ('runs/a', b'')],
    'does not list it',
  ),
}


@pytest.mark.filterwarnings('ignore:Duplicate name')
@pytest.mark.parametrize('case', MEMBERS)
def test_a_file_that_is_no_package_is_refused_and_nothing_is_left(
  case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  members, text = MEMBERS[case]
  package = written(tmp_path / 'entry.zip', members)
  temporary = tmp_path / 'temporary'
  temporary.mkdir()
  monkeypatch.setattr('tempfile.tempdir', str(temporary))
  report = report_of(package)
  [finding] = report.findings
  assert report.verdict == 'refused' and text in finding.text
  assert sorted(path.name for path in tmp_path.iterdir()) == ['entry.zip', 'temporary']
  assert not list(temporary.iterdir())


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_a_name_that_stands_twice_is_refused(tmp_path: Path):
  package = written(tmp_path / 'entry.zip', [('runs/a', b'1'), ('runs/a', b'2')])
  assert 'stands twice' in report_of(package).findings[0].text


@pytest.mark.parametrize(('name', 'coded'), [('aé', b'a\xff\xfe'), ('abc', b'a\x82c')])
def test_a_name_in_another_encoding_is_refused(name: str, coded: bytes, tmp_path: Path):
  """Broken UTF-8, and a name in the code page of DOS."""
  package = written(tmp_path / 'entry.zip', [(f'runs/{name}', b'')])
  package.write_bytes(package.read_bytes().replace(name.encode(), coded))
  assert 'UTF-8' in refusals(report_of(package))['archive'][0]


def test_an_encrypted_file_is_refused(home: Path, tmp_path: Path):
  package = tmp_path / 'entry.zip'
  content = bytearray((home / 'entry.zip').read_bytes())
  for sign, place in ((b'PK\x03\x04', 6), (b'PK\x01\x02', 8)):
    content[content.index(sign) + place] |= 1
  package.write_bytes(content)
  assert 'encrypted' in refusals(report_of(package))['archive'][0]


def test_data_before_the_first_file_are_refused(home: Path, tmp_path: Path):
  package = tmp_path / 'entry.zip'
  package.write_bytes(b'#!/bin/sh\n' + (home / 'entry.zip').read_bytes())
  assert 'belong to none' in report_of(package).findings[0].text


@pytest.mark.parametrize('limit', ['MAX_FILES', 'MAX_TOTAL_BYTES', 'MAX_FILE_BYTES'])
def test_too_much_is_refused_before_anything_is_unpacked(
  limit: str, home: Path, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setattr(archive, limit, 10)
  monkeypatch.setattr(archive, '_extracted', None)
  assert list(refusals(report_of(home / 'entry.zip'))) == ['archive']


def test_a_changed_byte_is_found(home: Path, tmp_path: Path):
  """In a file, by its hash, and in the packed bytes, by their sum."""
  package = Package.read(home / 'entry.zip')
  package.files[f'{TRIAL}/hparams.json'] += b' '
  archive.write(tmp_path / 'entry.zip', package.files)
  assert 'its hash differs' in refusals(report_of(tmp_path / 'entry.zip'))['hashes'][0]
  content = bytearray((home / 'entry.zip').read_bytes())
  content[3_000] ^= 1
  (tmp_path / 'damaged.zip').write_bytes(content)
  assert report_of(tmp_path / 'damaged.zip').verdict == 'refused'


@pytest.mark.parametrize('content', [b'', b'no zip', b'PK\x03\x04' + bytes(50)])
def test_what_is_no_zip_file_is_bad_input(
  content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  (tmp_path / 'entry.zip').write_bytes(content)
  assert main(['verify', str(tmp_path / 'entry.zip')]) == 2
  assert 'An entry is a zip file' in capsys.readouterr().err
  assert main(['verify', str(tmp_path / 'absent.zip')]) == 2


# Folders that AlgoPerf has made.


def test_folders_of_algoperf_round_trip_and_say_what_cannot_be_checked(home: Path, tmp_path: Path):
  shutil.copytree(home, tmp_path / 'home')
  entry_runs.without_records(tmp_path / 'home' / 'race')
  with pytest.raises(errors.UserError, match=r'the runs state none\. Give --suite'):
    packed(tmp_path / 'home')
  done = packed(tmp_path / 'home', suite=SUITE, ruleset='external')
  report = report_of(done.path)
  assert report.verdict == 'doubtful' and report.num_trials == 4
  found = {(one.check, one.severity) for one in report.findings}
  assert found == {(name, 'unchecked') for name in ('code', 'rules', 'seeds', 'hosts')}


def test_a_point_outside_of_the_space_of_an_algoperf_folder_is_doubtful(home: Path, tmp_path: Path):
  shutil.copytree(home, tmp_path / 'home')
  entry_runs.without_records(tmp_path / 'home' / 'race')
  point = tmp_path / 'home' / 'race' / NAME / 'study_1/quick_vision_jax/trial_1/hparams.json'
  point.write_text(json.dumps({**json.loads(point.read_text()), 'learning_rate': 9.0}))
  done = packed(tmp_path / 'home', suite=SUITE, ruleset='external')
  [finding] = [one for one in report_of(done.path).findings if one.check == 'points']
  assert (finding.severity, finding.where) == ('doubtful', 'study_1/quick_vision_jax/trial_1')


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize('name', ['baseline', 'lawa_ema'])
def test_published_folders_of_algoperf_round_trip(name: str, published_logs: Path, tmp_path: Path):
  """Two of the first competition; one has all of its trials, the other lacks some."""
  runs = published_logs / 'external_tuning'
  code = entry_runs.write_code(tmp_path / name)
  points: list[dict[str, Any]] = []
  for file in sorted(runs.glob(f'{name}/study_0/*/trial_*/hparams.json')):
    point = json.loads(file.read_text())
    points += [] if point in points else [point]
  (code / 'tuning_search_space.json').write_text(json.dumps(points))
  done = pack(
    Packing(
      entry=str(code),
      runs=runs,
      output=tmp_path / 'entry.zip',
      suite='algoperf_v05',
      ruleset='external',
      partial=True,
    )
  )
  report = report_of(done.path, suite=None)
  assert report.verdict == 'doubtful' and report.num_trials == done.num_trials > 300
  found = {(one.check, one.severity) for one in report.findings if one.severity != 'note'}
  unchecked = {(check, 'unchecked') for check in ('code', 'rules', 'seeds', 'hosts')}
  assert found - {('trials', 'doubtful')} == unchecked
  assert bool(done.shortcomings) == (('trials', 'doubtful') in found)


# The commands.


def test_the_commands_print_table_json_and_exit_codes(
  home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  package = str(tmp_path / 'entry.zip')
  command = ['pack', str(home / NAME), str(home / 'race'), '-o', package]
  assert main([*command, '--json']) == 0
  shown = capsys.readouterr()
  assert json.loads(shown.out)['num_trials'] == 4 and 'Left out: ' in shown.err
  assert main(['verify', package, '--suite', SUITE]) == 0
  assert f'{NAME} for small, 4 trials: accepted.' in capsys.readouterr().out
  changed = Package.read(home / 'entry.zip')
  seed_changed(changed)
  changed.write(tmp_path / 'changed.zip')
  assert main(['verify', str(tmp_path / 'changed.zip'), '--suite', SUITE, '--json']) == 1
  found = json.loads(capsys.readouterr().out)
  assert (found['verdict'], found['checks']['seeds']) == ('refused', 'refused')
  assert found['checks']['hashes'] == 'pass' and found['checks']['replay'] is None
  assert main(['verify', package, '--trial', 'study_1/quick_vision_jax/trial_1']) == 2
  assert main([*command[:-1], str(tmp_path / 'entry.tar')]) == 2


def test_a_refused_package_is_not_run(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  package = Package.read(home / 'entry.zip')
  seed_changed(package)
  monkeypatch.setattr('algorithmic_efficiency.launch.session.run_trials', None)
  report = report_of(package.write(tmp_path / 'entry.zip'), replay_steps=1)
  assert [one.text for one in report.findings if one.check == 'replay'] == [
    'Nothing was run, as the package is refused without it.'
  ]


# Damages that nobody has thought of.


@pytest.mark.parametrize('seed', range(12))
def test_any_damage_ends_in_a_verdict(seed: int, home: Path, tmp_path: Path):
  """Several files are damaged, and the hashes fit: whatever it is, it is judged, not a crash."""
  import random

  import race_damages

  rng = random.Random(seed)
  package = Package.read(home / 'entry.zip')
  for name in rng.sample(sorted(package.files.keys() - {manifest.FILE}), 4):
    file = tmp_path / 'file' / Path(name).name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(package.files[name])
    damage = rng.choice([one for one in race_damages.DAMAGES if one.__name__ in _ON_A_FILE])
    damage(file, rng)
    package.files[name] = file.read_bytes()
  report = report_of(package.write(tmp_path / 'entry.zip'))
  assert report.verdict in ('accepted', 'doubtful', 'refused')


_ON_A_FILE = ('flip_bytes', 'change_a_digit', 'cut', 'cut_lines', 'drop_a_line', 'nest', 'mistype')
