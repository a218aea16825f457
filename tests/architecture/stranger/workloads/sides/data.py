"""Points that are drawn anew; labels say on which side of a line they lie."""

from __future__ import annotations

import numpy as np

from algorithmic_efficiency import seeds
from algorithmic_efficiency.data.pipeline import Batches, InOrder, Shuffled
from algorithmic_efficiency.data.sources import Arrays


def fake_batch(definition, batch_size, seed):
  random = seeds.generator(seed, 'points')
  inputs = random.standard_normal((batch_size, definition.data.num_dims), np.float32)
  return {'inputs': inputs, 'targets': (inputs.sum(axis=1) > 0).astype(np.int32)}


def train_stream(definition, root, batch_size, seed, shard=(0, 1)):
  examples = Arrays(fake_batch(definition, definition.splits.train, 0))
  return Batches(
    Shuffled(num_examples=len(examples), batch_size=batch_size, seed=seed, shard=shard), examples
  )


def eval_stream(definition, root, split, batch_size, shard=(0, 1)):
  examples = Arrays(fake_batch(definition, definition.splits.num_examples(split), 1))
  return Batches(InOrder(num_examples=len(examples), batch_size=batch_size, shard=shard), examples)
