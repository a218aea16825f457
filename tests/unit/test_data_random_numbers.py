"""Random numbers of an example: the same one by one and as arrays, and evenly spread."""

from __future__ import annotations

import numpy as np
import pytest

from algorithmic_efficiency.data import random_numbers
from algorithmic_efficiency.data.random_numbers import ExampleRandom

KNOWN = [[0.8833108082136426, 0.43152799704850997], [0.3784320956512296, 0.9668428686065063]]
EPOCHS, EXAMPLES = np.array([0, 1, 2, 2]), np.array([5, 5, 9, 2**40])


def randoms(seed=7):
  return [ExampleRandom(key) for key in random_numbers.keys(seed, EPOCHS, EXAMPLES).tolist()]


def test_draws_one_by_one_are_those_of_the_arrays():
  expected = random_numbers.uniform(7, EPOCHS, EXAMPLES, 6)
  one_by_one = [[random.uniform() for _ in range(6)] for random in randoms()]
  np.testing.assert_array_equal(one_by_one, expected)
  mixed = [
    [random.uniform(), *random.array(2, 2).ravel(), random.uniform()] for random in randoms()
  ]
  np.testing.assert_array_equal(mixed, expected)


def test_known_values_stay():
  """A change of these changes every augmented batch of every workload."""
  found = random_numbers.uniform(0, np.array([0, 3]), np.array([0, 1]), 2)
  np.testing.assert_array_equal(found, KNOWN)


def test_seed_epoch_and_example_each_change_the_numbers():
  base = random_numbers.uniform(1, np.array([0]), np.array([0]), 4)
  for seed, epoch, example in ((2, 0, 0), (1, 1, 0), (1, 0, 1), (-1, 0, 0)):
    other = random_numbers.uniform(seed, np.array([epoch]), np.array([example]), 4)
    assert not np.isin(other, base).any()


def test_numbers_are_spread_evenly_and_independent_of_their_neighbors():
  number = 100_000
  drawn = random_numbers.uniform(3, np.zeros(number, np.int64), np.arange(number), 2)
  counts = np.histogram(drawn, bins=64, range=(0, 1))[0]
  expected = drawn.size / 64
  assert ((counts - expected) ** 2 / expected).sum() < 110  # chi square, 63 degrees: 1 in 5,000
  for left, right in ((drawn[:, 0], drawn[:, 1]), (drawn[:-1, 0], drawn[1:, 0])):
    assert abs(np.corrcoef(left, right)[0, 1]) < 4 / number**0.5
  epochs = random_numbers.uniform(3, np.arange(number), np.zeros(number, np.int64), 1)[:, 0]
  assert abs(np.corrcoef(epochs[:-1], epochs[1:])[0, 1]) < 4 / number**0.5


def test_ranges_whole_numbers_and_normals():
  random = ExampleRandom(11)
  values = [random.uniform(-2, 3) for _ in range(2_000)]
  assert min(values) >= -2 and max(values) < 3 and max(values) - min(values) > 4.9
  assert {random.integer(3) for _ in range(200)} == {0, 1, 2}
  assert {random.integer(1) for _ in range(5)} == {0}
  normals = np.array([random.normal() for _ in range(4_000)])
  assert abs(normals.mean()) < 0.07 and abs(normals.std() - 1) < 0.05
  assert random.generator().random() != random.generator().random()


@pytest.mark.parametrize('stop', [0, -1, 2**32 + 1])
def test_a_whole_number_below_nothing_is_refused(stop):
  with pytest.raises(ValueError, match='between 1 and 2'):
    ExampleRandom(0).integer(stop)
