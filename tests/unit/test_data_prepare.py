from __future__ import annotations

import dataclasses
import fcntl
import gzip
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import small_mnist
from file_limit import file_size_limit
from local_server import serving

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.data import prepare as preparing
from algorithmic_efficiency.data import records


@pytest.fixture
def packed(monkeypatch):
  return small_mnist.install(monkeypatch)


@pytest.fixture
def source(tmp_path, packed):
  return small_mnist.write(tmp_path / 'raw', packed)


def prepare(data_dir, source=None, overwrite=False, progress=lambda *_: None, **options):
  definition = registry.workload('mnist')
  return preparing.prepare(
    definition,
    data_dir,
    source=source,
    from_tfds=False,
    overwrite=overwrite,
    progress=progress,
    **options,
  )


def names(folder):
  return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_idx_files_become_a_prepared_set(tmp_path, source):
  prepared = prepare(tmp_path / 'data', source)
  train, test = small_mnist.arrays()['train'], small_mnist.arrays()['test']
  np.testing.assert_array_equal(prepared.field('train/inputs')[..., 0], train[0][:50])
  np.testing.assert_array_equal(prepared.field('validation/inputs')[..., 0], train[0][50:])
  np.testing.assert_array_equal(prepared.field('test/inputs')[..., 0], test[0])
  np.testing.assert_array_equal(prepared.field('validation/targets'), train[1][50:])
  assert prepared.field('test/targets').dtype == np.int32
  assert prepared.manifest['splits'] == {'train': 50, 'validation': 10, 'test': 12}
  assert prepared.manifest['inputs'] == 'given files'
  assert prepared.manifest['licence'] == 'CC BY-SA 3.0'
  assert names(tmp_path / 'data') == ['mnist']


def test_unpacked_files_give_the_same_manifest(tmp_path, source):
  first = prepare(tmp_path / 'one', source)
  for path in list(source.iterdir()):
    path.with_suffix('').write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
  assert prepare(tmp_path / 'two', source).manifest == first.manifest


def test_without_a_source_the_files_are_fetched(tmp_path, monkeypatch):
  with serving() as server:
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    packed = small_mnist.install(monkeypatch, (f'{server.address}/',))
    server.files = {f'/{name}': content for name, content in packed.items()}
    server.cut_after = {0: 20_000}
    prepared = prepare(tmp_path / 'data')
  assert prepared.manifest['inputs'] == 'fetched'
  assert prepared.manifest['splits']['train'] == 50
  assert server.requests[1] == ('/train-images-idx3-ubyte.gz', 'bytes=20000-')
  assert len(server.requests) == 5
  assert not [name for name in names(tmp_path / 'data' / 'mnist') if not is_prepared_file(name)]


def is_prepared_file(name):
  return name == 'manifest.json' or name.endswith('.npy')


@pytest.mark.parametrize('below', ['', 'raw'])
def test_a_source_where_the_set_is_written_is_refused_instead_of_removed(tmp_path, source, below):
  """Regression: --overwrite removed it."""
  place = tmp_path / 'mnist'
  shutil.copytree(source, place / below, dirs_exist_ok=True)
  before = sorted(place.rglob('*'))
  with pytest.raises(errors.UserError, match=r'must lie outside of .*mnist.* another --data_dir'):
    prepare(tmp_path, place / below, overwrite=True)
  assert sorted(place.rglob('*')) == before


def test_a_set_that_stands_is_left_alone(tmp_path, source):
  prepare(tmp_path, source)
  before = (tmp_path / 'mnist' / 'manifest.json').stat().st_mtime_ns
  with pytest.raises(errors.UserError, match=r'exists already; check it .* --overwrite'):
    prepare(tmp_path, source)
  assert (tmp_path / 'mnist' / 'manifest.json').stat().st_mtime_ns == before


def test_overwriting_replaces_a_damaged_set(tmp_path, source):
  prepare(tmp_path / 'data', source)
  (tmp_path / 'data' / 'mnist' / 'train.inputs.npy').write_bytes(b'')
  assert prepare(tmp_path / 'data', source, overwrite=True).num_examples('train') == 50
  assert names(tmp_path / 'data') == ['mnist']


def test_a_failing_overwrite_leaves_the_old_set(tmp_path, source):
  prepare(tmp_path / 'data', source)
  (source / 't10k-labels-idx1-ubyte.gz').unlink()
  with pytest.raises(errors.UserError, match='has no t10k-labels-idx1-ubyte'):
    prepare(tmp_path / 'data', source, overwrite=True)
  assert records.open_prepared(tmp_path / 'data' / 'mnist').num_examples('train') == 50


