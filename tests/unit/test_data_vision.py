from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_mnist

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Splits
from algorithmic_efficiency.data import digit_images, records, streams
from algorithmic_efficiency.data import prepare as preparing

NOWHERE = Path('/nonexistent/digits')
DATA = Path(os.environ.get('ALGOEFF_TEST_DATA', '../shared/data'))


@pytest.fixture(scope='module')
def digits():
  if importlib.util.find_spec('sklearn') is None:
    pytest.skip('the digits are read from scikit-learn, which is not installed')
  return registry.workload('quick_vision')


@pytest.fixture(scope='module')
def unshifted(digits):
  return dataclasses.replace(digits, data=dataclasses.replace(digits.data, max_shift=0))


@pytest.fixture(scope='module')
def vision():
  return registry.module_of(registry.workload('mnist'), 'data')


@pytest.fixture
def mnist(tmp_path, monkeypatch, vision):
  """A small definition in MNIST's place, and the folder of its prepared set."""
  source = small_mnist.write(tmp_path / 'raw', small_mnist.install(monkeypatch))
  definition = registry.workload('mnist')
  preparing.prepare(
    definition,
    tmp_path,
    source=source,
    from_tfds=False,
    overwrite=False,
    progress=lambda *_: None,
  )
  return definition, tmp_path / 'mnist'


def joined(stream, name):
  batches = list(stream)
  weights = np.concatenate([batch['weights'] for batch in batches])
  return np.concatenate([batch[name] for batch in batches])[weights == 1]


def test_digits_have_the_splits_of_their_definition(vision, unshifted):
  table = np.loadtxt(_digits_file(), delimiter=',')
  images, labels = table[:, :-1].reshape(-1, 8, 8, 1), table[:, -1]
  expected = {'validation': images[4::5], 'test': images[3::5]}
  for split, raw in expected.items():
    stream = streams.eval_stream(vision, unshifted, NOWHERE, split, 100)
    inputs = pixels(unshifted, joined(stream, 'inputs'))
    np.testing.assert_allclose(inputs, raw, atol=1e-5)
  targets = joined(streams.eval_stream(vision, unshifted, NOWHERE, 'validation', 7), 'targets')
  np.testing.assert_array_equal(targets, labels[4::5])
  splits = unshifted.splits
  assert splits.train + splits.validation + splits.test == len(table)


def test_digits_have_one_shift_in_evaluation_and_another_in_each_epoch(vision, digits, unshifted):
  def evaluated(definition):
    stream = streams.eval_stream(vision, definition, NOWHERE, 'validation', 100)
    return pixels(definition, joined(stream, 'inputs'))

  def trained(definition):
    stream = streams.train_stream(vision, definition, NOWHERE, definition.splits.train, 0)
    return [pixels(definition, next(stream)['inputs']) for _ in range(2)]

  for raw, shifted in zip(
    [evaluated(unshifted), *trained(unshifted)], [evaluated(digits), *trained(digits)], strict=True
  ):
    shifts = np.array([shift_of(*pair) for pair in zip(raw, shifted, strict=True)])
    assert {tuple(one) for one in shifts} == {(y, x) for y in range(5) for x in range(5)}
  np.testing.assert_array_equal(evaluated(digits), evaluated(digits))


def pixels(definition, inputs):
  return np.round(inputs * definition.train_stddev + definition.train_mean)


def shift_of(image, shifted):
  """Returns (row, column) of the shifted image within the image with a border of two zeros."""
  padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
  places = [(y, x) for y in range(5) for x in range(5)]
  return next((y, x) for y, x in places if np.array_equal(padded[y : y + 8, x : x + 8], shifted))


def _digits_file():
  spec = importlib.util.find_spec('sklearn')
  return Path(spec.submodule_search_locations[0]) / 'datasets/data/digits.csv.gz'


def test_mean_and_stddev_of_the_digits_are_those_of_the_training_split(vision, unshifted):
  splits = dataclasses.replace(unshifted.splits, eval_train=unshifted.splits.train)
  everything = dataclasses.replace(unshifted, splits=splits)
  inputs = joined(streams.eval_stream(vision, everything, NOWHERE, 'eval_train', 500), 'inputs')
  assert abs(inputs.mean(dtype=np.float64)) < 1e-4
  assert abs(inputs.std(dtype=np.float64) - 1) < 1e-4


def test_digits_that_are_not_the_known_ones_are_refused(vision, digits, monkeypatch):
  monkeypatch.setattr(digit_images, '_DIGITS_SHA256', '0' * 64)
  digit_images.digits.cache_clear()
  with pytest.raises(errors.UserError, match='does not hold the digits'):
    streams.train_stream(vision, digits, NOWHERE, 8, 0)


