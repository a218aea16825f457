from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from algorithmic_efficiency import errors
from algorithmic_efficiency.data import records

ABOUT = records.About(origin='made by hand', licence='none', num_bytes=0)


def writer(root, key='a', **options):
  return records.Writer(root, dataset=root.name, about=ABOUT, inputs='nothing', key=key, **options)


@pytest.fixture
def root(tmp_path):
  """A prepared set with a field of each kind."""
  root = tmp_path / 'toys'
  out = writer(root)
  blocks = [np.arange(6).reshape(3, 2), np.arange(6, 10).reshape(2, 2)]
  out.array('train/inputs', blocks, shape=(5, 2), dtype=np.uint8)
  out.ragged('train/text', [np.arange(n) for n in (2, 0, 3, 1, 4)], dtype=np.int32)
  out.array('test/inputs', [np.empty((0, 2))], shape=(0, 2), dtype=np.float32)
  out.finish()
  return root


def test_what_was_written_is_read(root):
  prepared = records.open_prepared(root)
  np.testing.assert_array_equal(prepared.field('train/inputs'), np.arange(10).reshape(5, 2))
  assert prepared.field('train/inputs').dtype == np.uint8
  assert prepared.num_examples('train') == 5
  assert prepared.num_examples('test') == 0
  split = prepared.split('train')
  assert len(split) == 5
  np.testing.assert_array_equal(split[4]['text'], [0, 1, 2, 3])
  assert split[4]['text'].dtype == np.int32
  assert len(split[1]['text']) == 0
  np.testing.assert_array_equal(split[2]['inputs'], [4, 5])


def test_the_manifest_says_what_it_is(root):
  manifest = records.read_manifest(root)
  assert manifest['splits'] == {'train': 5, 'test': 0}
  assert (manifest['dataset'], manifest['origin']) == ('toys', 'made by hand')
  assert (manifest['licence'], manifest['inputs']) == ('none', 'nothing')
  assert sorted(manifest['files']) == sorted(
    path.name for path in root.iterdir() if path.name != 'manifest.json'
  )


def test_memory_is_mapped_read_only(root):
  inputs = records.open_prepared(root).field('train/inputs')
  assert isinstance(inputs, np.memmap)
  with pytest.raises(ValueError, match='read-only'):
    inputs[0] = 1


def test_records_are_pickled_by_place(root):
  split = records.open_prepared(root).split('train')
  data = pickle.dumps(split)
  assert len(data) < 400
  np.testing.assert_array_equal(pickle.loads(data)[0]['text'], [0, 1])


def test_opening_twice_reads_once_and_a_new_set_is_noticed(root):
  first = records.open_prepared(root)
  assert records.open_prepared(root) is first
  out = writer(root, key='b')
  out.array('train/inputs', [np.ones((1, 2))], shape=(1, 2), dtype=np.uint8)
  out.finish()
  assert records.open_prepared(root).num_examples('train') == 1


def test_a_missing_set_names_the_command(tmp_path):
  with pytest.raises(errors.UserError) as caught:
    records.open_prepared(tmp_path / 'mnist')
  assert f'algoeff data prepare mnist --data_dir {tmp_path}' in str(caught.value)


@pytest.mark.parametrize(
  'name', ['train.inputs.npy', 'train.text.bin', 'train.text.offsets.npy', 'manifest.json']
)
def test_a_flipped_byte_is_found_wherever_it_is(root, name):
  path = root / name
  content = path.read_bytes()
  for position in range(0, len(content), 3):
    path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
    with pytest.raises(errors.UserError, match=name):
      manifest = records.read_manifest(root)
      records.check_sizes(root, manifest)
      records.check_content(root, manifest)
  path.write_bytes(content)
  records.check_content(root, records.read_manifest(root))


def test_small_sets_are_compared_when_they_are_opened(root):
  path = root / 'train.inputs.npy'
  path.write_bytes(path.read_bytes()[:-1] + b'x')
  with pytest.raises(
    errors.UserError, match=r'train\.inputs\.npy has changed since .* --overwrite'
  ):
    records.open_prepared(root)


