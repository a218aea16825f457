"""Data sets that the tests write with TensorFlow Datasets, read without TensorFlow."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import tf_record_files

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Splits
from algorithmic_efficiency.data import prepare as preparing
from algorithmic_efficiency.data import tfds

pytestmark = pytest.mark.skipif(
  any(importlib.util.find_spec(name) is None for name in ('tensorflow_datasets', 'array_record')),
  reason='tensorflow-datasets and array-record are not installed',
)

SPLITS = Splits(train=20, eval_train=10, validation=5, test=6)

# Written by a process of its own, so that the reading one knows the builder from its files alone.
BUILDERS = """
  import sys
  import numpy as np
  import tensorflow_datasets as tfds

  class TinyDigits(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.2.0')

    def _info(self):
      image = tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8)
      return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict(
          {'image': image, 'label': tfds.features.ClassLabel(num_classes=10)}
        ),
      )

    def _split_generators(self, dl_manager):
      return {'train': self._generate_examples(25), 'test': self._generate_examples(6)}

    def _generate_examples(self, number):
      for i in range(number):
        yield i, {'image': np.full((28, 28, 1), i, np.uint8), 'label': i % 10}

  TinyDigits(data_dir=sys.argv[1]).download_and_prepare(file_format='array_record')

  class TinyTexts(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name='de-en')]

    def _info(self):
      features = tfds.features.Translation(languages=('de', 'en'))
      return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
      return {'train': ((i, {'de': f'Sätze {i}', 'en': f'phrases {i}'}) for i in range(600))}

    def _generate_examples(self):
      raise NotImplementedError

  TinyTexts(data_dir=sys.argv[1]).download_and_prepare(file_format='array_record')
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  script = folder / 'write.py'
  script.write_text(textwrap.dedent(BUILDERS))
  subprocess.run([sys.executable, script, folder / 'data'], check=True, capture_output=True)
  return folder / 'data'


@pytest.fixture
def definition():
  return dataclasses.replace(registry.workload('mnist'), tfds='tiny_digits', splits=SPLITS)


def prepare(definition, data_dir, source):
  return preparing.prepare(
    definition,
    data_dir,
    source=source,
    from_tfds=True,
    overwrite=False,
    progress=lambda *_: None,
  )


def test_a_set_is_read_in_the_order_of_the_library(folder, definition, tmp_path):
  prepared = prepare(definition, tmp_path, folder)
  assert prepared.manifest['inputs'] == 'TensorFlow Datasets, tiny_digits 1.2.0'
  assert prepared.manifest['splits'] == {'train': 20, 'validation': 5, 'test': 6}
  parts = [prepared.field(f'{split}/inputs') for split in ('train', 'validation')]
  numbers = np.concatenate(parts)[:, 0, 0, 0]
  assert sorted(numbers) == list(range(25))
  labels = [prepared.field(f'{split}/targets') for split in ('train', 'validation')]
  np.testing.assert_array_equal(np.concatenate(labels), numbers % 10)
  assert all((image == image[0, 0]).all() for image in parts[0])
  import tensorflow_datasets

  source = tensorflow_datasets.builder_from_directory(str(folder / 'tiny_digits/1.2.0'))
  expected = [example['label'] for example in source.as_data_source('train')]
  np.testing.assert_array_equal(numbers % 10, expected)


def test_the_folder_of_a_version_will_do(folder, definition, tmp_path):
  first = prepare(definition, tmp_path / 'one', folder / 'tiny_digits' / '1.2.0')
  assert first.manifest == prepare(definition, tmp_path / 'two', folder).manifest


def test_the_folder_of_another_builder_is_refused(folder, tmp_path):
  with pytest.raises(
    errors.UserError, match=r"must hold the builder 'mnist' .* holds 'tiny_digits'"
  ):
    prepare(registry.workload('mnist'), tmp_path, folder / 'tiny_digits' / '1.2.0')


def test_a_folder_without_the_builder_is_refused_instead_of_filled(tmp_path):
  """Regression: it began a download."""
  (tmp_path / 'empty').mkdir()
  with pytest.raises(
    errors.UserError, match=r"must hold the builder 'mnist' .* Leave out --source"
  ):
    prepare(registry.workload('mnist'), tmp_path, tmp_path / 'empty')
  assert [path.name for path in tmp_path.iterdir()] == ['empty']