def test_an_interrupted_preparation_is_continued(tmp_path, source):
  stages = []

  def interrupt(stage, done, total):
    stages.append(stage)
    if stage.startswith('read t10k'):
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    prepare(tmp_path / 'data', source, progress=interrupt)
  assert not (tmp_path / 'data' / 'mnist').exists()
  stages.clear()
  prepared = prepare(tmp_path / 'data', source, progress=lambda stage, *_: stages.append(stage))
  assert stages == ['read t10k-images-idx3-ubyte.gz', 'read t10k-labels-idx1-ubyte.gz']
  assert prepared.manifest == prepare(tmp_path / 'other', source).manifest


def test_another_source_is_not_mixed_with_an_interrupted_one(tmp_path, source, packed):
  def interrupt(stage, done, total):
    if stage.startswith('read t10k'):
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    prepare(tmp_path / 'data', source, progress=interrupt)
  other = small_mnist.write(tmp_path / 'other', packed)
  stages = []
  prepare(tmp_path / 'data', other, progress=lambda stage, *_: stages.append(stage))
  assert 'read train-images-idx3-ubyte.gz' in stages


def test_a_full_disk_leaves_nothing_half_written(tmp_path, source):
  with file_size_limit(20_000), pytest.raises(errors.UserError) as caught:
    prepare(tmp_path / 'data', source)
  assert 'could not be written' in str(caught.value)
  assert 'repeat the command' in str(caught.value)
  assert not (tmp_path / 'data' / 'mnist').exists()
  assert names(tmp_path / 'data') == []
  assert prepare(tmp_path / 'data', source).num_examples('train') == 50


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path, source):
  (tmp_path / 'file').write_text('in the way')
  with pytest.raises(errors.UserError, match='could not be written'):
    prepare(tmp_path / 'file' / 'data', source)


def test_two_preparations_do_not_meet(tmp_path, source):
  staging = tmp_path / 'data' / 'mnist.partial'
  staging.mkdir(parents=True)
  other = os.open(staging, os.O_RDONLY)
  fcntl.flock(other, fcntl.LOCK_EX)
  with pytest.raises(errors.UserError, match='Another process is preparing'):
    prepare(tmp_path / 'data', source)
  os.close(other)
  assert prepare(tmp_path / 'data', source).num_examples('test') == 12


@pytest.mark.parametrize('name', ['train-images-idx3-ubyte.gz', 't10k-labels-idx1-ubyte.gz'])
@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda path: path.unlink(), 'has no'),
    (lambda path: path.write_bytes(path.read_bytes()[:-9]), 'is truncated or damaged'),
    (lambda path: path.write_bytes(b'no gzip at all'), 'is truncated or damaged'),
    (lambda path: repack(path, lambda raw: raw[:-1]), 'bytes when unpacked; it holds'),
    (lambda path: repack(path, lambda raw: raw[:-1] + b'\xff'), 'its content has been changed'),
    (lambda path: repack(path, lambda raw: b'\x00\x00\x09' + raw[3:]), 'has been changed'),
  ],
  ids=['missing', 'cut', 'no gzip', 'short', 'altered', 'other type'],
)
def test_a_damaged_source_is_named(tmp_path, source, name, damage, message):
  damage(source / name)
  with pytest.raises(errors.UserError) as caught:
    prepare(tmp_path / 'data', source)
  assert message in str(caught.value)
  assert name.removesuffix('.gz') in str(caught.value)
  assert not (tmp_path / 'data' / 'mnist').exists()


def repack(path, change):
  path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))


def test_a_source_that_does_not_exist(tmp_path, packed):
  with pytest.raises(errors.UserError, match='nowhere does not exist'):
    prepare(tmp_path / 'data', tmp_path / 'nowhere')
  assert not (tmp_path / 'data').exists()


# A set that takes several raw sources.


