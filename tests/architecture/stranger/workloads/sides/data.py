"""Points that are drawn anew; labels say on which side of a line they lie."""

from __future__ import annotations

import numpy as np

from algorithmic_efficiency import seeds
from algorithmic_efficiency.data.sources import Arrays


def fake_batch(definition, batch_size, seed):
  random = seeds.generator(seed, 'points')
  inputs = random.standard_normal((batch_size, definition.data.num_dims), np.float32)
  return {'inputs': inputs, 'targets': (inputs.sum(axis=1) > 0).astype(np.int32)}


def loader(definition, root, split):
  num_examples = getattr(definition.splits, split)
  return Arrays(fake_batch(definition, num_examples, 0 if split == 'train' else 1))