def test_small_is_what_has_128_mib_and_no_byte_more(root, monkeypatch):
  assert records._CHECKED_ON_OPENING_BYTES == 128 * 2**20
  num_bytes = sum(file['num_bytes'] for file in records.read_manifest(root)['files'].values())
  path = root / 'train.inputs.npy'
  path.write_bytes(path.read_bytes()[:-1] + b'x')
  monkeypatch.setattr(records, '_CHECKED_ON_OPENING_BYTES', num_bytes)
  with pytest.raises(errors.UserError, match='has changed since'):
    records.open_prepared(root)
  monkeypatch.setattr(records, '_CHECKED_ON_OPENING_BYTES', num_bytes - 1)
  records.open_prepared(root)


def test_large_sets_are_opened_by_their_sizes_alone(root, monkeypatch):
  monkeypatch.setattr(records, '_CHECKED_ON_OPENING_BYTES', 0)
  path = root / 'train.inputs.npy'
  content = path.read_bytes()
  path.write_bytes(content[:-1] + b'x')
  assert records.open_prepared(root).field('train/inputs')[-1, -1] == ord('x')


@pytest.mark.parametrize('damage', ['truncated', 'removed'])
def test_an_incomplete_set_is_noticed_on_opening(root, damage):
  path = root / 'train.text.bin'
  if damage == 'removed':
    path.unlink()
  else:
    path.write_bytes(path.read_bytes()[:-1])
  found = 'is missing' if damage == 'removed' else 'has 39 bytes and had 40'
  with pytest.raises(errors.UserError, match=found):
    records.open_prepared(root)


def test_a_manifest_of_another_format_is_refused(root, monkeypatch):
  monkeypatch.setattr(records, 'FORMAT', 2)
  with pytest.raises(errors.UserError, match='has format 1, and this version reads 2'):
    records.read_manifest(root)


def test_blocks_must_add_up(tmp_path):
  out = writer(tmp_path / 'toys')
  with pytest.raises(ValueError, match='2 rows were given for 3'):
    out.array('train/inputs', [np.ones((2, 2))], shape=(3, 2), dtype=np.uint8)
  with pytest.raises(ValueError, match=r'rows of \(3,\), not \(2,\)'):
    out.array('train/inputs', [np.ones((2, 3))], shape=(2, 2), dtype=np.uint8)
  assert [path.name for path in (tmp_path / 'toys').iterdir()] == []


def test_fields_of_a_split_must_have_one_length(tmp_path):
  out = writer(tmp_path / 'toys')
  out.array('train/inputs', [np.ones(2)], shape=(2,), dtype=np.uint8)
  out.array('train/targets', [np.ones(3)], shape=(3,), dtype=np.uint8)
  with pytest.raises(ValueError, match='train/targets has 3'):
    out.finish()


def test_complete_fields_survive_a_restart_with_the_same_inputs(tmp_path):
  root = tmp_path / 'toys'
  out = writer(root)
  out.array('train/inputs', [np.ones(2)], shape=(2,), dtype=np.uint8)
  assert writer(root).has('train/inputs')
  assert not writer(root).has('train/targets')
  assert not writer(root, key='b').has('train/inputs')
  (root / 'train.inputs.npy').write_bytes(b'')
  assert not writer(root).has('train/inputs')


def test_what_only_the_preparation_needed_is_removed(tmp_path):
  root = tmp_path / 'toys'
  out = writer(root)
  (out.downloads / 'raw.gz').write_bytes(b'raw')
  out.array('train/inputs', [np.ones(2)], shape=(2,), dtype=np.uint8)
  out.finish()
  assert sorted(path.name for path in root.iterdir()) == ['manifest.json', 'train.inputs.npy']
  assert json.loads((root / 'manifest.json').read_text())['splits'] == {'train': 2}


