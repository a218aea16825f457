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
  """Returns the loader of a split; the points of the probe have three times the noise."""
  if split == 'far':
    return Arrays(_points(definition, definition.probes[split].num_examples, 0, noise=3))
  return Arrays(_points(definition, getattr(definition.splits, split), len(split)))


def fake_batch(definition, batch_size, seed):
  """Returns `inputs` float32 [batch, dims] and `targets` int32 [batch]."""
  return _points(definition, batch_size, seed)


def _points(definition, batch_size, seed, noise=1):
  random = seeds.generator(seed, 'points')
  targets = random.integers(2, size=batch_size, dtype=np.int32)
  away = noise * random.standard_normal((batch_size, definition.data.num_dims), np.float32)
  return {'inputs': away + (2 * targets[:, None] - 1).astype(np.float32), 'targets': targets}
