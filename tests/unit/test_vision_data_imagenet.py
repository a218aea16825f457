"""ImageNet in small: from folders and archives of images of odd kinds to batches."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import shutil
import tarfile
import warnings

import numpy as np
import pytest

if any(importlib.util.find_spec(name) is None for name in ('cv2', 'PIL', 'simplejpeg')):
  pytest.skip('OpenCV, Pillow or simplejpeg is not installed', allow_module_level=True)

import simplejpeg
import small_imagenet
import tf_record_files
from PIL import Image, PngImagePlugin

from algorithmic_efficiency import cli, errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.data import prepare as preparing
from algorithmic_efficiency.data import records, streams
from workloads.vision import image_checks, image_files, photographs_data, pixels, resampling

DEFINITION = small_imagenet.definition()
TFDS = {'imagenet': 'imagenet2012:5.1.0', 'imagenet_v2': 'imagenet_v2/matched-frequency:3.0.0'}
VIT = small_imagenet.definition(
  dataclasses.replace(DEFINITION.data, randaugment_layers=2, mixup_alpha=0.2)
)


def prepared_from(source, data_dir, *, definition=DEFINITION, from_tfds=False, **options):
  return preparing.prepare(
    definition,
    data_dir,
    source=source,
    from_tfds=from_tfds,
    overwrite=False,
    progress=lambda *_: None,
    **options,
  )


@pytest.fixture(autouse=True)
def known(monkeypatch):
  """Makes the registry know the small set."""
  workloads = {**registry.workloads(), 'imagenet_resnet': DEFINITION}
  monkeypatch.setattr(registry, 'workloads', lambda: workloads)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  return small_imagenet.write(tmp_path_factory.mktemp('raw'))


@pytest.fixture(scope='module')
def prepared(source, tmp_path_factory):
  return prepared_from(source, tmp_path_factory.mktemp('prepared'))


@pytest.fixture
def broken(source, tmp_path):
  """A copy of the folders, to be damaged."""
  return shutil.copytree(source, tmp_path / 'broken')


def files_of(prepared):
  return {name: file['sha256'] for name, file in prepared.manifest['files'].items()}


def test_every_image_is_stored_with_its_label_and_size(source, prepared):
  for split, folder in small_imagenet.FOLDERS.items():
    files = sorted((source / folder).glob('*/*'))
    names = sorted({path.parent.name for path in files})
    images, sizes = prepared.field(f'{split}/images'), prepared.field(f'{split}/sizes')
    targets = prepared.field(f'{split}/targets')
    assert len(files) == len(images) == len(targets)
    for index, path in enumerate(files):
      with Image.open(path) as image:
        size = image.size[::-1]
      assert tuple(sizes[index]) == size
      assert pixels.decode(images[index]).shape == (*size, 3)
      assert names[targets[index]] == path.parent.name


def test_archives_give_the_same_set_as_folders(prepared, tmp_path):
  archives = small_imagenet.write_archives(tmp_path / 'archives')
  found = prepared_from(archives, tmp_path)
  assert files_of(found) == files_of(prepared)
  assert not (tmp_path / 'imagenet' / 'downloads').exists()


@pytest.mark.parametrize('kind', small_imagenet.kinds(np.random.default_rng(0)))
def test_each_kind_is_stored_without_loss(kind):
  content = small_imagenet.kinds(np.random.default_rng(0))[kind]
  stored = image_checks.checked(content)
  with Image.open(io.BytesIO(content)) as image:
    if kind == '16 bits':
      expected = np.repeat((np.asarray(image) >> 8)[..., None], 3, axis=2)
    else:
      expected = np.asarray(image.convert('RGB'))  # without EXIF orientation
  np.testing.assert_array_equal(pixels.decode(np.frombuffer(stored.encoded, np.uint8)), expected)
  assert (stored.height, stored.width) == expected.shape[:2]
  is_plain = kind not in ('cmyk', 'png', 'palette', 'alpha', '16 bits')
  assert stored.encoded == content if is_plain else stored.encoded.startswith(b'\x89PNG')


def test_pixels_of_more_than_16_bits_are_refused():
  file = io.BytesIO()
  Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(file, 'TIFF')
  with pytest.raises(pixels.BadImage, match='more than 16 bits'):
    image_checks.checked(file.getvalue())


@pytest.mark.parametrize('error', [EOFError, RuntimeError, KeyError, TypeError])
def test_whatever_a_decoder_raises_the_image_is_bad(error, monkeypatch):
  def load(self):
    raise error('of a plugin')

  monkeypatch.setattr(PngImagePlugin.PngImageFile, 'load', load)
  content = small_imagenet.kinds(np.random.default_rng(0))['palette']
  assert content.startswith(b'\x89PNG')
  with pytest.raises(pixels.BadImage, match=r'cannot be decoded .*of a plugin'):
    image_checks.checked(content)


def test_a_jpeg_of_a_kind_that_simplejpeg_does_not_read_is_left_to_pillow(monkeypatch):
  def decode_jpeg(content, strict):
    raise ValueError('Could not determine subsampling level of JPEG image')

  monkeypatch.setattr(simplejpeg, 'decode_jpeg', decode_jpeg)
  good = small_imagenet.kinds(np.random.default_rng(0))['plain']
  assert image_checks.checked(good) == (good, 60, 80)
  bad = small_imagenet.bad_kinds(np.random.default_rng(0))['truncated']
  with pytest.raises(pixels.BadImage, match=r'cannot be decoded .*truncated'):
    image_checks.checked(bad)


def test_checks_in_threads_leave_the_filters_of_warnings(monkeypatch):
  """Regression: each set and restored them, so that the last of two kept those of the first."""
  before, seen = warnings.filters, []
  opened = Image.open
  monkeypatch.setattr(Image, 'open', lambda file: seen.append(warnings.filters) or opened(file))
  image_checks.checked(small_imagenet.kinds(np.random.default_rng(0))['bad exif'])
  assert seen and all(one is before for one in seen)


def test_preparation_shows_no_warnings_of_damaged_metadata(source, tmp_path, recwarn):
  content = small_imagenet.kinds(np.random.default_rng(0))['bad exif']
  with pytest.warns(UserWarning, match='Corrupt EXIF data'):
    image_checks.checked(content)
  assert content in [path.read_bytes() for path in (source / 'train').glob('*/*')]
  prepared_from(source, tmp_path)
  assert not [one for one in recwarn if 'EXIF' in str(one.message)]


@pytest.mark.parametrize('scale', [1, 2, 4])
def test_an_image_of_another_size_than_when_prepared_is_refused(scale):
  size = 16
  file = io.BytesIO()
  Image.fromarray(np.zeros((size * scale, size * scale, 3), np.uint8)).save(file, 'JPEG')
  encoded = np.frombuffer(file.getvalue(), np.uint8)
  box = resampling.Box(0, 0, size * scale, size * scale)
  same = resampling.decoded_crop(encoded, size * scale, size * scale, box, size)
  assert same.shape == (size, size, 3)
  with pytest.raises(pixels.BadImage, match='when prepared'):
    resampling.decoded_crop(encoded, size * scale + 8, size * scale, box, size)


@pytest.mark.parametrize('kind', small_imagenet.bad_kinds(np.random.default_rng(0)))
def test_a_bad_image_is_named_or_left_out(kind, broken, tmp_path):
  content = small_imagenet.bad_kinds(np.random.default_rng(0))[kind]
  [path] = (broken / 'train').glob('*/*_017.JPEG')
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match=f'{path.name} .*--on_bad_image skip'):
    prepared_from(broken, tmp_path)
  found = prepared_from(broken, tmp_path, on_bad_image='skip')
  assert found.skipped == {'train/images': 1}
  [entry] = found.manifest['fields']['train/images']['skipped']
  assert entry.startswith(str(path))
  assert found.num_examples('train') == DEFINITION.splits.train
  # Image 17 is the last of its class, and image 16 stands in for it.
  examples = photographs_data.source(DEFINITION, found.root, 'train')
  numbers = examples._numbers.tolist()
  assert 17 not in numbers and numbers.count(16) == 2


def test_a_class_without_a_good_image_is_named(broken, tmp_path):
  for path in (broken / 'val' / small_imagenet.CLASSES[1]).iterdir():
    path.write_bytes(b'')
  with pytest.raises(errors.UserError, match='class 1 has none'):
    prepared_from(broken, tmp_path, on_bad_image='skip')


def test_what_was_left_out_is_not_kept_by_a_command_that_should_fail(broken, tmp_path):
  [path] = (broken / 'train').glob('*/*_017.JPEG')
  path.write_bytes(b'')
  shutil.rmtree(broken / 'val')
  with pytest.raises(errors.UserError, match='images of validation'):
    prepared_from(broken, tmp_path, on_bad_image='skip')
  small_imagenet.write(tmp_path / 'whole')
  shutil.copytree(tmp_path / 'whole' / 'val', broken / 'val')
  with pytest.raises(errors.UserError, match='_017'):
    prepared_from(broken, tmp_path)


def remove_class(source):
  shutil.rmtree(source / 'train' / small_imagenet.CLASSES[2])


def add_class(source):
  (source / 'val' / 'n99999999').mkdir()


def add_image(source):
  [path] = (source / 'train').glob('*/*_017.JPEG')
  shutil.copy(path, path.with_name('more.JPEG'))


def remove_test(source):
  shutil.rmtree(source / small_imagenet.FOLDERS['test'])


def remove_validation(source):
  shutil.rmtree(source / 'val')
  small_imagenet.write_archives(source / 'archives')
  shutil.move(source / 'archives' / 'ILSVRC2012_img_val.tar', source)


@pytest.mark.parametrize(
  ('damage', 'said'),
  [
    (remove_class, f'train must hold the 5 classes .* is without {small_imagenet.CLASSES[2]}'),
    (add_class, 'val must hold the 5 classes .* has beside them n99999999'),
    (add_image, 'needs 30 images in train; there are 31'),
    (remove_test, 'folder imagenetv2-matched-frequency-format-val or in imagenetv2-matched'),
    (remove_validation, 'labels of the validation images are in ILSVRC2012_devkit_t12.tar.gz'),
  ],
)
def test_what_is_missing_or_too_much_is_named(damage, said, broken, tmp_path):
  damage(broken)
  with pytest.raises(errors.UserError, match=said):
    prepared_from(broken, tmp_path)


ARCHIVES = (
  'ILSVRC2012_img_train.tar',
  'ILSVRC2012_img_val.tar',
  'ILSVRC2012_devkit_t12.tar.gz',
  'imagenetv2-matched-frequency.tar.gz',
)


@pytest.fixture(scope='module')
def archives(tmp_path_factory):
  return small_imagenet.write_archives(tmp_path_factory.mktemp('tars') / 'archives')


@pytest.mark.parametrize('name', ARCHIVES)
@pytest.mark.parametrize('left', [0.1, 0.3, 0.6])
def test_a_cut_archive_is_named(name, left, archives, tmp_path):
  source = shutil.copytree(archives, tmp_path / 'cut')
  content = (source / name).read_bytes()
  (source / name).write_bytes(content[: int(len(content) * left)])
  with pytest.raises(errors.UserError, match=f'{name}.*(truncated|must hold)'):
    prepared_from(source, tmp_path)


def test_a_cut_archive_within_an_archive_is_named(archives, tmp_path):
  """Its last image would go on into the archive of the next class."""
  source = shutil.copytree(archives, tmp_path / 'cut')
  path = source / 'ILSVRC2012_img_train.tar'
  with tarfile.open(path) as outer:
    inner = {one.name: outer.extractfile(one).read() for one in outer}
  first = min(inner)
  with tarfile.open(fileobj=io.BytesIO(inner[first])) as whole:
    last = whole.getmembers()[-1]
  inner[first] = inner[first][: last.offset_data + last.size // 2]
  path.write_bytes(small_imagenet.tar(inner))
  with pytest.raises(errors.UserError, match=f'{first}: {last.name} is not complete'):
    prepared_from(source, tmp_path)


@pytest.mark.parametrize('name', ARCHIVES)
def test_another_archive_is_named(name, archives, tmp_path):
  source = shutil.copytree(archives, tmp_path / 'other')
  mode = 'w:gz' if name.endswith('gz') else 'w'
  (source / name).write_bytes(small_imagenet.tar({'notes.txt': b'nothing'}, mode=mode))
  with pytest.raises(errors.UserError, match=name):
    prepared_from(source, tmp_path)


@pytest.mark.parametrize('name', ARCHIVES)
@pytest.mark.parametrize('content', [b'', b'no archive' * 100], ids=['empty', 'text'])
def test_what_is_no_archive_is_named_in_one_line(name, content, archives, tmp_path):
  """Regression: of an empty archive of ImageNet-v2, a file of the preparation was named."""
  source = shutil.copytree(archives, tmp_path / 'other')
  (source / name).write_bytes(content)
  with pytest.raises(errors.UserError, match=f'^{source / name} is truncated, or .*again.$'):
    prepared_from(source, tmp_path)


def test_a_bad_image_in_a_compressed_archive_is_named_with_that_archive(archives, tmp_path):
  """Regression: the decompressed archive was named, which is gone after the preparation."""
  source = shutil.copytree(archives, tmp_path / 'other')
  path = source / 'imagenetv2-matched-frequency.tar.gz'
  with tarfile.open(path) as tar:
    files = {one.name: tar.extractfile(one).read() for one in tar}
  first = min(files)
  path.write_bytes(small_imagenet.tar({**files, first: b'no image'}, mode='w:gz'))
  with pytest.raises(errors.UserError, match=f'^{path}, {first} is no image'):
    prepared_from(source, tmp_path)


@pytest.mark.parametrize(
  'content', [b'', b'no table', bytes(200), b'MATLAB 5.0 MAT-file' + bytes(300)]
)
def test_a_development_kit_with_a_damaged_table_is_named(content, archives, tmp_path):
  source = shutil.copytree(archives, tmp_path / 'kit')
  top = 'ILSVRC2012_devkit_t12/data'
  files = {f'{top}/meta.mat': content, f'{top}/ILSVRC2012_validation_ground_truth.txt': b'1\n'}
  kit = source / 'ILSVRC2012_devkit_t12.tar.gz'
  kit.write_bytes(small_imagenet.tar(files, mode='w:gz'))
  with pytest.raises(errors.UserError, match='is not the development kit of ImageNet 2012'):
    prepared_from(source, tmp_path)


def test_without_a_source_the_message_says_where_to_get_it(tmp_path):
  with pytest.raises(errors.UserError, match='without registration: name its folder'):
    prepared_from(None, tmp_path)


def test_the_command_says_what_was_left_out(broken, tmp_path, capsys):
  [path] = (broken / 'train').glob('*/*_003.JPEG')
  path.write_bytes(b'no image')
  line = ['data', 'prepare', 'imagenet', '--source', str(broken), '--data_dir', str(tmp_path)]
  assert cli.main(line) == 2
  assert f'{path} is no image.' in capsys.readouterr().err
  assert cli.main([*line, '--on_bad_image', 'skip']) == 0
  assert 'Left out of train: 1 images' in capsys.readouterr().out


# Written by a process of its own, so that the reading one knows the builders from their files.
BUILDERS = """
  import io
  import sys
  import small_imagenet
  import tensorflow_datasets as tfds

  class Base(tfds.core.GeneratorBasedBuilder):
    def _info(self):
      features = {
        'image': tfds.features.Image(encoding_format='jpeg'),
        'label': tfds.features.ClassLabel(num_classes=5),
      }
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
      return {split: self._generate_examples(split) for split in self.SPLITS}

    def _generate_examples(self, split):
      images = small_imagenet.images(split)
      names = sorted({name.split('/')[0] for name in images})
      for name, content in images.items():
        yield name, {'image': io.BytesIO(content), 'label': names.index(name.split('/')[0])}

  class Imagenet2012(Base):
    VERSION = tfds.core.Version('5.1.0')
    SPLITS = ('train', 'validation')

  class ImagenetV2(Base):
    VERSION = tfds.core.Version('3.0.0')
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name='matched-frequency')]
    SPLITS = ('test',)

  for builder in (Imagenet2012, ImagenetV2):
    builder(data_dir=sys.argv[1]).download_and_prepare(file_format='array_record')