def test_sizes_that_differ_from_the_definition_are_refused(folder, definition, tmp_path):
  other = dataclasses.replace(definition, splits=dataclasses.replace(SPLITS, train=21))
  with pytest.raises(errors.UserError, match=r'needs 26 images .* there are 25'):
    prepare(other, tmp_path, folder)
  assert not (tmp_path / 'mnist').exists()


def test_unknown_builders_splits_and_features_are_named(folder, definition, tmp_path):
  other = dataclasses.replace(definition, tfds='tiny_digit')
  with pytest.raises(errors.UserError, match="has no builder 'tiny_digit'"):
    prepare(other, tmp_path, folder)
  builder = tfds.open_builder('tiny_digits', folder)
  with pytest.raises(errors.UserError, match=r"no split of tiny_digits 1.2.0 'tests'. .*'test'"):
    builder.num_examples('tests')
  with pytest.raises(errors.UserError, match=r"no feature of tiny_digits 1.2.0 'imag'. .*'image'"):
    builder.stacked('test', ['imag'], lambda *_: None)


def test_a_definition_without_a_builder_is_refused(definition, tmp_path):
  with pytest.raises(errors.UserError, match='has no builder in TensorFlow Datasets'):
    prepare(dataclasses.replace(definition, tfds=None), tmp_path, None)


@pytest.fixture
def opened(monkeypatch):
  """Names and folders with which builders are opened, by a library that is played."""
  calls = []

  def open_builder(name, folder):
    calls.append((name, folder))
    return SimpleNamespace(title=f'{name} 1.0.0')

  monkeypatch.setattr(tfds, 'open_builder', open_builder)
  return calls


def test_of_several_builders_only_those_asked_for_are_opened(opened, tmp_path):
  builders = tfds.Builders({'train': 'wmt17', 'test': 'wmt14'}, tmp_path)
  assert list(builders) == ['train', 'test'] and opened == []
  assert builders['test'] is builders['test']
  assert opened == [('wmt14', tmp_path)]
  assert builders.title == 'wmt14 1.0.0'
  with pytest.raises(KeyError):
    builders['other']


def test_each_of_several_builders_may_have_its_folder(opened, tmp_path):
  builders = tfds.Builders({'train': 'wmt17', 'test': 'wmt14'}, {'test': tmp_path})
  assert [builders[name].title for name in builders] == ['wmt17 1.0.0', 'wmt14 1.0.0']
  assert opened == [('wmt17', None), ('wmt14', tmp_path)]


def test_a_definition_of_several_builders_gives_prepare_those(opened, tmp_path, monkeypatch):
  seen = {}

  def fill(definition, source, out, progress):
    seen.update(source)
    out.file('notes', b'')

  def read(definition, source, out, progress):
    source['test']
    out.file('notes', b'')

  names = {'train': 'wmt17', 'test': 'wmt14'}
  definition = dataclasses.replace(registry.workload('mnist'), tfds=names)
  for name, function in (('all', fill), ('one', read)):
    module = SimpleNamespace(about=registry.module_of(definition, 'data').about, prepare=function)
    with monkeypatch.context() as patch:
      patch.setattr(registry, 'module_of', lambda *_, module=module: module)
      prepared = prepare(definition, tmp_path / name, None)
    assert (
      prepared.manifest['inputs']
      == {
        'all': 'TensorFlow Datasets, wmt17 1.0.0, wmt14 1.0.0',
        'one': 'TensorFlow Datasets, wmt14 1.0.0',
      }[name]
    )
  assert {name: builder.title for name, builder in seen.items()} == {
    'train': 'wmt17 1.0.0',
    'test': 'wmt14 1.0.0',
  }


def test_the_folder_of_a_version_may_be_named_with_configuration_and_version(folder, tmp_path):
  """Regression: it was refused, as if it held another builder."""
  version = folder / 'tiny_digits' / '1.2.0'
  assert tfds.open_builder('tiny_digits:1.2.0', version).title == 'tiny_digits 1.2.0'


