"""CIFAR-10 in small: each form of its files, what is refused, and its batches."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

if any(importlib.util.find_spec(name) is None for name in ('cv2', 'PIL', 'pyarrow')):
  pytest.skip('OpenCV, Pillow or pyarrow is not installed', allow_module_level=True)

import small_cifar

from algorithmic_efficiency import errors
from algorithmic_efficiency.data import prepare as preparing
from algorithmic_efficiency.data import random_numbers, streams, tfds
from workloads.vision import cifar_files, resampling, small_photographs_data
from workloads.vision.photographs import CIFAR10, CIFAR10_JPEG

DEFINITION = small_cifar.definition()
FORMS = ('python', 'binary', 'parquet', 'python.tar.gz', 'binary.tar.gz')


def prepared_from(source, data_dir, definition=DEFINITION):
  return preparing.prepare(
    definition,
    data_dir,
    source=source,
    from_tfds=False,
    overwrite=False,
    progress=lambda *_: None,
  )


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  folder = tmp_path_factory.mktemp('cifar')
  return prepared_from(small_cifar.write(folder / 'raw', 'binary'), folder)


@pytest.mark.parametrize('form', FORMS)
def test_every_form_gives_the_same_set(form, prepared, tmp_path):
  found = prepared_from(small_cifar.write(tmp_path / 'raw', form), tmp_path)
  assert found.manifest['files'] == prepared.manifest['files']
  images, labels = small_cifar.arrays('train')
  np.testing.assert_array_equal(found.field('train/inputs'), images[:50])
  np.testing.assert_array_equal(found.field('validation/inputs'), images[50:])
  np.testing.assert_array_equal(found.field('validation/targets'), labels[50:])
  np.testing.assert_array_equal(found.field('test/inputs'), small_cifar.arrays('test').images)


def test_the_archive_itself_and_a_folder_of_batches_are_sources_too(prepared, tmp_path):
  source = small_cifar.write(tmp_path / 'raw', 'python.tar.gz')
  found = prepared_from(source / 'cifar-10-python.tar.gz', tmp_path / 'one')
  assert found.manifest['files'] == prepared.manifest['files']
  source = small_cifar.write(tmp_path / 'unpacked', 'python') / 'cifar-10-batches-py'
  found = prepared_from(source, tmp_path / 'two')
  assert found.manifest['files'] == prepared.manifest['files']


@pytest.mark.parametrize('protocol', range(5))
def test_pickles_of_every_protocol_are_read(protocol):
  part = small_cifar.parts()['data_batch_1']
  found = cifar_files._pickled(small_cifar.pickled(part, protocol))
  np.testing.assert_array_equal(found.images, part.images)
  np.testing.assert_array_equal(found.labels, part.labels)


class Attack:
  """A pickle that would run a command."""

  def __init__(self, path):
    self._path = path

  def __reduce__(self):
    return os.system, (f'touch {self._path}',)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
  source = small_cifar.write(tmp_path / 'raw', 'python')
  trace = tmp_path / 'ran'
  path = source / 'cifar-10-batches-py' / 'data_batch_2'
  path.write_bytes(pickle.dumps({b'data': Attack(trace), b'labels': []}))
  with pytest.raises(errors.UserError, match=r'data_batch_2 is not .* refers to \w+\.system'):
    prepared_from(source, tmp_path)
  assert not trace.exists()


@pytest.mark.parametrize(
  ('content', 'said'),
  [
    ([1, 2], 'holds list, not a dict'),
    ({b'labels': [1]}, 'has no data'),
    ({b'data': np.zeros((2, 3072)), b'labels': [1, 2]}, r'data are float64\[2, 3072\]'),
    ({b'data': np.zeros((2, 5), np.uint8), b'labels': [1, 2]}, r'data are uint8\[2, 5\]'),
    ({b'data': np.zeros((2, 3072), np.uint8), b'labels': [1]}, r'labels are int64\[1\]'),
    ({b'data': np.zeros((1, 3072), np.uint8), b'labels': ['cat']}, 'labels are <U3'),
  ],
)
def test_a_pickle_of_another_content_is_named(content, said, tmp_path):
  source = small_cifar.write(tmp_path / 'raw', 'python')
  (source / 'cifar-10-batches-py' / 'test_batch').write_bytes(pickle.dumps(content))
  with pytest.raises(errors.UserError, match=f'test_batch .*{said}'):
    prepared_from(source, tmp_path)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('left', [0.0, 0.4, 0.9])
def test_a_cut_file_is_named(form, left, tmp_path):
  source = small_cifar.write(tmp_path / 'raw', form)
  path = sorted(path for path in source.rglob('*') if path.is_file())[0]
  content = path.read_bytes()
  path.write_bytes(content[: int(len(content) * left)])
  with pytest.raises(errors.UserError, match=f'{path.name}.*Fetch it again'):
    prepared_from(source, tmp_path)


def test_a_missing_file_is_named(tmp_path):
  source = small_cifar.write(tmp_path / 'raw', 'binary')
  (source / 'cifar-10-batches-bin' / 'data_batch_3.bin').unlink()
  with pytest.raises(errors.UserError, match=r'data_batch_3\.bin cannot be read: No such file'):
    prepared_from(source, tmp_path)
  shutil.rmtree(source / 'cifar-10-batches-bin')
  with pytest.raises(errors.UserError, match='There is none of these'):
    prepared_from(source, tmp_path)


def test_a_bad_image_in_parquet_is_named_by_its_row(tmp_path):
  import pyarrow
  import pyarrow.parquet

  source = small_cifar.write(tmp_path / 'raw', 'parquet')
  path = source / 'test-00000-of-00001.parquet'
  table = pyarrow.parquet.read_table(path).to_pydict()
  table['img'][7]['bytes'] = b'no image'
  pyarrow.parquet.write_table(pyarrow.table(table), path)
  with pytest.raises(errors.UserError, match='row 7, cannot be decoded'):
    prepared_from(source, tmp_path)


def test_another_set_is_refused_and_named(tmp_path, monkeypatch):
  source = small_cifar.write(tmp_path / 'raw', 'binary')
  original = dataclasses.replace(DEFINITION, data=CIFAR10)
  with pytest.raises(
    errors.UserError, match=r'must be CIFAR-10 as A\. Krizhevsky .* SHA-1 of batch 0'
  ):
    prepared_from(source, tmp_path, original)
  known = {CIFAR10: 'the original', DEFINITION.data: 'the small set'}
  monkeypatch.setattr(small_photographs_data, '_KNOWN', known)
  with pytest.raises(errors.UserError, match=r'must be the original.* files are the small set'):
    prepared_from(source, tmp_path, original)


def test_one_changed_pixel_makes_another_set(tmp_path):
  source = small_cifar.write(tmp_path / 'raw', 'binary')
  path = source / 'cifar-10-batches-bin' / 'test_batch.bin'
  content = bytearray(path.read_bytes())
  content[5000] ^= 1
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match='SHA-1 of batch 0 of the test images'):
    prepared_from(source, tmp_path)


def test_only_the_original_is_downloaded(tmp_path):
  with pytest.raises(errors.UserError, match='cannot be downloaded: name its folder'):
    prepared_from(None, tmp_path)


def test_a_prepared_set_of_another_definition_is_refused(prepared):
  other = dataclasses.replace(DEFINITION, data=CIFAR10_JPEG)
  with pytest.raises(errors.UserError, match=r'defined on other images, by their hashes'):
    stream(other, prepared.root)


class FakeBuilder(tfds.Builder):
  """A builder that shuffles, as TensorFlow Datasets does, and numbers the images."""

  def __init__(self):
    pass

  def stacked(self, split, names, progress):
    images, labels = small_cifar.arrays(split)
    order = np.random.default_rng(3).permutation(len(images))
    ids = np.array([f'{split}_{index:05}'.encode() for index in order])
    return {'image': images[order], 'label': labels[order].astype(np.int64), 'id': ids}


def test_tensorflow_datasets_are_put_back_in_order(prepared, tmp_path):
  from algorithmic_efficiency.data import records

  out = records.Writer(
    tmp_path / 'cifar10',
    dataset='cifar10',
    about=small_photographs_data.about(DEFINITION),
    inputs='a builder',
    key='',
  )
  small_photographs_data.prepare(DEFINITION, FakeBuilder(), out, lambda *_: None)
  out.finish()
  found = records.read_manifest(tmp_path / 'cifar10')
  assert found['files'] == prepared.manifest['files']


@pytest.mark.data
@pytest.mark.long
def test_the_shared_set_is_the_one_coded_as_jpeg(test_data, tmp_path):
  definition = dataclasses.replace(DEFINITION, data=CIFAR10_JPEG)
  for group, hashes in (
    ('train', CIFAR10_JPEG.batch_sha1s[:5]),
    ('test', CIFAR10_JPEG.batch_sha1s[5:]),
  ):
    found = cifar_files.read(test_data / 'cifar10', group, lambda *_: None)
    number = len(found.images)
    small_photographs_data._check(definition, group, found, number, hashes)
  with pytest.raises(errors.UserError, match='The files are CIFAR-10 coded as JPEG'):
    small_photographs_data._check(
      dataclasses.replace(DEFINITION, data=CIFAR10), 'test', found, number, CIFAR10.batch_sha1s[5:]
    )


# Batches.


def stream(definition, root, batch_size=8, **options):
  return streams.train_stream(small_photographs_data, definition, root, batch_size, 3, **options)


def test_batches_have_the_form_of_generated_ones(prepared):
  forms = [
    {name: (array.shape, array.dtype) for name, array in next(stream(DEFINITION, root)).items()}
    for root in (prepared.root, None)
  ]
  assert forms[0] == forms[1]


def test_crops_are_those_of_a_plain_twin():
  """The first numbers choose row and column, the third flips; the border is black."""
  random = np.random.default_rng(0)
  images = random.integers(1, 256, size=(200, 8, 6, 3), dtype=np.uint8)
  draws = random.random((200, 3))
  found = resampling.padded_crops(images, draws, 4)
  offsets = set()
  for image, (row, column, flip), crop in zip(images, draws, found, strict=True):
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    top, left = int(row * 9), int(column * 9)
    offsets.add((top, left))
    expected = padded[top : top + 8, left : left + 6]
    np.testing.assert_array_equal(crop, expected[:, ::-1] if flip < 0.5 else expected)
  assert {top for top, _ in offsets} == {left for _, left in offsets} == set(range(9))


def test_training_batches_are_cropped_flipped_and_normalized(prepared):
  batch = next(stream(DEFINITION, prepared.root))
  seen = []

  def load(rows):
    seen.append(rows)
    return {'inputs': np.zeros(rows.num_rows)}

  data = SimpleNamespace(loader=lambda *_: load)
  next(streams.train_stream(data, DEFINITION, prepared.root, 8, 3))
  [rows] = seen
  images = prepared.field('train/inputs')[rows.indices]
  draws = random_numbers.draws(rows.keys, 3)
  cropped = resampling.padded_crops(images, draws, 4)
  expected = (cropped - np.array(DEFINITION.train_mean)) / DEFINITION.train_stddev
  np.testing.assert_allclose(batch['inputs'], expected, atol=1e-5)
  np.testing.assert_array_equal(batch['targets'], prepared.field('train/targets')[rows.indices])


def test_evaluation_has_whole_images(prepared):
  for split, stored in (('eval_train', 'train'), ('validation', 'validation'), ('test', 'test')):
    batch = next(streams.eval_stream(small_photographs_data, DEFINITION, prepared.root, split, 10))
    images = prepared.field(f'{stored}/inputs')[:10]
    expected = (images - np.array(DEFINITION.train_mean)) / DEFINITION.train_stddev
    np.testing.assert_allclose(batch['inputs'], expected, atol=1e-5)


# Of AlgoPerf, whose pipelines in both frameworks take pixels to the range from 0 to 1 first.
ALGOPERF_MEAN = (0.49139968, 0.48215827, 0.44653124)
ALGOPERF_STDDEV = (0.24703233, 0.24348505, 0.26158768)


def test_inputs_are_those_of_algoperf(prepared):
  batch = next(streams.eval_stream(small_photographs_data, DEFINITION, prepared.root, 'test', 10))
  scaled = prepared.field('test/inputs')[:10] / 255
  expected = (scaled - np.array(ALGOPERF_MEAN)) / ALGOPERF_STDDEV
  np.testing.assert_allclose(batch['inputs'], expected, atol=1e-5)


def test_pixels_are_the_same_in_shards_and_after_a_restart(prepared):
  whole = stream(DEFINITION, prepared.root)
  batches = [next(whole) for _ in range(9)]  # an epoch has 6.25 batches
  halves = [stream(DEFINITION, prepared.root, shard=(index, 2)) for index in range(2)]
  resumed = stream(DEFINITION, prepared.root)
  for number, batch in enumerate(batches):
    parts = [next(half) for half in halves]
    for name in batch:
      np.testing.assert_array_equal(np.concatenate([one[name] for one in parts]), batch[name])
    if number == 3:
      state = whole.state() | {'num_batches': 4}
      resumed.restore(state)
    if number > 3:
      again = next(resumed)
      np.testing.assert_array_equal(again['inputs'], batch['inputs'])
  assert not np.array_equal(batches[0]['inputs'], batches[1]['inputs'])


def test_a_loader_is_pickled_as_its_path(prepared):
  loader = small_photographs_data.loader(DEFINITION, prepared.root, 'train')
  assert len(pickle.dumps(loader)) < 20_000 < prepared.num_bytes


@pytest.mark.long
@pytest.mark.parametrize('num_workers', [1, 4])
def test_pixels_are_the_same_for_any_number_of_workers(num_workers, prepared):
  alone = stream(DEFINITION, prepared.root)
  several = stream(DEFINITION, prepared.root, num_workers=num_workers)
  for _ in range(8):
    np.testing.assert_array_equal(next(several)['inputs'], next(alone)['inputs'])
  several.close()