class TestSeveralSources:
  @pytest.fixture
  def seen(self, monkeypatch):
    """What `prepare` of a set with the sources 'text' and 'images' got; it reads the first."""
    seen = {}

    def fill(definition, source, out, progress):
      seen['source'] = source
      if source is not None:
        out.file('text', (source['text'] / 'a').read_bytes())

    about = records.About(origin='', licence='', num_bytes=0, sources=('text', 'images'))
    module = SimpleNamespace(about=lambda definition: about, prepare=fill)
    monkeypatch.setattr(registry, 'module_of', lambda *_: module)
    return seen

  @pytest.fixture
  def folders(self, tmp_path):
    for name in ('one', 'two=2'):
      (tmp_path / name).mkdir()
      (tmp_path / name / 'a').write_text(name)
    return tmp_path

  @staticmethod
  def sources(*words, definition=None, from_tfds=False):
    definition = definition or registry.workload('mnist')
    return preparing.sources(definition, words, from_tfds=from_tfds)

  def test_they_come_by_name(self, folders, seen):
    given = self.sources(f'images={folders}/one', f'text={folders}/two=2')
    prepared = prepare(folders / 'data', given)
    assert dict(seen['source']) == {'images': folders / 'one', 'text': folders / 'two=2'}
    assert prepared.manifest['inputs'] == 'given files'

  def test_none_are_fetched(self, folders, seen):
    prepare(folders / 'data', self.sources())
    assert seen['source'] is None

  def test_one_that_is_missing_is_named_once_it_is_needed(self, folders, seen):
    with pytest.raises(errors.UserError, match=r"its source 'text'; .* --source text=PATH"):
      prepare(folders / 'data', self.sources(f'images={folders}/one'))

  def test_each_must_exist(self, folders, seen):
    with pytest.raises(errors.UserError, match='nowhere does not exist'):
      prepare(folders / 'data', self.sources(f'text={folders}/nowhere'))

  @pytest.mark.parametrize(
    ('words', 'message'),
    [
      (['txt=x'], r"no source of the data set mnist 'txt'. Did you mean 'text'.*images, text"),
      (['x'], r"give each once, as --source NAME=PATH with a name of text, images\. One is 'x'"),
      (['text=x', 'text=y'], "One is 'text=y'"),
    ],
  )
  def test_a_wrong_name_lists_the_choices(self, seen, words, message):
    with pytest.raises(errors.UserError, match=message):
      self.sources(*words)

  def test_an_interrupted_preparation_goes_on_with_the_same_ones_only(self, folders, seen):
    keys = [
      preparing._open_source(registry.workload('mnist'), given, False).key
      for given in (
        {'text': folders / 'one', 'images': folders / 'two=2'},
        {'images': folders / 'two=2', 'text': folders / 'one'},
        {'text': folders / 'two=2', 'images': folders / 'one'},
      )
    ]
    assert keys[0] == keys[1] != keys[2]

  def test_builders_by_name_take_one_folder_for_all_or_one_each(self, folders, seen):
    names = {'train': 'wmt17', 'test': 'wmt14'}
    definition = dataclasses.replace(registry.workload('mnist'), tfds=names)

    def given(*words):
      return self.sources(*words, definition=definition, from_tfds=True)

    assert given('all') == Path('all')
    assert given('test=x') == {'test': Path('x')}
    with pytest.raises(errors.UserError, match="no source of the data set mnist 'text'"):
      given('text=x')


def test_a_set_of_one_source_takes_one(source):
  mnist = registry.workload('mnist')
  assert preparing.sources(mnist, ['a=b'], from_tfds=False) == Path('a=b')
  with pytest.raises(errors.UserError, match='mnist takes one --source; 2 were given'):
    preparing.sources(mnist, ['a', 'b'], from_tfds=False)


def test_verify_reads_to_the_last_byte(tmp_path, source, monkeypatch):
  prepare(tmp_path, source)
  definition = registry.workload('mnist')
  facts = preparing.verify(definition, tmp_path, lambda *_: None)
  assert facts['num_files'] == 6
  assert facts['num_bytes'] == sum(
    path.stat().st_size for path in (tmp_path / 'mnist').glob('*.npy')
  )
  path = tmp_path / 'mnist' / 'test.inputs.npy'
  content = bytearray(path.read_bytes())
  content[-1000] ^= 1
  path.write_bytes(content)
  monkeypatch.setattr(records, '_CHECKED_ON_OPENING_BYTES', 0)
  with pytest.raises(errors.UserError, match=r'test\.inputs\.npy has changed'):
    preparing.verify(definition, tmp_path, lambda *_: None)


def test_sets_without_code_or_preparation_are_refused(tmp_path):
  for name, message in (
    ('fastmri', 'There is no code for fastmri yet'),
    ('quick_vision', 'is bundled'),
  ):
    with pytest.raises(errors.UserError, match=message):
      preparing.prepare(
        registry.workload(name),
        tmp_path,
        source=None,
        from_tfds=False,
        overwrite=False,
        progress=lambda *_: None,
      )