def test_digits_without_scikit_learn_name_the_install_line(vision, monkeypatch):
  digit_images.digits.cache_clear()
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(errors.UserError) as caught:
    streams.train_stream(vision, registry.workload('quick_vision'), NOWHERE, 8, 0)
  assert "pip install 'algorithmic-efficiency[quick]'" in str(caught.value)


def test_a_digits_file_that_cannot_be_read(vision, monkeypatch, tmp_path):
  digit_images.digits.cache_clear()
  spec = type('Spec', (), {'submodule_search_locations': [str(tmp_path)]})()
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: spec)
  with pytest.raises(errors.UserError, match=r'cannot be read .* reinstall scikit-learn'):
    streams.train_stream(vision, registry.workload('quick_vision'), NOWHERE, 8, 0)


def test_batches_have_the_types_of_the_contract(vision, mnist):
  definition, root = mnist
  batch = next(streams.train_stream(vision, definition, root, 8, 0))
  assert {name: (a.shape, a.dtype.name) for name, a in batch.items()} == {
    'inputs': ((8, 28, 28, 1), 'float32'),
    'targets': ((8,), 'int32'),
    'weights': ((8,), 'float32'),
  }
  batch = next(streams.eval_stream(vision, definition, root, 'test', 8))
  generated = vision.fake_batch(definition, 8, 0)
  assert {name: (a.shape, a.dtype) for name, a in generated.items()} == {
    name: (a.shape, a.dtype) for name, a in batch.items()
  }


def test_training_batches_of_mnist_have_weights_of_1_as_in_algoperf(vision, mnist, digits):
  definition, root = mnist
  np.testing.assert_array_equal(
    next(streams.train_stream(vision, definition, root, 8, 0))['weights'], np.ones(8, np.float32)
  )
  assert 'weights' not in next(streams.train_stream(vision, digits, NOWHERE, 8, 0))


def test_mnist_has_the_scale_of_algoperf(vision, mnist):
  """Regression: inputs were 255 times smaller, under AlgoPerf's name and target."""
  definition, root = mnist
  assert (definition.train_mean, definition.train_stddev) == (0.1307, 0.3081)
  inputs = joined(streams.eval_stream(vision, definition, root, 'test', 5), 'inputs')
  raw = small_mnist.arrays()['test'][0].astype(np.float64)[..., None]
  np.testing.assert_allclose(inputs, (raw - 0.1307) / 0.3081, rtol=1e-6, atol=1e-6)


def test_standardized_inputs_are_those_of_pixels_from_0_to_1(vision, mnist):
  _, root = mnist
  definition = dataclasses.replace(
    registry.workload('mnist_standardized'), splits=small_mnist.SPLITS
  )
  inputs = joined(streams.eval_stream(vision, definition, root, 'test', 5), 'inputs')
  raw = small_mnist.arrays()['test'][0].astype(np.float64)[..., None]
  np.testing.assert_allclose(inputs, (raw / 255 - 0.1307) / 0.3081, rtol=0, atol=1e-6)


@pytest.mark.parametrize('batch_size', [1, 7, 12, 50])
def test_any_evaluation_batch_size_covers_the_split(vision, mnist, batch_size):
  definition, root = mnist
  for split, number in (('eval_train', 20), ('validation', 10), ('test', 12)):
    stream = streams.eval_stream(vision, definition, root, split, batch_size)
    assert len(joined(stream, 'targets')) == number


def test_reference_fault_17_eval_train_is_the_same_part_of_train_each_time(vision, mnist):
  definition, root = mnist
  for _ in range(2):
    targets = joined(streams.eval_stream(vision, definition, root, 'eval_train', 8), 'targets')
    np.testing.assert_array_equal(targets, small_mnist.arrays()['train'][1][:20])


def test_a_pass_over_train_has_every_image_once(vision, mnist):
  definition, root = mnist
  stream = streams.train_stream(vision, definition, root, 10, seed=4)
  images = np.concatenate([next(stream)['inputs'] for _ in range(5)])
  whole = dataclasses.replace(
    definition, splits=dataclasses.replace(definition.splits, eval_train=50)
  )
  expected = joined(streams.eval_stream(vision, whole, root, 'eval_train', 50), 'inputs')
  assert sorted(i.tobytes() for i in images) == sorted(i.tobytes() for i in expected)


def test_shards_are_parts_of_the_global_batch(vision, mnist):
  definition, root = mnist
  whole = streams.train_stream(vision, definition, root, 6, seed=4)
  parts = [
    streams.train_stream(vision, definition, root, 6, seed=4, shard=(i, 3)) for i in range(3)
  ]
  for _ in range(10):
    expected = next(whole)
    rows = [next(part) for part in parts]
    for name in expected:
      np.testing.assert_array_equal(np.concatenate([row[name] for row in rows]), expected[name])


