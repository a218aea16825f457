"""CIFAR-10: photographs of 32x32 pixels, cropped and flipped at random in training.

A batch has `inputs`, float32 [batch, height, width, channels], normalized by the definition's mean
and standard deviation, and `targets`, int32 [batch].

A prepared set has `<split>/inputs`, uint8 [n, 32, 32, 3], and `<split>/targets`, int32 [n]. Its
`batch_sha1s.json` has the hashes of the definition that it was prepared for.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import fetch, random_numbers, records, tfds
from algorithmic_efficiency.data.pipeline import Batch, Load, ShardRows
from algorithmic_efficiency.data.prepare import Progress, Source

from . import cifar_files
from .cifar_files import Group, Labelled
from .photographs import CIFAR10, CIFAR10_JPEG, SmallPhotographs
from .pixels import Normalizer
from .pixels import fake_batch as fake_batch
from .resampling import padded_crops

_HASHES = 'batch_sha1s.json'
_HASHED_IMAGES = 10_000  # for each hash, as in the files of CIFAR-10
_ARCHIVE = fetch.Download(
  name='cifar-10-binary.tar.gz',
  urls=('https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz',),
  sha256='c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd',
  num_bytes=170_052_171,
)
_KNOWN = {
  CIFAR10: 'CIFAR-10 as A. Krizhevsky published it',
  CIFAR10_JPEG: 'CIFAR-10 coded as JPEG and shuffled',
}


def about(definition: WorkloadDefinition) -> records.About:
  """Returns origin, license and size of the data set."""
  splits = definition.splits
  assert splits.test is not None
  num_images = splits.train + splits.validation + splits.test
  return records.About(
    origin=_KNOWN.get(definition.data, 'images in the form of CIFAR-10'),
    licence='not stated',
    num_bytes=num_images * (math.prod(definition.data.image_shape) + 4),
  )


def prepare(
  definition: WorkloadDefinition, source: Source, out: records.Writer, progress: Progress
) -> None:
  """Converts CIFAR-10 to pixels and labels; the last of the training images are validation.

  Args:
    source: files as `cifar_files.read` takes them; a TensorFlow Datasets builder, whose images are
      sorted as in the files; or None to download the archive.

  Raises:
    UserError: a file is missing or truncated, or the images are not those of the definition.
  """
  splits = definition.splits
  assert splits.test is not None
  first_hash = 0
  for group, pieces in (
    ('train', {'train': splits.train, 'validation': splits.validation}),
    ('test', {'test': splits.test}),
  ):
    num_images = sum(pieces.values())
    num_hashes = math.ceil(num_images / _HASHED_IMAGES)
    if not all(out.has(f'{split}/{name}') for split in pieces for name in ('inputs', 'targets')):
      found = _read(definition, group, source, out, progress)
      hashes = definition.data.batch_sha1s[first_hash : first_hash + num_hashes]
      _check(definition, group, found, num_images, hashes)
      _write(pieces, found, out)
    first_hash += num_hashes
  out.file(_HASHES, json.dumps(definition.data.batch_sha1s).encode())


def _read(
  definition: WorkloadDefinition,
  group: Group,
  source: Source,
  out: records.Writer,
  progress: Progress,
) -> Labelled:
  if isinstance(source, tfds.Builder):
    return _of_tfds(source, group, progress)
  if source is None:
    if definition.data != CIFAR10:
      raise errors.UserError(
        f'The data set {definition.dataset} cannot be downloaded: name its folder with --source. '
        'workloads/vision/README.md says what it is.'
      )
    source = fetch.fetch(_ARCHIVE, out.downloads, progress)
  assert isinstance(source, Path)
  return cifar_files.read(source, group, progress)


def _of_tfds(source: tfds.Builder, group: Group, progress: Progress) -> Labelled:
  """Reads a builder, which shuffles the images and numbers them in `id`."""
  found = source.stacked(group, ('image', 'label', 'id'), progress)
  names = found['id'].astype(np.str_).tolist()
  order = np.argsort([cifar_files.number_of(name) for name in names], kind='stable')
  return Labelled(found['image'][order], found['label'][order].astype(np.int32))


def _check(
  definition: WorkloadDefinition,
  group: Group,
  found: Labelled,
  num_images: int,
  expected: tuple[str, ...],
) -> None:
  """
  Raises:
    UserError: there are more or fewer images, or others than those of the definition.
  """
  if len(found.images) != num_images:
    raise errors.UserError(
      f'{definition.name} needs {num_images:,} images in its {group} data; there are '
      f'{len(found.images):,}.'
    )
  for number, sha1 in enumerate(expected):
    rows = slice(number * _HASHED_IMAGES, (number + 1) * _HASHED_IMAGES)
    content = cifar_files.binary_form(found.images[rows], found.labels[rows])
    actual = hashlib.sha1(content).hexdigest()
    if actual != sha1:
      raise errors.UserError(_other_set(definition, group, number, sha1, actual))


def _other_set(
  definition: WorkloadDefinition, group: Group, number: int, expected: str, actual: str
) -> str:
  wanted = _KNOWN.get(definition.data, 'another set')
  given = next((text for data, text in _KNOWN.items() if actual in data.batch_sha1s), '')
  hint = f' The files are {given}.' if given else ''
  return (
    f'The data set {definition.dataset} must be {wanted}, on which its targets were set. The SHA-1 '
    f'of batch {number} of the {group} images must be {expected}; it is {actual}.{hint}'
  )


def _write(pieces: dict[str, int], found: Labelled, out: records.Writer) -> None:
  start = 0
  for split, number in pieces.items():
    rows = slice(start, start + number)
    shape = (number, *found.images.shape[1:])
    out.array(f'{split}/inputs', [found.images[rows]], shape=shape, dtype=np.uint8)
    out.array(f'{split}/targets', [found.labels[rows]], shape=(number,), dtype=np.int32)
    start += number


def loader(definition: WorkloadDefinition, root: Path, split: str) -> Load:
  """Returns the loader of a stored split.

  Raises:
    UserError: the data is missing, damaged or another set.
  """
  return _Images(definition, root, split)


class _Images:
  """A loader that gathers stored pixels, crops and flips those of training, and normalizes all."""

  def __init__(self, definition: WorkloadDefinition, root: Path, split: str):
    self._definition, self._root, self._split = definition, root, split
    prepared = records.open_prepared(root)
    _check_hashes(definition, prepared)
    self._inputs = prepared.field(f'{split}/inputs')
    self._targets = prepared.field(f'{split}/targets')
    data: SmallPhotographs = definition.data
    if self._inputs.shape[1:] != data.image_shape:
      raise records.damaged(
        root,
        f'{definition.name} needs images of {data.image_shape}; they are {self._inputs.shape[1:]}',
      )
    self._padding = data.padding
    self._normalize = Normalizer(definition, data.image_size)

  def __len__(self) -> int:
    return len(self._inputs)

  def __reduce__(self) -> tuple[Any, ...]:
    return type(self), (self._definition, self._root, self._split)

  def __call__(self, rows: ShardRows) -> Batch:
    images = np.take(self._inputs, rows.indices, axis=0)
    if rows.keys is not None:
      images = padded_crops(images, random_numbers.draws(rows.keys, 3), self._padding)
    return {
      'inputs': self._normalize(images),
      'targets': np.take(self._targets, rows.indices),
    }


def _check_hashes(definition: WorkloadDefinition, prepared: records.Prepared) -> None:
  """
  Raises:
    UserError: the set was prepared for another definition.
  """
  expected = definition.data.batch_sha1s
  found = tuple(json.loads((prepared.root / _HASHES).read_bytes()))
  if found != expected:
    raise records.damaged(
      prepared.root, f'{definition.name} is defined on other images, by their hashes in {_HASHES}'
    )
