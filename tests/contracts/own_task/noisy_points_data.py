"""Points that are drawn anew from the seed of their split."""

from __future__ import annotations

import numpy as np

from algorithmic_efficiency import seeds
from algorithmic_efficiency.data import records
from algorithmic_efficiency.data.sources import Arrays


def about(definition):
  """Returns origin, license and size of the data set."""
  return records.About(origin='drawn from a seed', licence='none', num_bytes=0)


def prepare(definition, source, out, progress):
  """Does nothing: the points are bundled."""


def loader(definition, root, split):
  """Returns the loader of a split."""
  num_examples = getattr(definition.splits, split)
  return Arrays(fake_batch(definition, num_examples, len(split)))


def fake_batch(definition, batch_size, seed):
  """Returns `inputs` float32 [batch, dims] and `targets` int32 [batch]."""
  random = seeds.generator(seed, 'points')
  targets = random.integers(2, size=batch_size, dtype=np.int32)
  noise = random.standard_normal((batch_size, definition.data.num_dims), np.float32)
  return {'inputs': noise + (2 * targets[:, None] - 1).astype(np.float32), 'targets': targets}
