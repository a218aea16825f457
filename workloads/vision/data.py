"""Digits of scikit-learn and MNIST: small images that fit in memory.

A batch has `inputs`, float32 [batch, height, width, channels], normalized by the definition's mean
and standard deviation, and `targets`, int32 [batch]. In evaluation it also has `weights`, float32
[batch], 0 for padding. As in AlgoPerf, training batches of MNIST have `weights` too, all 1.

MNIST from TensorFlow Datasets keeps the order of that library. Its validation split has another
10,000 of the 60,000 training images than the validation split from the original files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from algorithmic_efficiency import errors, seeds
from algorithmic_efficiency.benchmark.definition import Split, WorkloadDefinition
from algorithmic_efficiency.data import digit_images, fetch, random_numbers, records, tfds
from algorithmic_efficiency.data.pipeline import Batch, Load, ShardRows
from algorithmic_efficiency.data.prepare import Progress, Source

from .resampling import padded_crops

_MNIST_PLACES = (
  'https://storage.googleapis.com/cvdf-datasets/mnist/',
  'https://ossci-datasets.s3.amazonaws.com/mnist/',
)

_ABOUT = {'digits': digit_images.DIGITS_ABOUT, 'mnist': digit_images.MNIST_ABOUT}


def about(definition: WorkloadDefinition) -> records.About:
  """Returns origin, license and size of the data set."""
  return _ABOUT[definition.data.source]


def prepare(
  definition: WorkloadDefinition, source: Source, out: records.Writer, progress: Progress
) -> None:
  """Converts MNIST to fields `<split>/inputs` uint8 [n, 28, 28, 1] and `<split>/targets` int32 [n].

  Args:
    source: a folder with the four idx files, compressed or not; a TensorFlow Datasets builder; or
      None to download the files.

  Raises:
    UserError: a file is missing, truncated or not MNIST's.
  """
  splits = definition.splits
  assert splits.test is not None
  parts = {
    'train': (('train', 0, splits.train), ('validation', splits.train, splits.validation)),
    'test': (('test', 0, splits.test),),
  }
  for group, pieces in parts.items():
    if all(out.has(f'{split}/{name}') for split, _, _ in pieces for name in ('inputs', 'targets')):
      continue
    images, labels = _raw(definition, group, source, out, progress)
    expected = sum(number for _, _, number in pieces)
    if len(images) != expected or len(labels) != expected:
      raise errors.UserError(
        f'{definition.name} needs {expected} images and labels in its {group} data; there are '
        f'{len(images)} and {len(labels)}.'
      )
    for split, start, number in pieces:
      rows = slice(start, start + number)
      shape = (number, *definition.data.image_shape)
      inputs = images[rows].reshape(shape)
      out.array(f'{split}/inputs', [inputs], shape=shape, dtype=np.uint8)
      out.array(f'{split}/targets', [labels[rows]], shape=(number,), dtype=np.int32)


def loader(definition: WorkloadDefinition, root: Path, split: str) -> Load:
  """Returns the loader of a stored split.

  Raises:
    UserError: the data is missing or damaged.
  """
  return _Images(definition, root, split)


def fake_batch(definition: WorkloadDefinition, batch_size: int, seed: int) -> Batch:
  """Returns a training batch of generated images and labels of the right ranks and types."""
  random = seeds.generator(seed, 'fake')
  shape = (batch_size, *definition.data.image_shape)
  inputs = random.standard_normal(shape, np.float32)
  targets = random.integers(definition.data.num_classes, size=batch_size, dtype=np.int32)
  return _batch(definition, inputs, targets)


def _batch(definition: WorkloadDefinition, inputs: np.ndarray, targets: np.ndarray) -> Batch:
  batch = {'inputs': inputs, 'targets': targets}
  if definition.data.source == 'mnist':
    batch['weights'] = np.ones(len(targets), np.float32)
  return batch


class _Images:
  """A loader that gathers stored pixels and normalizes them in place."""

  def __init__(self, definition: WorkloadDefinition, root: Path, split: Literal['train'] | Split):
    self._definition = definition
    self._max_shift = definition.data.max_shift
    if definition.data.source == 'digits':
      self._inputs, self._targets = digit_images.digits()[split]
    else:
      prepared = records.open_prepared(root)
      self._inputs = prepared.field(f'{split}/inputs')
      self._targets = prepared.field(f'{split}/targets')
    splits = definition.splits
    expected = splits.train if split == 'train' else splits.num_examples(split)
    if self._inputs.shape != (expected, *definition.data.image_shape):
      raise records.damaged(
        root,
        f'{definition.name} needs {expected} images of {definition.data.image_shape} in its split '
        f'{split}, which holds {self._inputs.shape}',
      )
    assert definition.train_mean is not None and definition.train_stddev is not None
    mean, stddev = np.float64(definition.train_mean), np.float64(definition.train_stddev)
    self._scale = (1 / stddev).astype(np.float32)
    self._shift = (mean / stddev).astype(np.float32)

  def __call__(self, rows: ShardRows) -> Batch:
    images = np.take(self._inputs, rows.indices, axis=0)
    if self._max_shift:
      keys = rows.keys
      if keys is None:  # evaluation
        keys = random_numbers.keys(0, np.zeros_like(rows.indices), rows.indices)
      images = padded_crops(images, random_numbers.draws(keys, 2), self._max_shift)
    inputs = images * self._scale
    inputs -= self._shift
    return _batch(self._definition, inputs, np.take(self._targets, rows.indices))


def _raw(
  definition: WorkloadDefinition,
  group: str,
  source: Source,
  out: records.Writer,
  progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns images, uint8 [n, 28, 28] or [n, 28, 28, 1], and labels, [n], of 'train' or 'test'."""
  if isinstance(source, tfds.Builder):
    features = source.stacked(group, ('image', 'label'), progress)
    return features['image'], features['label']
  folder = source
  if source is None:
    folder = out.downloads
    for file in digit_images.MNIST_FILES[group]:
      fetch.fetch(file.download(_MNIST_PLACES), folder, progress)
  return digit_images.mnist(group, folder, progress)