def test_data_that_is_missing_names_the_command(vision, tmp_path):
  definition = registry.workload('mnist')
  for open_stream in (
    lambda: streams.train_stream(vision, definition, tmp_path / 'mnist', 8, 0),
    lambda: streams.eval_stream(vision, definition, tmp_path / 'mnist', 'test', 8),
  ):
    with pytest.raises(errors.UserError, match='algoeff data prepare mnist'):
      open_stream()


@pytest.mark.parametrize('damage', ['truncated', 'altered'])
def test_data_that_is_damaged_names_the_file(vision, mnist, damage):
  definition, root = mnist
  path = root / 'train.inputs.npy'
  content = path.read_bytes()
  path.write_bytes(content[:-1] + (b'' if damage == 'truncated' else bytes([content[-1] ^ 1])))
  records._open.cache_clear()
  with pytest.raises(errors.UserError, match=r'train\.inputs\.npy .*--overwrite'):
    streams.train_stream(vision, definition, root, 8, 0)


def test_data_of_another_size_than_the_definition_says_is_refused(vision, mnist):
  definition, root = mnist
  other = dataclasses.replace(
    definition, splits=Splits(train=51, eval_train=20, validation=10, test=12)
  )
  with pytest.raises(errors.UserError, match='needs 51 images'):
    streams.train_stream(vision, other, root, 8, 0)


@pytest.mark.parametrize('name', ['mnist', 'mnist_standardized', 'quick_vision'])
def test_smoke_streams_cover_the_splits_of_the_smoke_record(vision, name):
  definition = registry.workload(name).for_smoke()
  for split in ('eval_train', 'validation', 'test'):
    for batch_size in (8, 5):
      stream = streams.eval_stream(vision, definition, None, split, batch_size)
      assert len(joined(stream, 'targets')) == definition.splits.num_examples(split)
  train = streams.train_stream(vision, definition, None, 8, seed=1)
  seen = set()
  for _ in range(definition.splits.train // 8):
    seen |= pairs(next(train))
  assert len(seen) == definition.splits.train
  first = set()
  for batch in streams.eval_stream(vision, definition, None, 'eval_train', 8):
    first |= pairs(batch)
  assert first <= seen


def pairs(batch):
  return {
    (image.tobytes(), int(target))
    for image, target in zip(batch['inputs'], batch['targets'], strict=True)
  }


def test_smoke_streams_can_be_restored_and_sharded(vision):
  definition = registry.workload('mnist').for_smoke()
  stream = streams.train_stream(vision, definition, None, 8, seed=1)
  next(stream)
  state = stream.state()
  expected = next(stream)['targets']
  stream.restore(state)
  np.testing.assert_array_equal(next(stream)['targets'], expected)
  parts = [
    streams.train_stream(vision, definition, None, 8, seed=1, shard=(i, 2)) for i in range(2)
  ]
  for part in parts:
    part.restore(state)
  np.testing.assert_array_equal(np.concatenate([next(part)['targets'] for part in parts]), expected)


def test_reading_imports_neither_frameworks_nor_scikit_learn():
  script = (
    'import sys; from pathlib import Path\n'
    'from algorithmic_efficiency.benchmark import registry\n'
    'definition = registry.workload("quick_vision")\n'
    'data = registry.module_of(definition, "data")\n'
    'from algorithmic_efficiency.data import streams\n'
    'next(streams.train_stream(data, definition, Path("x"), 8, 0))\n'
    'found = {"jax", "torch", "tensorflow", "tensorflow_datasets", "sklearn", "scipy", "pandas"}\n'
    'assert not found & set(sys.modules), found & set(sys.modules)\n'
  )
  subprocess.run([sys.executable, '-c', script], check=True, cwd=registry.HOME)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not (DATA / 'mnist').is_dir(), reason=f'no {DATA}/mnist (ALGOEFF_TEST_DATA)')
def test_the_real_mnist_is_prepared_and_standardized(vision, tmp_path):
  definition = registry.workload('mnist_standardized')
  prepared = preparing.prepare(
    definition,
    tmp_path,
    source=DATA / 'mnist',
    from_tfds=False,
    overwrite=False,
    progress=lambda *_: None,
  )
  assert prepared.manifest['splits'] == {'train': 50_000, 'validation': 10_000, 'test': 10_000}
  assert prepared.num_bytes == vision.about(definition).num_bytes
  validation = joined(
    streams.eval_stream(vision, definition, tmp_path / 'mnist', 'validation', 3000), 'targets'
  )
  np.testing.assert_array_equal(validation[:5], [3, 8, 6, 9, 6])
  train = next(streams.train_stream(vision, definition, tmp_path / 'mnist', 50_000, 0))
  assert abs(train['inputs'].mean(dtype=np.float64)) < 2e-3
  assert abs(train['inputs'].std(dtype=np.float64) - 1) < 2e-3
  assert (
    np.bincount(train['targets']).tolist() == np.bincount(prepared.field('train/targets')).tolist()
  )
