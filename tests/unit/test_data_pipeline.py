from __future__ import annotations

import hashlib
import json

import data_examples
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithmic_efficiency import errors
from algorithmic_efficiency.data.pipeline import (
  Batches,
  InOrder,
  ShardRows,
  Shuffled,
)
from algorithmic_efficiency.data.sources import Arrays


def train(num_examples=10, batch_size=4, seed=3, shard=(0, 1), load=None):
  order = Shuffled(num_examples=num_examples, batch_size=batch_size, seed=seed, shard=shard)
  return Batches(order, load or data_examples.load_numbers)


def evaluation(num_examples=10, batch_size=4, shard=(0, 1), load=None):
  order = InOrder(num_examples=num_examples, batch_size=batch_size, shard=shard)
  return Batches(order, load or data_examples.load_numbers)


def take(stream, number):
  return [next(stream) for _ in range(number)]


def assert_equal(left, right):
  assert len(left) == len(right)
  for one, other in zip(left, right, strict=True):
    assert one.keys() == other.keys()
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])


@settings(max_examples=60, deadline=None)
@given(
  num_examples=st.integers(1, 40),
  rows=st.integers(1, 7),
  count=st.integers(1, 4),
  seed=st.integers(0, 2**62),
)
def test_every_pass_is_a_permutation_and_shards_are_parts_of_the_global_batch(
  num_examples, rows, count, seed
):
  batch_size = rows * count
  number = 3 * num_examples // batch_size + 2
  whole = take(train(num_examples, batch_size, seed), number)
  parts = [
    take(train(num_examples, batch_size, seed, shard=(index, count)), number)
    for index in range(count)
  ]
  joined = [
    {name: np.concatenate([part[k][name] for part in parts]) for name in whole[k]}
    for k in range(number)
  ]
  assert_equal(joined, whole)
  examples = np.concatenate([batch['inputs'] for batch in whole])
  for epoch in range(3):
    one_pass = examples[epoch * num_examples : (epoch + 1) * num_examples]
    assert sorted(one_pass) == list(range(num_examples))


def test_passes_differ_and_epochs_are_counted():
  batches = take(train(num_examples=100, batch_size=100), 2)
  assert list(batches[0]['inputs']) != list(batches[1]['inputs'])
  assert set(batches[0]['epochs']) == {0}
  assert set(batches[1]['epochs']) == {1}


def test_tail_of_a_pass_and_head_of_the_next_share_a_batch():
  batches = take(train(num_examples=10, batch_size=4), 3)
  np.testing.assert_array_equal(batches[2]['epochs'], [0, 0, 1, 1])


def test_the_order_of_a_seed_does_not_change_between_versions():
  examples = np.concatenate([b['inputs'] for b in take(train(1000, 100, 12345), 20)])
  digest = hashlib.sha256(examples.astype('<i8').tobytes()).hexdigest()
  assert digest[:16] == '3e5f5256bc4a87da'


def test_reference_fault_17_the_order_comes_from_the_seed_alone():
  first = take(train(seed=1), 5)
  np.random.seed(0)
  assert_equal(take(train(seed=1), 5), first)
  assert not np.array_equal(next(train(seed=2))['inputs'], first[0]['inputs'])


def test_reference_fault_32_a_restored_stream_continues_in_the_same_order():
  number = 8
  stream = train()
  expected, states = [], [stream.state()]
  for _ in range(number):
    expected.append(next(stream))
    states.append(json.loads(json.dumps(stream.state())))
  for step, state in enumerate(states):
    stream.restore(state)
    assert stream.state() == state
    assert_equal(take(stream, number - step), expected[step:])
  stream.close()


def test_restoring_twice_in_a_row_and_before_the_first_batch():
  stream = train()
  expected = take(train(), 6)
  stream.restore({**stream.state(), 'num_batches': 2})
  stream.restore({**stream.state(), 'num_batches': 4})
  assert_equal(take(stream, 2), expected[4:])
  stream.close()


@pytest.mark.parametrize('change', [{'seed': 4}, {'batch_size': 5}, {'num_examples': 11}], ids=str)
def test_a_position_of_another_stream_is_refused(change):
  with pytest.raises(ValueError, match='a position of the same order'):
    train().restore(train(**change).state())