"""


VERSIONS = ('imagenet2012/5.1.0', 'imagenet_v2/matched-frequency/3.0.0')


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  """A data folder of TensorFlow Datasets, in the format array_record."""
  return tf_record_files.prepared(BUILDERS, tmp_path_factory.mktemp('tfds'))


def in_tf_records(built, folder):
  for version in VERSIONS:
    tf_record_files.as_tf_records(built / version, folder / version)
  return folder


def encoded_images(prepared, split):
  images, targets = (prepared.field(f'{split}/{name}') for name in ('images', 'targets'))
  return [(bytes(image), int(target)) for image, target in zip(images, targets, strict=True)]


@pytest.mark.slow
def test_tensorflow_datasets_give_the_encoded_images_in_either_format(built, prepared, tmp_path):
  """AlgoPerf's users hold TFRecord files, which the library writes by default."""
  definition = dataclasses.replace(DEFINITION, tfds=TFDS)
  found = prepared_from(built, tmp_path / 'a', definition=definition, from_tfds=True)
  assert 'imagenet2012 5.1.0, imagenet_v2 3.0.0' in found.manifest['inputs']
  for split in small_imagenet.FOLDERS:
    assert sorted(encoded_images(found, split)) == sorted(encoded_images(prepared, split))
  folder = in_tf_records(built, tmp_path / 'tfrecord')
  again = prepared_from(folder, tmp_path / 'b', definition=definition, from_tfds=True)
  assert again.manifest == found.manifest
  folders = {
    name: folder / version for name, version in zip(definition.tfds, VERSIONS, strict=True)
  }
  again = prepared_from(folders, tmp_path / 'c', definition=definition, from_tfds=True)
  assert again.manifest == found.manifest


