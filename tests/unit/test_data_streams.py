"""Streams of a task: what it may return, positions, single sources, and what it gets wrong."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace

import data_examples
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Probe, Splits, variant
from algorithmic_efficiency.data import streams
from algorithmic_efficiency.data.mixture import Mixture
from algorithmic_efficiency.data.packing import Packed
from algorithmic_efficiency.data.sources import Arrays, TaskError
from algorithmic_efficiency.data.workers import Workers

ROOT = Path('nowhere')
SIZES = {'a': 5, 'b': 11}
SEED = 7
LENGTHS = {name: 1 + np.arange(size) % 4 for name, size in SIZES.items()}
KINDS = ('single', 'mixture', 'packed', 'packed mixture')


def definition(**changes):
  changes = {
    'splits': Splits(train=16, eval_train=6, validation=5, test=None),
    'probes': {'far': Probe(num_examples=3, metrics=('loss',))},
    **changes,
  }
  return variant(registry.workload('quick_vision'), name='toy', **changes)


class Texts:
  """Examples of different lengths, each of which repeats its number."""

  def __init__(self, lengths, first=0):
    self._lengths = lengths
    self._first = first

  def __len__(self):
    return len(self._lengths)

  def __getitem__(self, index):
    return {'tokens': np.full(self._lengths[index], self._first + index, np.int32)}


def source_of(kind):
  def source(definition, root, split):
    if split == 'train':
      lengths, first = np.concatenate(list(LENGTHS.values())), 0
    else:
      lengths, first = np.ones(3 if split == 'far' else 5, np.int64), 100
    if 'mixture' not in kind:
      whole = Texts(lengths, first)
    else:
      texts = {name: Texts(LENGTHS[name], 50 * part) for part, name in enumerate(SIZES)}
      whole = Mixture(texts, {'a': 1, 'b': 2}, name='toy')
      lengths = LENGTHS
    return Packed(whole, lengths, 8) if 'packed' in kind else whole

  return source


def noisy(example, random):
  """Adds a number that shows the random numbers of the example."""
  drawn = -1.0 if random is None else random.uniform()
  return {**example, 'drawn': np.full(len(example['tokens']), drawn)}


def padded(examples):
  """Joins rows of different lengths."""
  longest = max(len(one['tokens']) for one in examples)
  width = max(4, longest)
  return {
    name: np.stack([np.pad(one[name], (0, width - len(one[name]))) for one in examples])
    for name in examples[0]
  }


def task(kind='single', **changes):
  functions = {
    'source': source_of(kind),
    'transform': lambda definition, train: noisy,
    'collate': lambda definition: padded,
    'fake_batch': lambda definition, batch_size, seed: {'tokens': np.zeros((batch_size, 4))},
  }
  return SimpleNamespace(**{**functions, **changes})


def train(kind='single', *, batch_size=4, shard=(0, 1), workers=None, **changes):
  stream = streams.train_stream(
    task(kind, **changes), definition(), ROOT, batch_size, SEED, shard=shard
  )
  # The workers of a test are shared by its streams, as starting some takes half a second.
  stream.workers = stream._main._workers = workers
  if workers is not None:
    stream._max_ahead = stream._main._num_ahead = 2 * workers.num_workers
    opened = stream._one_source

    def one_source(name):
      batches = opened(name)
      batches._workers = workers
      return batches

    stream._one_source = one_source
  return stream


def assert_equal(one, other):
  assert one.keys() == other.keys()
  for name in one:
    np.testing.assert_array_equal(one[name], other[name])
    assert one[name].dtype == other[name].dtype


@pytest.fixture(scope='module', params=[0, 1, 3], ids='{} workers'.format)
def workers(request):
  if not request.param:
    yield None
    return
  with contextlib.closing(Workers(request.param)) as started:
    yield started


@settings(
  max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
  kind=st.sampled_from(KINDS),
  num_rows=st.integers(1, 3),
  count=st.sampled_from([1, 2, 4]),
  resumed_at=st.integers(0, 6),
  number=st.integers(1, 4),
  names=st.lists(st.sampled_from([None, 'a', 'b']), min_size=6, max_size=6),
)
def test_batches_are_the_same_for_any_workers_and_shards_from_any_position(
  workers, kind, num_rows, count, resumed_at, number, names
):
  """Whatever was drawn before: batches of the whole, or of single sources of a mixture."""

  def drawn(stream, name):
    if name is None or 'mixture' not in kind:
      return next(stream)
    stream.open_source(name)
    return stream.next_of(name)

  names = [*names, *names]
  whole = train(kind, batch_size=num_rows * count)
  expected = [drawn(whole, name) for name in names]
  for index in range(count):
    first, again = (
      train(kind, batch_size=num_rows * count, shard=(index, count), workers=workers)
      for _ in range(2)
    )
    for name in names[:resumed_at]:
      drawn(first, name)
    again.restore(json.loads(json.dumps(first.state())))
    for place in range(resumed_at, resumed_at + number):
      of_shard = slice(index * num_rows, (index + 1) * num_rows)
      found = drawn(again, names[place])
      whole_row = {key: leaf[of_shard] for key, leaf in expected[place].items()}
      width = found['tokens'].shape[1]  # `padded` fits the rows of its shard
      assert_equal(
        found, {key: leaf[:, :width] if leaf.ndim > 1 else leaf for key, leaf in whole_row.items()}
      )
    if number == 2:
      again.pause()
      assert again.state()['num_batches'] <= len(names)


@pytest.mark.parametrize('kind', KINDS)
def test_training_has_random_numbers_and_evaluation_none(kind):
  assert next(train(kind))['drawn'].max() > 0
  found = streams.eval_stream(task('single'), definition(), ROOT, 'validation', 4)
  assert all(batch['drawn'].max() <= 0 for batch in found)


@pytest.mark.parametrize('kind', KINDS)
def test_evaluation_of_the_training_split_is_never_packed(kind):
  batches = list(streams.eval_stream(task(kind), definition(), ROOT, 'eval_train', 4))
  assert [batch['weights'].tolist() for batch in batches] == [[1, 1, 1, 1], [1, 1, 0, 0]]
  assert all('segments' not in batch for batch in batches)
  firsts = np.concatenate([batch['tokens'][:, 0] for batch in batches])[:6]
  if 'mixture' in kind:
    assert (firsts < 50).sum() == 2  # of 5 of 16 examples, 6 times
  else:
    assert firsts.tolist() == list(range(6))


def test_evaluation_by_workers_is_that_without():
  with contextlib.closing(Workers(1)) as workers:
    for kind in ('single', 'mixture'):
      arguments = (task(kind), definition(), ROOT, 'eval_train', 4)
      alone = list(streams.eval_stream(*arguments))
      shared = list(streams.eval_stream(*arguments, workers=workers))
      assert len(alone) == len(shared) == 2
      for left, right in zip(alone, shared, strict=True):
        assert_equal(left, right)
    assert len(workers._payloads) == 2  # the workers made them


def test_a_probe_is_a_split_for_evaluation():
  [batch] = streams.eval_stream(task(), definition(), ROOT, 'far', 4)
  assert batch['tokens'][:, 0].tolist() == [100, 101, 102, 102]
  assert batch['weights'].tolist() == [1, 1, 1, 0]
  [generated] = streams.eval_stream(task(), definition(), None, 'far', 4)
  assert generated['weights'].tolist() == [1, 1, 1, 0]
  for name in ('near', 'test'):
    with pytest.raises(ValueError, match=f'has no split {name!r}'):
      streams.eval_stream(task(), definition(), ROOT, name, 4)


def test_a_single_source_comes_in_shuffled_epochs_of_its_own():
  stream = train('mixture', batch_size=5)
  stream.open_source('a')
  epochs = [stream.next_of('a')['tokens'][:, 0].tolist() for _ in range(3)]
  assert [sorted(one) for one in epochs] == [list(range(5))] * 3
  assert epochs[0] != epochs[1] or epochs[1] != epochs[2]
  assert next(stream)['tokens'].shape == (5, 4)
  assert stream.state()['num_batches'] == 1


def test_a_position_without_sources_opens_none():
  stream = train('mixture')
  before = stream.state()
  stream.open_source('a')
  stream.next_of('a')
  assert stream.state()['sources']['a']['num_batches'] == 1
  stream.restore(before)
  assert stream.state() == before


def test_sources_that_are_not_there_are_told():
  with pytest.raises(errors.UserError, match=r"no source of toy, train, 'c'.*Known: a, b"):
    train('mixture').open_source('c')
  for kind in ('single', 'packed'):
    with pytest.raises(errors.UserError, match="only a mixture has sources to draw from; 'a' was"):
      train(kind).open_source('a')


def test_a_smoke_run_has_each_source_that_it_is_asked_for():
  """Names are known with the data, which a smoke run has not."""
  stream = streams.train_stream(task('mixture'), definition(), None, 4, SEED)
  stream.open_source('a')
  assert stream.next_of('a')['tokens'].shape == (4, 4)
  loader = SimpleNamespace(loader=None, fake_batch=task().fake_batch)
  stream = streams.train_stream(loader, definition(), None, 4, SEED)
  with pytest.raises(errors.UserError, match='only a mixture'):
    stream.open_source('a')


class PackedLoader:
  """A loader that shows which examples share a row, as the first and the number of them."""

  def __len__(self):
    return 5

  def __call__(self, rows):
    if rows.edges is None:
      return {'first': rows.indices.copy(), 'number': np.ones_like(rows.indices)}
    return {'first': rows.indices[rows.edges[:-1]], 'number': np.diff(rows.edges)}


def test_a_loader_may_make_packed_rows_in_training_and_only_there():
  lengths = np.full((5, 2), 4)
  found = Packed(PackedLoader(), lengths, 8)
  data = SimpleNamespace(loader=lambda *_: found, fake_batch=task().fake_batch)
  five = definition(splits=Splits(train=5, eval_train=5, validation=5, test=None))
  stream = streams.train_stream(data, five, ROOT, 3, SEED)
  assert sorted(next(stream)['number'].tolist()) == [1, 2, 2]
  evaluated = list(streams.eval_stream(data, five, ROOT, 'eval_train', 5))
  assert [batch['number'].tolist() for batch in evaluated] == [[1] * 5]


def test_a_loader_to_pack_must_be_a_function_with_a_length():
  for loader, said in ((len, 'must have a length'), (None, 'loader must return a function')):
    found = Packed(loader, np.full(5, 4), 8)
    data = SimpleNamespace(loader=lambda *_, found=found: found, fake_batch=None)
    with pytest.raises(errors.UserError, match=said):
      streams.train_stream(data, definition(), ROOT, 2, SEED)


def test_generated_batches_of_evaluation_may_have_a_form_of_their_own():
  def fake_eval_batch(definition, batch_size, seed):
    return {'wide': np.zeros((batch_size, 9))}

  data = task(fake_eval_batch=fake_eval_batch)
  assert next(streams.train_stream(data, definition(), None, 4, SEED)).keys() == {'tokens'}
  for split in ('eval_train', 'validation'):
    batch = next(streams.eval_stream(data, definition(), None, split, 4))
    assert batch.keys() == {'wide', 'weights'}, split


def test_only_sources_that_are_asked_for_are_read():
  read = []

  class Noted(data_examples.Numbers):
    def __init__(self, number):
      super().__init__(4)
      self.number = number

    def __getitem__(self, index):
      read.append(self.number)
      return super().__getitem__(index)

  sources = {f's{number}': Noted(number) for number in range(1000)}

  def source(definition, root, split):
    return Mixture(sources, dict.fromkeys(sources, 1), name='toy')

  many = definition(splits=Splits(train=4000, eval_train=6, validation=5, test=None))
  data = SimpleNamespace(source=source, transform=lambda *_: lambda example, random: example)
  stream = streams.train_stream(data, many, ROOT, 8, SEED)
  stream.open_source('s700')
  stream.next_of('s700')
  assert set(read) == {700}


@pytest.mark.parametrize(('num_cpus', 'expected'), [(1, 0), (2, 1), (6, 5), (13, 12), (64, 12)])
def test_the_number_of_workers_leaves_a_core_to_training(num_cpus, expected):
  assert streams.num_workers(task(), ROOT, num_cpus) == expected
  assert streams.num_workers(task(), None, num_cpus) == 0  # generated examples are arrays
  loader = SimpleNamespace(loader=None)
  assert streams.num_workers(loader, ROOT, num_cpus) == 0


def test_what_single_sources_have_made_ahead_is_bounded():
  """Those that are drawn again and again share what there is: two batches a worker."""
  names = [f's{number}' for number in range(7)]
  mixture = Mixture(
    {name: data_examples.Numbers(4) for name in names}, dict.fromkeys(names, 1), name='toy'
  )
  train = streams.train_stream(
    SimpleNamespace(source=lambda *_: mixture, transform=lambda *_: data_examples.jitter),
    definition(splits=Splits(train=28, eval_train=6, validation=5, test=None)),
    ROOT,
    4,
    SEED,
    num_workers=2,
  )
  with contextlib.closing(train):
    for name in [*names, *names[::-1], *names]:
      train.open_source(name)
      train.next_of(name)
      ahead = [source.num_ahead for source in train._sources.values()]
      assert sum(ahead) == train._num_ahead <= 4 and max(ahead) <= 1
    assert sum(ahead) == 4
    train.pause()
    assert not any(source.num_ahead for source in train._sources.values())


def test_streams_without_workers_start_none(monkeypatch):
  monkeypatch.setattr(streams, 'Workers', lambda number: pytest.fail('started'))
  next(train())


# What a task gets wrong.


def fails_on(index):
  def transform(example, random):
    if example['tokens'][0] == index:
      raise KeyError('colour')
    return noisy(example, random)

  return lambda definition, train: transform


@pytest.mark.parametrize(
  ('kind', 'index', 'where'),
  [
    ('single', 3, 'toy, train, example 3: '),
    ('mixture', 52, 'toy, train, example 2 of source b: '),
    ('packed mixture', 52, 'toy, train, example 2 of source b: '),
  ],
)
def test_a_transform_that_fails_is_named_with_its_example(kind, index, where):
  stream = train(kind, transform=fails_on(index))
  with pytest.raises(TaskError, match=f"{where}KeyError: 'colour'") as caught:
    for _ in range(16):
      next(stream)
  assert isinstance(caught.value.__cause__, KeyError)


def test_a_source_that_fails_is_named_with_its_example():
  class Broken(Texts):
    def __getitem__(self, index):
      return {} if index < 9 else 1 / 0

  stream = train(source=lambda *_: Broken(np.ones(16, int)), transform=lambda *_: lambda e, _: e)
  with pytest.raises(TaskError, match=r'toy, train, example (9|1[0-5]): ZeroDivisionError: '):
    for _ in range(16):
      next(stream)


def test_a_collate_that_fails_or_returns_something_else_is_named_with_its_examples():
  def fails(examples):
    raise ValueError('no two alike')

  where = r'toy, train, the batch of the examples \d+, \d+, \d+, \.\.\.: '
  with pytest.raises(TaskError, match=f'{where}ValueError: no two alike'):
    next(train(collate=lambda _: fails))
  with pytest.raises(
    errors.UserError, match=f'{where}a batch must be a dict of arrays; it is list'
  ):
    next(train(collate=lambda _: lambda examples: examples))
  with pytest.raises(errors.UserError, match=f'{where}a must be an array; it is list'):
    next(train(collate=lambda _: lambda examples: {'a': [1]}))


def test_a_loader_that_fails_or_returns_something_else_is_named_with_its_examples():
  def stream(load):
    data = SimpleNamespace(loader=lambda *_: load)
    return streams.train_stream(data, definition(), ROOT, 4, SEED)

  where = r'toy, train, the batch of the examples \d+, \d+, \d+, \.\.\.: '
  with pytest.raises(TaskError, match=f'{where}ZeroDivisionError: '):
    next(stream(lambda rows: 1 / 0))
  with pytest.raises(errors.UserError, match=f'{where}a/0 must be an array; it is float'):
    next(stream(lambda rows: {'a': (1.0,)}))
  for error in (MemoryError('none left'), errors.UserError('The data is damaged.')):

    def load(rows, error=error):
      raise error

    with pytest.raises(type(error), match=f'^{error}$'):
      next(stream(load))


@pytest.mark.parametrize(
  ('batch', 'said'),
  [
    ({'a': np.zeros(3)}, 'of 4 rows; the shape of a is .3.'),
    ({'a': np.zeros(4), 'b': (np.float32(1),)}, 'of 4 rows; the shape of b/0 is ..'),
    ({}, 'must be a dict of arrays; it is empty'),
    ({'a': np.array(['x'] * 4)}, 'a must be an array; it is an array of texts'),
    ({'a': np.zeros(4), 'weights': (np.ones(4),)}, 'weights must be one array; it is a tree'),
  ],
)
def test_a_batch_that_has_no_row_for_each_example_is_told(batch, said):
  where = 'toy, train, the batch of the examples .*'
  of_loader = streams.train_stream(
    SimpleNamespace(loader=lambda *_: lambda rows: batch), definition(), ROOT, 4, SEED
  )
  for stream in (of_loader, train(collate=lambda _: lambda examples: batch)):
    with pytest.raises(errors.UserError, match=f'{where}{said}'):
      next(stream)


def none(*_):
  return None


def fails(*_):
  raise OSError('no such disk')


@pytest.mark.parametrize(
  ('own', 'error', 'said'),
  [
    ({'source': none}, errors.UserError, 'a source must have a length.* returned None'),
    ({'source': fails}, TaskError, 'source: OSError: no such disk'),
    ({'transform': none}, errors.UserError, 'transform must return a function; it returned None'),
    ({'transform': fails}, TaskError, 'transform: OSError: no such disk'),
    ({'collate': none}, errors.UserError, 'collate must return a function; it returned None'),
    ({'collate': fails}, TaskError, 'collate: OSError: no such disk'),
  ],
)
def test_functions_of_the_task_that_fail_or_return_nothing_are_named(own, error, said):
  with pytest.raises(error, match=f'toy, train[:,] {said}'):
    train(**own)


def test_a_loader_that_is_none_or_of_another_size_is_told():
  short = Arrays({'a': np.zeros(3)})
  for loader, said in ((None, 'loader must return'), (short, 'must hold 16 .* have 3')):
    data = SimpleNamespace(loader=lambda *_, found=loader: found)
    with pytest.raises(errors.UserError, match=f'toy, train: .*{said}'):
      streams.train_stream(data, definition(), ROOT, 4, SEED)


@pytest.mark.parametrize(
  ('batch', 'said'),
  [
    ({'a': [1, 2]}, 'a must be an array; it is list'),
    ({'a': np.zeros(16), 'b': np.zeros(15)}, 'must have one length'),
    ({'a': np.zeros(3)}, 'there must be 16 examples; there are 3'),
    ([1], 'a batch must be a dict of arrays; it is list'),
    ({}, 'must have one length'),
  ],
)
def test_generated_examples_that_are_none_are_told(batch, said):
  data = task(fake_batch=lambda *_: batch)
  with pytest.raises(errors.UserError, match=f'toy, train, fake_batch: .*{said}'):
    streams.train_stream(data, definition(), None, 4, SEED)


@pytest.mark.parametrize('kind', KINDS)
def test_a_split_of_another_size_than_the_definition_says_is_told(kind):
  other = definition(splits=Splits(train=17, eval_train=6, validation=5, test=None))
  with pytest.raises(errors.UserError, match=r'toy, train: the split must hold 17 .* have 16'):
    streams.train_stream(task(kind), other, ROOT, 4, SEED)
