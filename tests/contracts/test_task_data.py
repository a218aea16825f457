"""Generated batches have the form of the real ones, and streams cover what the definition says."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.data import prepare, streams, trees
from algorithmic_efficiency.data.random_numbers import ExampleRandom

RUNNABLE = [one for one in registry.workloads().values() if registry.is_runnable(one)]
EMBEDDED = [one for one in RUNNABLE if one.bundled]
PREPARED = [one for one in RUNNABLE if not one.bundled]
MAPPED = [one for one in EMBEDDED if hasattr(registry.module_of(one, 'data'), 'source')]
# Sets whose preparation takes seconds, or more than a few.
TO_PREPARE = {
  'multi30k': pytest.mark.slow,
  'spoken_and_written_digits': pytest.mark.slow,
  'classic_books': pytest.mark.long,
  'cifar10_jpeg': pytest.mark.long,
}
SPLITS = ('eval_train', 'validation', 'test')


def by_data(definitions, *, prepares=False):
  """Every definition; long where another one before it has the same data and form of a batch."""
  met, params = [], []
  for one in definitions:
    kind = one.dataset, one.data, one.splits
    marks = [pytest.mark.long] if kind in met else []
    if prepares and one.dataset in TO_PREPARE:
      marks.append(TO_PREPARE[one.dataset])
    met.append(kind)
    params.append(pytest.param(one, marks=marks, id=one.name))
  return pytest.mark.parametrize('definition', params)


def leaves(batch, prefix=''):
  """(path, array) of a batch, whose values are arrays or tuples of them."""
  items = batch.items() if isinstance(batch, dict) else enumerate(batch)
  for key, value in items:
    if isinstance(value, (dict, tuple)):
      yield from leaves(value, f'{prefix}{key}/')
    else:
      yield f'{prefix}{key}', value


def form(batch):
  return {path: (array.shape, array.dtype) for path, array in leaves(batch)}


def mixed(data, definition, batch):
  """A generated batch as training gets it."""
  mix = data.mix_batch(definition) if hasattr(data, 'mix_batch') else None
  if mix is None:
    return batch
  return mix(batch, trees.gather(batch, np.array([-1])), ExampleRandom(0))


def assert_form_of_evaluation(batch, data, definition):
  """The batch has the form of generated ones; with buckets of lengths, it may be shorter."""
  size = len(batch['weights'])
  if not hasattr(data, 'fake_eval_batch'):
    generated = {**data.fake_batch(definition, size, 1), 'weights': batch['weights']}
    assert form(batch) == form(generated)
    return
  found, generated = form(batch), form(data.fake_eval_batch(definition, size, 1))
  assert found.keys() == generated.keys()
  for path, (shape, dtype) in found.items():
    longest, expected = generated[path]
    assert dtype == expected, path
    assert len(shape) == len(longest) and shape[0] == longest[0], path
    assert all(own <= most for own, most in zip(shape, longest, strict=True)), path


def assert_streams_match(definition, root):
  data = registry.module_of(definition, 'data')
  stream = streams.train_stream(data, definition, root, 8, 1)
  batch = next(stream)
  stream.close()
  assert form(batch) == form(mixed(data, definition, data.fake_batch(definition, 8, 1)))
  sizes = {name: definition.splits.num_examples(name) for name in SPLITS}
  sizes |= {name: probe.num_examples for name, probe in definition.probes.items()}
  for split, expected in sizes.items():
    if expected is None:
      continue
    batch_size = min(definition.batch_sizes.eval, 1_000)
    counted = 0
    stream = streams.eval_stream(data, definition, root, split, batch_size)
    for batch in stream:
      weights = batch['weights']
      # One weight for an example, or more where parts of an example count apart.
      assert len(weights) == batch_size and weights.dtype == np.float32
      assert_form_of_evaluation(batch, data, definition)
      counted += (weights != 0).reshape(batch_size, -1).any(axis=1).sum()
    stream.close()
    assert counted == expected, split


@by_data(EMBEDDED)
def test_embedded_data_have_the_form_of_generated_ones(definition, tmp_path):
  assert_streams_match(definition, tmp_path)


@by_data(EMBEDDED)
def test_a_batch_depends_on_its_number_alone_and_is_never_used_again(definition, tmp_path):
  """Neither may a transform change what a source keeps, nor a loader give a buffer twice."""
  data = registry.module_of(definition, 'data')
  stream = streams.train_stream(data, definition, tmp_path, 8, 1)
  start = stream.state()
  batches = [dict(leaves(next(stream))) for _ in range(3)]
  copies = [{path: array.copy() for path, array in batch.items()} for batch in batches]
  stream.restore(start)
  for batch, copy in zip(batches, copies, strict=True):
    again = dict(leaves(next(stream)))
    for path, array in again.items():
      np.testing.assert_array_equal(array, copy[path])
      np.testing.assert_array_equal(batch[path], copy[path])
      assert not any(np.shares_memory(array, other[path]) for other in batches), path
  stream.close()


@by_data(MAPPED)
def test_what_makes_the_examples_can_be_sent_to_data_workers(definition, tmp_path):
  data = registry.module_of(definition, 'data')
  makers = [data.source(definition, tmp_path, 'train'), data.transform(definition, True)]
  if hasattr(data, 'collate'):
    makers.append(data.collate(definition))
  assert len(pickle.loads(pickle.dumps(makers))) == len(makers)


# Folders of raw data that are not named after their data set.
RAW_FOLDERS = {'cifar10_jpeg': 'cifar10', 'cifar10': 'cifar10_original'}


def raw_files(test_data, definition):
  """The raw files of a data set, or of each of its sources by name; skips where one is absent."""
  names = registry.module_of(definition, 'data').about(definition).sources
  wanted = names or (definition.dataset,)
  found = {name: test_data / RAW_FOLDERS.get(name, name) for name in wanted}
  for path in found.values():
    if not path.exists():
      pytest.skip(f'there are no raw files at {path}')
  return found if names else found[definition.dataset]


@pytest.fixture(scope='session')
def prepared(test_data, tmp_path_factory):
  """Prepares a data set once and gives its folder."""
  data_dir = tmp_path_factory.mktemp('prepared')

  def root(definition):
    folder = data_dir / definition.dataset
    if not folder.exists():
      source = raw_files(test_data, definition)
      prepare.prepare(
        definition,
        data_dir,
        source=source,
        from_tfds=False,
        overwrite=False,
        progress=lambda *_: None,
      )
    return folder

  return root


@pytest.mark.data
@by_data(PREPARED, prepares=True)
def test_prepared_data_have_the_form_of_generated_ones(definition, prepared):
  assert_streams_match(definition, prepared(definition))


@by_data(RUNNABLE)
def test_generated_batches_are_fresh_and_follow_the_seed(definition):
  data = registry.module_of(definition, 'data')
  for function in ('fake_batch', 'fake_eval_batch'):
    if hasattr(data, function):
      fake = getattr(data, function)
      first, again, other = (dict(leaves(fake(definition, 8, seed))) for seed in (3, 3, 4))
      for path, array in first.items():
        assert len(array) == 8
        np.testing.assert_array_equal(array, again[path])
        assert not np.shares_memory(array, again[path])
      assert any(not np.array_equal(array, other[path]) for path, array in first.items())