@pytest.mark.slow
def test_a_damaged_file_of_tensorflow_datasets_is_named(built, tmp_path):
  definition = dataclasses.replace(DEFINITION, tfds=TFDS)
  folder = in_tf_records(built, tmp_path / 'tfrecord')
  [path] = (folder / VERSIONS[0]).glob('*train*tfrecord*')
  path.write_bytes(path.read_bytes()[:-5])
  with pytest.raises(errors.UserError, match=f'{path.name} is truncated, damaged'):
    prepared_from(folder, tmp_path, definition=definition, from_tfds=True)


# Batches.


def stream(definition, root, **options):
  return streams.train_stream(photographs_data, definition, root, 8, 3, **options)


def assert_equal(one, other):
  assert one.keys() == other.keys()
  for name in one:
    np.testing.assert_array_equal(one[name], other[name])


def test_batches_have_the_form_of_generated_ones(prepared):
  for definition in (DEFINITION, VIT):
    batch = next(stream(definition, prepared.root))
    generated = next(stream(definition, None))
    assert {name: (a.shape, a.dtype) for name, a in batch.items()} == {
      name: (a.shape, a.dtype) for name, a in generated.items()
    }
    is_mixed = definition is VIT
    assert batch['targets'].shape == ((8, 5) if is_mixed else (8,))
  evaluation = next(streams.eval_stream(photographs_data, VIT, prepared.root, 'validation', 8))
  assert evaluation['targets'].dtype == np.int32