def test_the_library_missing_is_the_install_line(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(errors.UserError) as caught:
    tfds.open_builder('mnist', None)
  assert "pip install 'algorithmic-efficiency[data]'" in str(caught.value)


@pytest.mark.skipif(
  importlib.util.find_spec('tensorflow') is not None, reason='TensorFlow is installed'
)
def test_a_builder_that_needs_tensorflow_is_the_install_line(tmp_path, monkeypatch):
  import tensorflow_datasets

  class ArrayImages(tensorflow_datasets.core.GeneratorBasedBuilder):
    """Gives images as arrays, which the library codes with TensorFlow."""

    VERSION = tensorflow_datasets.core.Version('1.0.0')

    def _info(self):
      image = tensorflow_datasets.features.Image(shape=(4, 4, 1))
      return tensorflow_datasets.core.DatasetInfo(
        builder=self, features=tensorflow_datasets.features.FeaturesDict({'image': image})
      )

    def _split_generators(self, dl_manager):
      return {'train': iter([(0, {'image': np.zeros((4, 4, 1), np.uint8)})])}

    def _generate_examples(self):
      raise NotImplementedError

  monkeypatch.setattr(tensorflow_datasets.core.constants, 'DATA_DIR', str(tmp_path))
  with pytest.raises(errors.UserError, match=r'needs tensorflow, .*: pip install tensorflow'):
    tfds.open_builder('array_images', None)


def test_another_format_is_refused(folder, tmp_path):
  copy = shutil.copytree(folder / 'tiny_digits' / '1.2.0', tmp_path / 'copy')
  info = copy / 'dataset_info.json'
  info.write_text(info.read_text().replace('array_record', 'riegeli'))
  with pytest.raises(
    errors.UserError, match=r'in the format array_record or tfrecord; .* has riegeli'
  ):
    tfds.open_builder('tiny_digits', copy)


def test_images_are_read_alike_from_both_formats(folder, definition, tmp_path):
  version = 'tiny_digits/1.2.0'
  tf_record_files.as_tf_records(folder / version, tmp_path / 'copy' / version)
  found = prepare(definition, tmp_path / 'found', tmp_path / 'copy')
  assert found.manifest == prepare(definition, tmp_path / 'expected', folder).manifest
  assert 'tensorflow' not in sys.modules


@pytest.fixture
def as_tf_records(folder, tmp_path):
  """The texts as the library writes them by default, in a folder of their own."""
  source = folder / 'tiny_texts' / 'de-en' / '1.0.0'
  return tf_record_files.as_tf_records(
    source, tmp_path / 'texts' / 'tiny_texts' / 'de-en' / '1.0.0'
  )


def texts(folder, names=('en', 'de')):
  builder = tfds.open_builder('tiny_texts/de-en:1.0.0', folder)
  return list(builder.texts('train', names, lambda *_: None))


def test_texts_are_read_alike_from_both_formats(folder, as_tf_records):
  found = texts(folder)
  assert sorted(found) == sorted((f'phrases {i}', f'Sätze {i}') for i in range(600))
  assert texts(as_tf_records.parents[2]) == found
  assert texts(as_tf_records, ['de']) == [(german,) for _, german in found]


def test_texts_that_are_missing_or_damaged_are_named(as_tf_records):
  with pytest.raises(errors.UserError, match=r"no feature of tiny_texts 1.0.0 'fr'"):
    texts(as_tf_records, ['fr'])
  (path,) = (one for one in as_tf_records.iterdir() if 'tfrecord' in one.name)
  content = path.read_bytes()
  path.write_bytes(content[:-5])
  with pytest.raises(errors.UserError, match=r'tfrecord.*truncated, damaged .* ends behind it'):
    texts(as_tf_records)
  path.write_bytes(content + b'123')
  with pytest.raises(errors.UserError, match=r'tfrecord.*truncated, damaged .* begins too late'):
    texts(as_tf_records)
  size = 16 + int.from_bytes(content[:8], 'little')
  path.write_bytes(content[size:])
  with pytest.raises(errors.UserError, match=r'must hold 600 examples; the files .* hold 599'):
    texts(as_tf_records)
  path.write_bytes(content[:8] + bytes(4) + b'x' * (size - 12) + content[size:])
  with pytest.raises(errors.UserError, match='must hold examples with de and en; one cannot be'):
    texts(as_tf_records)


def test_reading_needs_no_tensorflow(folder):
  assert tfds.open_builder('tiny_digits', folder).num_examples('train') == 25
  assert 'tensorflow' not in sys.modules