@settings(max_examples=60, deadline=None)
@given(num_examples=st.integers(1, 40), rows=st.integers(1, 7), count=st.integers(1, 4))
def test_reference_faults_18_and_23_evaluation_covers_exactly_the_split(num_examples, rows, count):
  seen = []
  for index in range(count):
    batches = list(evaluation(num_examples, rows * count, shard=(index, count)))
    assert len(batches) == -(-num_examples // (rows * count))
    for batch in batches:
      assert len(batch['inputs']) == len(batch['weights']) == rows
      assert batch['weights'].dtype == np.float32
      assert batch['inputs'].max() < num_examples
      seen.extend(batch['inputs'][batch['weights'] == 1])
  assert sorted(seen) == list(range(num_examples))


def test_evaluation_is_in_order_and_pads_at_the_end():
  batches = list(evaluation(10, 4))
  np.testing.assert_array_equal(
    np.concatenate([batch['inputs'] for batch in batches]), [*range(10), 9, 9]
  )
  np.testing.assert_array_equal(batches[2]['weights'], [1, 1, 0, 0])


def test_reference_fault_24_padding_leaves_the_loaded_batch_alone():
  loaded = {'inputs': np.ones((2, 3), np.float32), 'weights': np.ones((2, 3), np.float32)}
  batch = next(evaluation(1, 2, load=lambda rows: loaded))
  np.testing.assert_array_equal(batch['weights'], [[1, 1, 1], [0, 0, 0]])
  np.testing.assert_array_equal(loaded['weights'], np.ones((2, 3)))
  assert set(loaded) == {'inputs', 'weights'}


def test_batches_are_never_reused():
  source = Arrays({'inputs': np.arange(10.0)})
  stream = train(load=source)
  first = next(stream)['inputs']
  kept = first.copy()
  first += 100
  for _ in range(10):
    assert not np.shares_memory(first, next(stream)['inputs'])
  assert next(train(load=source))['inputs'].max() < 10
  np.testing.assert_array_equal(first, kept + 100)


def test_arrays_gather_tuples():
  source = Arrays({'inputs': (np.arange(6), np.arange(12).reshape(6, 2)), 'targets': np.arange(6)})
  batch = source(ShardRows(np.array([4, 1]), np.zeros(2, int), None))
  np.testing.assert_array_equal(batch['inputs'][0], [4, 1])
  np.testing.assert_array_equal(batch['inputs'][1], [[8, 9], [2, 3]])


def test_arrays_of_different_lengths_are_refused():
  with pytest.raises(ValueError, match='one length'):
    Arrays({'inputs': np.arange(3), 'targets': np.arange(4)})


def test_augmentation_depends_on_seed_epoch_and_example_alone():
  def examples(batch_size, seed=5):
    load = data_examples.mapped(data_examples.Numbers(6), data_examples.jitter, seed=seed)
    rows = {}
    stream = train(6, batch_size, load=load)
    epochs = train(6, batch_size)
    for _ in range(12 // batch_size):
      batch, numbers = next(stream), next(epochs)
      for row, target in enumerate(batch['targets']):
        rows[int(numbers['epochs'][row]), int(target)] = batch['inputs'][row]
    return rows

  by_two, by_three = examples(2), examples(3)
  assert by_two.keys() == by_three.keys()
  for key, value in by_two.items():
    np.testing.assert_array_equal(value, by_three[key])
  assert not np.array_equal(by_two[0, 1], by_two[1, 1])
  assert not np.allclose(by_two[0, 1] - 1, by_two[0, 2] - 2, atol=1e-3)
  assert not np.array_equal(by_two[0, 1], examples(2, seed=6)[0, 1])


def test_records_are_not_augmented_in_evaluation():
  load = data_examples.mapped(data_examples.Numbers(5), data_examples.jitter, seed=None)
  batch = next(evaluation(5, 5, load=load))
  np.testing.assert_array_equal(batch['inputs'][:, 0], range(5))


def test_records_with_tuples_are_stacked():
  load = data_examples.mapped(data_examples.Numbers(5), data_examples.with_pair, seed=None)
  batch = next(evaluation(5, 5, load=load))
  assert batch['inputs'][0].shape == (5, 3)
  np.testing.assert_array_equal(batch['inputs'][1], range(5))


def test_a_closed_stream_gives_nothing_more():
  stream = train()
  next(stream)
  stream.close()
  stream.close()
  with pytest.raises(StopIteration):
    next(stream)


def test_sizes_that_cannot_be():
  with pytest.raises(errors.UserError, match='not divisible by 3'):
    train(batch_size=4, shard=(0, 3))
  with pytest.raises(errors.UserError, match='must be positive; it is 0'):
    evaluation(batch_size=0)
  with pytest.raises(ValueError, match='must have examples; it has 0'):
    train(num_examples=0)
  with pytest.raises(ValueError, match=r'index < count; it is \(2, 2\)'):
    train(shard=(2, 2))