@pytest.mark.parametrize('definition', [DEFINITION, VIT], ids=['resnet', 'vit'])
def test_pixels_are_the_same_in_shards_and_after_a_restart(definition, prepared):
  whole = stream(definition, prepared.root)
  batches = [next(whole) for _ in range(6)]  # an epoch has 3.75 batches
  halves = [stream(definition, prepared.root, shard=(index, 2)) for index in range(2)]
  for batch in batches:
    parts = [next(half) for half in halves]
    assert_equal({name: np.concatenate([one[name] for one in parts]) for name in batch}, batch)
  again = stream(definition, prepared.root)
  for _ in range(2):
    next(again)
  state = again.state()
  resumed = stream(definition, prepared.root)
  resumed.restore(state)
  for batch in batches[2:]:
    assert_equal(next(resumed), batch)


@pytest.mark.slow
@pytest.mark.parametrize('num_workers', [1, 4])
def test_pixels_are_the_same_for_any_number_of_workers(num_workers, prepared):
  alone = stream(VIT, prepared.root)
  several = stream(VIT, prepared.root, num_workers=num_workers)
  for _ in range(6):
    assert_equal(next(several), next(alone))
  state = several.state()
  several.close()
  resumed = stream(VIT, prepared.root, num_workers=num_workers)
  resumed.restore(state)
  for _ in range(3):
    assert_equal(next(resumed), next(alone))
  resumed.close()