def test_files_and_passing_fields_survive_an_interruption(tmp_path):
  out = writer(tmp_path / 'toys')
  out.file('words.json', b'{}')
  out.ragged('runs-0/text', [np.arange(2), np.arange(3)], dtype=np.int32)
  out.array('runs-1/inputs', [np.arange(4)], shape=(4,), dtype=np.int32)
  out = writer(tmp_path / 'toys')
  assert out.has('words.json') and out.has('runs-0/text')
  assert out.field('runs-0/text').lengths.tolist() == [2, 3]
  np.testing.assert_array_equal(out.field('runs-0/text')[1], [0, 1, 2])
  out.array('train/inputs', [out.field('runs-1/inputs')], shape=(4,), dtype=np.int32)
  (tmp_path / 'toys' / 'runs-2.inputs.npy').write_bytes(b'left by an attempt that was killed')
  out.drop('runs')
  assert not writer(tmp_path / 'toys').has('runs-0/text')
  out.finish()
  manifest = records.read_manifest(tmp_path / 'toys')
  assert manifest['splits'] == {'train': 4}
  assert set(manifest['files']) == {'words.json', 'train.inputs.npy'}
  assert {path.name for path in (tmp_path / 'toys').iterdir()} == {
    'manifest.json',
    *manifest['files'],
  }
  (tmp_path / 'toys' / 'words.json').write_bytes(b'[]')
  with pytest.raises(errors.UserError, match=r'words\.json has changed'):
    records.open_prepared(tmp_path / 'toys')


def write_images(out, number=3):
  """Writes images of which the second is bad."""

  def images():
    for index in range(number):
      if index == 1:
        out.skip('train/images', 'b.jpg', 'is truncated')
      yield np.full(0 if index == 1 else 4, index, np.uint8)

  out.ragged('train/images', images(), dtype=np.uint8)


def test_a_bad_image_fails_unless_it_is_to_be_skipped(tmp_path):
  with pytest.raises(errors.UserError, match=r'b\.jpg is truncated\. .*--on_bad_image skip'):
    write_images(writer(tmp_path / 'toys'))
  out = writer(tmp_path / 'others', on_bad_image='skip')
  write_images(out)
  out.finish()
  prepared = records.open_prepared(tmp_path / 'others')
  assert prepared.skipped == {'train/images': 1}
  assert prepared.manifest['fields']['train/images']['skipped'] == ['b.jpg is truncated']
  assert prepared.field('train/images').lengths.tolist() == [4, 0, 4]


def test_an_attempt_that_failed_counts_no_skipped_image_twice(tmp_path):
  out = writer(tmp_path / 'toys', on_bad_image='skip')
  with pytest.raises(ValueError, match='one dimension'):
    out.ragged('train/images', broken_after_a_skip(out), dtype=np.uint8)
  write_images(out)
  out.finish()
  assert records.open_prepared(tmp_path / 'toys').skipped == {'train/images': 1}


def test_what_is_left_out_is_counted_in_the_manifest_also_after_a_break(tmp_path):
  out = writer(tmp_path / 'toys')
  out.leave_out('train/images', 'tiny images', 3)
  out.leave_out('train/images', 'large images', 0)
  out.ragged('train/images', [np.zeros(2, np.uint8)], dtype=np.uint8)
  again = writer(tmp_path / 'toys')
  assert again.has('train/images')
  again.finish()
  assert records.open_prepared(tmp_path / 'toys').left_out == {'train/images': {'tiny images': 3}}


def broken_after_a_skip(out):
  out.skip('train/images', 'b.jpg', 'is truncated')
  yield np.zeros((2, 2), np.uint8)


@pytest.mark.parametrize(('then', 'is_kept'), [('skip', True), ('fail', False)])
def test_fields_that_lack_images_are_kept_only_by_a_command_that_may_skip(tmp_path, then, is_kept):
  write_images(writer(tmp_path / 'toys', on_bad_image='skip'))
  assert writer(tmp_path / 'toys', on_bad_image=then).has('train/images') == is_kept
