"""Packed rows: full, with each example once a pass, and a pure function of seed and position."""

from __future__ import annotations

import functools

import data_examples
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithmic_efficiency import errors
from algorithmic_efficiency.data import trees
from algorithmic_efficiency.data.mixture import Mixed, Mixture
from algorithmic_efficiency.data.packing import Packed, PackedRows, concatenated, patterns
from algorithmic_efficiency.data.pipeline import Shuffled
from algorithmic_efficiency.data.sources import Mapped

ROW_LENGTH = 12
LENGTHS = st.lists(st.integers(1, ROW_LENGTH), min_size=1, max_size=40)


def over_one_source(lengths, *, batch_size=2, seed=3, shard=(0, 1), row_length=ROW_LENGTH):
  sizes = {'batch_size': batch_size, 'seed': seed, 'shard': shard}
  order = Shuffled(num_examples=len(lengths), **sizes)
  return PackedRows(order, [np.array(lengths)], row_length, **sizes)


def over_two_sources(lengths, others, *, batch_size=2, seed=3, shard=(0, 1)):
  sizes = {'batch_size': batch_size, 'seed': seed, 'shard': shard}
  sources = {'a': data_examples.Numbers(len(lengths)), 'b': data_examples.Numbers(len(others))}
  order = Mixed(Mixture(sources, {'a': 1, 'b': 3}, name='toy'), **sizes)
  return PackedRows(order, [np.array(lengths), np.array(others)], ROW_LENGTH, **sizes)


def rows_of(order, number):
  """The rows of the first batches; a row is a list of (source, epoch, example)."""
  found = []
  for batch in range(number):
    one = order.rows(batch)
    parts = np.zeros_like(one.indices) if one.parts is None else one.parts
    examples = list(zip(parts.tolist(), one.epochs.tolist(), one.indices.tolist(), strict=True))
    assert one.edges[0] == 0 and one.edges[-1] == len(examples)
    found += [
      examples[first:last] for first, last in zip(one.edges[:-1], one.edges[1:], strict=True)
    ]
  return found


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 2**62))
def test_each_epoch_of_a_source_has_each_example_once_and_no_row_is_too_long(lengths, seed):
  order = over_one_source(lengths, seed=seed)
  rows = rows_of(order, 3 * len(lengths) // 2 + 3)  # a row has an example at least
  assert all(0 < sum(lengths[one] for _, _, one in row) <= ROW_LENGTH for row in rows)
  examples = [one for row in rows for one in row]
  for epoch in range(3):
    of_epoch = examples[epoch * len(lengths) : (epoch + 1) * len(lengths)]
    assert sorted(of_epoch) == [(0, epoch, index) for index in range(len(lengths))]


@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, others=LENGTHS, seed=st.integers(0, 2**62))
def test_each_pass_of_a_mixture_has_the_examples_of_its_order_once(lengths, others, seed):
  size = len(lengths) + len(others)
  examples = [
    one for row in rows_of(over_two_sources(lengths, others, seed=seed), size) for one in row
  ]
  sources = {'a': data_examples.Numbers(len(lengths)), 'b': data_examples.Numbers(len(others))}
  mixed = Mixed(Mixture(sources, {'a': 1, 'b': 3}, name='toy'), batch_size=1, seed=seed)
  for number in range(2):
    drawn = mixed.examples(number * size, size)
    expected = zip(drawn.parts.tolist(), drawn.epochs.tolist(), drawn.indices.tolist(), strict=True)
    assert sorted(examples[number * size : (number + 1) * size]) == sorted(expected)


@settings(max_examples=25, deadline=None)
@given(
  lengths=LENGTHS,
  others=st.none() | LENGTHS,
  num_rows=st.integers(1, 3),
  count=st.sampled_from([1, 2, 4]),
  batch=st.integers(0, 9),
)
def test_a_batch_is_a_function_of_its_number_for_any_number_of_shards(
  lengths, others, num_rows, count, batch
):
  def order(shard):
    sizes = {'batch_size': num_rows * count, 'shard': shard}
    if others is None:
      return over_one_source(lengths, **sizes)
    return over_two_sources(lengths, others, **sizes)

  whole = order((0, 1))
  past = [rows_of(whole, batch + 1) for _ in range(2)]
  assert past[0] == past[1]
  fresh = [order((index, count)).rows(batch) for index in range(count)]
  joined = np.concatenate([one.indices for one in fresh])
  np.testing.assert_array_equal(joined, whole.rows(batch).indices)
  sizes = np.concatenate([np.diff(one.edges) for one in fresh])
  np.testing.assert_array_equal(sizes, np.diff(whole.rows(batch).edges))