def test_epochs_have_other_crops_of_the_same_images(prepared):
  batches = stream(DEFINITION, prepared.root)
  seen = [next(batches) for _ in range(8)]
  inputs = np.concatenate([batch['inputs'] for batch in seen])[:60]
  targets = np.concatenate([batch['targets'] for batch in seen])[:60]
  assert sorted(targets[:30]) == sorted(targets[30:])
  # Without augmentation each image would come twice. One of a pixel does, and a narrow one may.
  assert len(np.unique(inputs.reshape(60, -1), axis=0)) >= 58


def test_training_is_evaluated_on_a_mixed_part_of_it(prepared):
  """The images are stored by class, and the first ones are of one class."""
  stored = prepared.field('train/targets')[: DEFINITION.splits.eval_train]
  assert len(np.unique(stored)) == 2
  found = photographs_data.source(DEFINITION, prepared.root, 'train')
  labels = [int(found[index]['target']) for index in range(DEFINITION.splits.eval_train)]
  assert len(set(labels)) >= 4


def test_evaluation_normalizes_the_center(prepared):
  definition = DEFINITION
  batch = next(streams.eval_stream(photographs_data, definition, prepared.root, 'validation', 10))
  image = pixels.decode(prepared.field('validation/images')[0])
  side = int(min(image.shape[:2]) * 32 / 36)
  top, left = ((size - side + 1) // 2 for size in image.shape[:2])
  center = Image.fromarray(image[top : top + side, left : left + side])
  resized = np.asarray(center.resize((32, 32), Image.Resampling.BILINEAR), np.float64)
  expected = (resized - definition.train_mean) / definition.train_stddev
  difference = np.abs(batch['inputs'][0] - expected).mean()
  assert difference < 0.03, 'in standard deviations: about 2 of 256 values'


def test_the_list_of_classes_is_that_of_wordnet_numbers():
  names = image_files.classes(1000)
  assert len(set(names)) == 1000 and list(names) == sorted(names)
  assert all(name[0] == 'n' and name[1:].isdigit() and len(name) == 9 for name in names)


def test_a_prepared_set_of_another_size_is_refused(prepared):
  other = small_imagenet.definition(splits=dataclasses.replace(DEFINITION.splits, train=29))
  with pytest.raises(errors.UserError, match='must hold 29 examples'):
    stream(other, prepared.root)


def test_records_are_verified(prepared, tmp_path):
  root = shutil.copytree(prepared.root, tmp_path / 'imagenet')
  content = bytearray((root / 'train.images.bin').read_bytes())
  content[100] ^= 1
  (root / 'train.images.bin').write_bytes(content)
  with pytest.raises(errors.UserError, match=r'train\.images\.bin has changed'):
    records.open_prepared(root)
