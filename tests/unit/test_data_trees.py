"""Trees of arrays, and what is refused as none, by its path."""

from __future__ import annotations

import numpy as np
import pytest

from algorithmic_efficiency import errors
from algorithmic_efficiency.data import trees
from algorithmic_efficiency.data.pipeline import ShardRows
from algorithmic_efficiency.data.sources import Arrays, Mapped

TREE = {
  'image': {'pixels': np.zeros((2, 3)), 'size': np.arange(2)},
  'pair': (np.ones(2), np.ones(2)),
}


def test_leaves_come_with_their_paths():
  assert [path for path, _ in trees.leaves(TREE)] == [
    'image/pixels',
    'image/size',
    'pair/0',
    'pair/1',
  ]


def test_rows_are_gathered_from_every_leaf():
  found = Arrays(TREE)(ShardRows(np.array([1, 1, 0]), np.zeros(3, np.int64), None))
  np.testing.assert_array_equal(found['image']['size'], [1, 1, 0])
  assert found['image']['pixels'].shape == (3, 3) and found['pair'][1].shape == (3,)


def test_examples_are_stacked_leaf_by_leaf():
  examples = [{'a': {'b': np.full(2, k)}, 'c': (np.int32(k),)} for k in range(3)]
  found = trees.stack(examples)
  np.testing.assert_array_equal(found['a']['b'], [[0, 0], [1, 1], [2, 2]])
  assert found['c'][0].dtype == np.int32


@pytest.mark.parametrize(
  ('value', 'said'),
  [
    ({'a': {'b': [1, 2]}}, 'a/b must be an array; it is list'),
    ({'a': 'text'}, 'a must be an array; it is str'),
    ({'a': np.array([None])}, 'a must be an array; it is an array of objects'),
    ({1: np.zeros(1)}, 'The keys of a batch must be texts; one is 1'),
    ({'a': (np.zeros(1), 3.0)}, 'a/1 must be an array; it is float'),
  ],
)
def test_what_is_no_tree_is_named_with_task_split_and_example(value, said):
  load = Mapped({'': [{}] * 9}, lambda *_: value, None, seed=None, name='toy, train')
  with pytest.raises(errors.UserError, match=f'toy, train, example 7: {said}'):
    load(ShardRows(np.array([7]), np.array([0]), None))


@pytest.mark.parametrize(
  'other',
  [
    {'a': np.zeros(3)},
    {'a': np.zeros(2, np.float32)},
    {'a': np.zeros(2), 'b': np.zeros(2)},
    {'a': (np.zeros(2),)},
  ],
)
def test_examples_that_differ_are_told(other):
  source = [{'a': np.zeros(2)}, other]
  load = Mapped({'': source}, lambda example, _: example, None, seed=None, name='toy, train')
  with pytest.raises(
    errors.UserError, match='toy, train, example 1: examples must have one structure; it is'
  ):
    load(ShardRows(np.array([0, 1]), np.array([0, 0]), None))


def test_trees_of_other_structure_are_not_mapped_together():
  for other in ({'a': np.zeros(1)}, {'image': TREE['image'], 'pair': np.zeros(2)}, (1, 2)):
    with pytest.raises(trees.TreeError, match='must be'):
      trees.map_leaves(lambda *_: None, TREE, other)