def test_passes_and_seeds_differ():
  lengths = [1, 2, 3, 4, 5, 6] * 20
  first = rows_of(over_one_source(lengths), 10)
  assert first != rows_of(over_one_source(lengths, seed=4), 10)
  rows = [[one for _, _, one in row] for row in rows_of(over_one_source(lengths), 70)]
  assert rows[:35] != rows[35:70]


@pytest.mark.parametrize('row_length', [64, 128, 256, 1024])
def test_rows_are_full_on_lengths_like_those_of_short_sentences(row_length):
  lengths = sentence_lengths()
  num_rows = sum(number for number, _ in patterns(np.bincount(lengths), row_length))
  assert lengths.sum() / (num_rows * row_length) > 0.95


def sentence_lengths():
  """29,000 lengths with the mean and spread of captions in tokens."""
  drawn = np.random.default_rng(0).gamma(9, 1.6, 29_000)
  return np.clip(drawn.round() + 1, 3, 60).astype(np.int64)


def test_rows_resemble_each_other():
  """Else a row would hold a few long examples, or many short ones."""
  numbers = [
    sum(each for _, each in content)
    for number, content in patterns(np.bincount(sentence_lengths()), 256)
    for _ in range(number)
  ]
  assert np.std(numbers) < 3


SIDES = st.lists(
  st.tuples(st.integers(0, ROW_LENGTH), st.integers(0, ROW_LENGTH)), min_size=1, max_size=40
).filter(lambda lengths: any(all(one) for one in lengths))


@settings(max_examples=60, deadline=None)
@given(lengths=SIDES, seed=st.integers(0, 2**62))
def test_no_side_of_a_row_is_too_long_and_examples_with_an_empty_side_are_in_none(lengths, seed):
  packed = Packed(data_examples.Numbers(len(lengths)), lengths, ROW_LENGTH, leave_out_empty=True)
  (checked,) = packed.checked_lengths('toy').values()
  order = over_one_source(checked, seed=seed)
  counted = [index for index, one in enumerate(lengths) if all(one)]
  rows = rows_of(order, len(counted) + 3)
  for row in rows:
    sums = np.sum([lengths[index] for _, _, index in row], axis=0)
    assert (sums > 0).all() and (sums <= ROW_LENGTH).all()
  examples = [one for row in rows for one in row]
  for epoch in range(2):
    of_epoch = examples[epoch * len(counted) : (epoch + 1) * len(counted)]
    assert sorted(of_epoch) == [(0, epoch, index) for index in counted]


@pytest.mark.parametrize('row_length', [64, 128])
def test_both_sides_of_rows_are_full(row_length):
  """Lengths of pairs go together; a row can be no fuller than its longer side lets it."""
  source = sentence_lengths()
  noise = np.random.default_rng(1).normal(0, 2, len(source))
  target = np.clip((source * 1.06 + noise).round(), 3, 64).astype(np.int64)
  sides = np.stack([source, target], axis=1)
  order = over_one_source(sides, row_length=row_length)
  slots = order.num_rows(0) * row_length
  assert target.sum() / slots > 0.975
  assert sides.sum() / (2 * slots) > 0.945


def test_lengths_of_one_side_are_refused_where_they_are_not_of_all():
  mixture = Mixture(
    {'a': data_examples.Numbers(1), 'b': data_examples.Numbers(1)}, {'a': 1, 'b': 1}, name='toy'
  )
  lengths = {'a': np.ones(1, int), 'b': np.ones((1, 2), int)}
  with pytest.raises(errors.UserError, match='must have equally many sides'):
    Packed(mixture, lengths, ROW_LENGTH).checked_lengths('toy, train')


def test_a_side_that_fits_no_row_is_named():
  packed = Packed(data_examples.Numbers(2), np.array([[1, 12], [3, 13]]), ROW_LENGTH)
  with pytest.raises(errors.UserError, match=r'example 1: .*; it has 3 and 13\.'):
    packed.checked_lengths('toy, train')
  packed = Packed(data_examples.Numbers(1), np.array([[1, 0]]), ROW_LENGTH)
  with pytest.raises(errors.UserError, match=r'example 0: .*; it has 1 and 0\.'):
    packed.checked_lengths('toy, train')
  packed = Packed(data_examples.Numbers(1), np.array([[1, 0]]), ROW_LENGTH, leave_out_empty=True)
  with pytest.raises(errors.UserError, match='all are left out'):
    packed.checked_lengths('toy, train')


@pytest.mark.parametrize('length', [0, -1, 13])
def test_a_length_that_fits_no_row_is_named(length):
  packed = Packed(data_examples.Numbers(3), np.array([1, 12, length]), ROW_LENGTH)
  said = f'toy, train, example 2: .* a length from 1 to 12, the length of a row; it has {length}'
  with pytest.raises(errors.UserError, match=said):
    packed.checked_lengths('toy, train')
  mixture = Mixture({'a': data_examples.Numbers(3)}, {'a': 1}, name='toy')
  with pytest.raises(errors.UserError, match='toy, train, example 2 of source a: '):
    Packed(mixture, {'a': np.array([1, 12, length])}, ROW_LENGTH).checked_lengths('toy, train')


