"""Batches that a task mixes: one weight a batch, rolled over the global batch, for any shards."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Splits, variant
from algorithmic_efficiency.data import random_numbers, streams
from algorithmic_efficiency.data.mixture import Mixture
from algorithmic_efficiency.data.packing import Packed
from algorithmic_efficiency.data.sources import Arrays, TaskError

ROOT = Path('nowhere')
SIZE, BATCH, SEED = 20, 8, 5
DEFINITION = variant(
  registry.workload('quick_vision'),
  name='toy',
  splits=Splits(train=SIZE, eval_train=6, validation=5, test=None),
)


class Numbers:
  """Examples that hold their own number."""

  def __init__(self, length=SIZE):
    self._length = length

  def __len__(self):
    return self._length

  def __getitem__(self, index):
    return {'number': np.float64(index)}


def with_before(rows, before, random):
  """Keeps both rows and the weight, to be looked at."""
  weight = np.full(len(rows['number']), random.uniform())
  rolled = np.concatenate([before['number'], rows['number'][:-1]])
  return {'number': rows['number'], 'before': rolled, 'weight': weight}


def task(**changes):
  functions = {
    'source': lambda definition, root, split: Numbers(SIZE if split == 'train' else 5),
    'transform': lambda definition, train: lambda example, random: example,
    'mix_batch': lambda definition: with_before,
    'fake_batch': lambda definition, size, seed: {'number': np.arange(float(size))},
  }
  return SimpleNamespace(**{**functions, **changes})


def batches(number, *, shard=(0, 1), root=ROOT, data=None):
  stream = streams.train_stream(data or task(), DEFINITION, root, BATCH, SEED, shard=shard)
  return [next(stream) for _ in range(number)]


def test_each_row_meets_the_one_before_it_in_the_global_batch_and_the_first_the_last():
  for batch in batches(4):
    np.testing.assert_array_equal(batch['before'], np.roll(batch['number'], 1))


def test_a_batch_has_one_weight_and_the_next_one_another():
  weights = [np.unique(batch['weight']) for batch in batches(4)]
  assert all(len(weight) == 1 for weight in weights)
  assert len(np.unique(weights)) == 4


@pytest.mark.parametrize('count', [2, 4, 8])
def test_shards_make_up_the_batch_of_one(count):
  """Batches hold the end of an epoch and the start of the next, too: 20 examples, 8 a batch."""
  whole = batches(5)
  parts = [batches(5, shard=(index, count)) for index in range(count)]
  for batch, *shards in zip(whole, *parts, strict=True):
    for name, expected in batch.items():
      found = np.concatenate([shard[name] for shard in shards])
      np.testing.assert_array_equal(found, expected)


def test_evaluation_is_not_mixed_and_generated_training_batches_are():
  assert 'before' not in next(streams.eval_stream(task(), DEFINITION, ROOT, 'eval_train', 6))
  assert 'before' in batches(1, root=None)[0]
  assert 'before' not in next(streams.eval_stream(task(), DEFINITION, None, 'eval_train', 6))


def test_a_single_source_of_a_mixture_is_mixed_from_itself():
  sources = {'few': Numbers(3), 'many': Numbers(17)}
  data = task(
    source=lambda *_: Mixture(sources, {'few': 1, 'many': 1}, name='toy'),
  )
  stream = streams.train_stream(data, DEFINITION, ROOT, BATCH, SEED)
  stream.open_source('few')
  batch = stream.next_of('few')
  np.testing.assert_array_equal(batch['before'], np.roll(batch['number'], 1))
  assert batch['number'].max() < 3
  assert batch['weight'][0] != next(stream)['weight'][0]


def test_a_definition_may_mix_nothing():
  assert 'before' not in batches(1, data=task(mix_batch=lambda definition: None))[0]


def test_what_is_no_function_is_refused():
  with pytest.raises(errors.UserError, match=r'must return a function or None; .* 0\.2'):
    batches(1, data=task(mix_batch=lambda definition: 0.2))


def test_packed_rows_cannot_be_mixed():
  packed = Packed(Numbers(), np.ones(SIZE, np.int64), 4)
  with pytest.raises(errors.UserError, match=r'train: mix_batch mixes rows .* packed'):
    batches(1, data=task(source=lambda *_: packed))


def test_a_mix_that_fails_or_drops_rows_is_named_with_its_batch():
  def broken(rows, before, random):
    raise KeyError('image')

  with pytest.raises(TaskError, match="toy, train, mix_batch of batch 0: KeyError: 'image'"):
    batches(1, data=task(mix_batch=lambda definition: broken))
  with pytest.raises(errors.UserError, match='mix_batch of batch 0: the first axis'):
    batches(1, data=task(mix_batch=lambda definition: lambda rows, before, random: before))


def test_a_loader_gets_keys_in_training_and_none_in_evaluation():
  seen = []

  def loader(definition, root, split):
    arrays = Arrays({'number': np.arange(20.0 if split == 'train' else 5.0)})

    def load(rows):
      seen.append(rows)
      return arrays(rows)

    return load

  data = SimpleNamespace(loader=loader)
  stream = streams.train_stream(data, DEFINITION, ROOT, BATCH, SEED)
  for _ in range(3):
    next(stream)
  next(streams.eval_stream(data, DEFINITION, ROOT, 'eval_train', 6))
  *training, evaluation = seen
  assert evaluation.keys is None
  keys = np.concatenate([rows.keys for rows in training])
  assert len(np.unique(keys)) == 24, 'an example has other random numbers in each epoch'
  [drawn] = random_numbers.draws(keys[:1], 3)
  random = random_numbers.ExampleRandom(int(keys[0]))
  assert drawn.tolist() == [random.uniform() for _ in range(3)]


def test_keys_of_a_loader_are_those_of_a_transform():
  """So a task may be written in either form, and gives the same batches."""
  drawn = []

  def transform(example, random):
    drawn.append(random.uniform())
    return example

  keys = []

  def load(rows):
    keys.append(rows.keys)
    return {'number': np.zeros(rows.num_rows)}

  mapped = task(transform=lambda definition, train: transform, mix_batch=lambda definition: None)
  next(streams.train_stream(mapped, DEFINITION, ROOT, BATCH, SEED))
  loaded = SimpleNamespace(loader=lambda *_: load)
  next(streams.train_stream(loaded, DEFINITION, ROOT, BATCH, SEED))
  assert random_numbers.draws(keys[0], 1)[:, 0].tolist() == drawn