@pytest.mark.parametrize('lengths', [[1, 2], [[1], [2], [3]], [1.0, 2.0, 3.0]])
def test_lengths_are_whole_numbers_one_for_each_example(lengths):
  packed = Packed(data_examples.Numbers(3), np.array(lengths), ROW_LENGTH)
  with pytest.raises(
    errors.UserError, match='a whole number for each example, of which there are 3'
  ):
    packed.checked_lengths('toy, train')


@pytest.mark.parametrize('own', [{'row_length': 8.0}, {'row_length': '8'}, {'join': None}])
def test_row_length_and_join_of_another_kind_are_told(own):
  packed = Packed(data_examples.Numbers(1), np.array([1]), **{'row_length': 8, **own})
  with pytest.raises(errors.UserError, match=r'toy, train: .*must be a (whole number|function)'):
    packed.checked_lengths('toy, train')


def test_a_mixture_needs_the_lengths_of_each_source():
  mixture = Mixture({'a': data_examples.Numbers(3)}, {'a': 1}, name='toy')
  for lengths in (np.ones(3, int), {'b': np.ones(3, int)}):
    with pytest.raises(errors.UserError, match='needs lengths for each of its sources: a'):
      Packed(mixture, lengths, ROW_LENGTH).checked_lengths('toy, train')


def test_examples_are_joined_and_padded():
  examples = [
    {'a': np.arange(1, 4), 'b': {'c': np.ones((3, 2))}},
    {'a': np.arange(2), 'b': {'c': np.zeros((2, 2))}},
  ]
  found = concatenated(examples, 7)
  assert found['a'].tolist() == [1, 2, 3, 0, 1, 0, 0]
  assert found['segments'].tolist() == [1, 1, 1, 2, 2, 0, 0]
  assert found['positions'].tolist() == [0, 1, 2, 0, 1, 0, 0]
  assert found['b']['c'].shape == (7, 2) and found['b']['c'].sum() == 6
  assert found['segments'].dtype == found['positions'].dtype == np.int32
  assert found['a'].dtype == np.int64


@pytest.mark.parametrize(
  ('other', 'said'),
  [
    ({'a': np.zeros(5)}, r'example 4.*6 entries at most; they have 7, so the stored lengths'),
    ({'a': np.zeros(1), 'b': np.zeros(2)}, r'example 9.*leaves of a packed example must have one'),
    ({'a': np.float32(1)}, r'example 9.*must have one length'),
    ({'a': np.zeros(1, np.int8)}, r'example 9.*examples must have one structure'),
    ({'a': np.zeros((1, 3))}, r'example 9.*examples must have one structure'),
    ({'segments': np.zeros(1)}, r'example 9.*packing adds `segments` and `positions`'),
  ],
)
def test_examples_that_cannot_be_joined_are_named(other, said):
  source = [{'a': np.zeros(2)}] * 9 + [other]
  load = Mapped(
    {'': source},
    lambda example, _: example,
    None,
    seed=None,
    name='toy, train',
    join=functools.partial(concatenated, row_length=6),
  )
  rows = (
    over_one_source([1] * 10)
    .rows(0)
    ._replace(indices=np.array([0, 4, 9]), epochs=np.zeros(3, int), edges=np.array([0, 1, 3]))
  )
  with pytest.raises(errors.UserError, match=f'toy, train, {said}'):
    load(rows)


def test_a_transformed_example_keeps_its_own_random_numbers_in_any_row():
  source = [{'a': np.full(length, length)} for length in range(1, 6)]

  def with_number(example, random):
    return {**example, 'drawn': np.full(len(example['a']), random.uniform())}

  def drawn(row_length):
    join = functools.partial(concatenated, row_length=row_length)
    load = Mapped({'': source}, with_number, None, seed=5, name='toy, train', join=join)
    order = over_one_source([1, 2, 3, 4, 5], batch_size=1, row_length=row_length)
    found = {}
    for batch in range(2 if row_length == 15 else 6):
      row = {name: leaf[0] for name, leaf in load(order.rows(batch)).items()}
      epoch = order.rows(batch).epochs[0]
      found |= {(epoch, key): value for key, value in zip(row['a'], row['drawn'], strict=True)}
    return {key: value for key, value in found.items() if key[0] < 1 and key[1]}

  assert drawn(15) == drawn(5)


def test_a_leaf_of_a_row_is_no_view_of_an_example():
  example = {'a': np.ones(4)}
  assert not np.shares_memory(concatenated([example], 4)['a'], example['a'])
  with pytest.raises(trees.TreeError):
    concatenated([{'a': [1, 2]}], 4)
