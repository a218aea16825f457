"""Digits of scikit-learn and MNIST: small images that fit in memory.

A batch has `inputs`, float32 [batch, height, width, channels], normalized by the definition's mean
and standard deviation, and `targets`, int32 [batch]. In evaluation it also has `weights`, float32
[batch], 0 for padding. As in AlgoPerf, training batches of MNIST have `weights` too, all 1.

MNIST from TensorFlow Datasets keeps the order of that library. Its validation split has another
10,000 of the 60,000 training images than the validation split from the original files.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.util
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from algorithmic_efficiency import errors, seeds
from algorithmic_efficiency.benchmark.definition import Split, WorkloadDefinition
from algorithmic_efficiency.data import fetch, records, tfds
from algorithmic_efficiency.data.pipeline import Batch, Load, ShardRows
from algorithmic_efficiency.data.prepare import Progress, Source

_DIGITS_FILE = 'datasets/data/digits.csv.gz'
_DIGITS_SHA256 = '68aea062d35a127749050fa0e52dca09d6569ac08092c925610e0954e172dde2'

_MNIST_PLACES = (
  'https://storage.googleapis.com/cvdf-datasets/mnist/',
  'https://ossci-datasets.s3.amazonaws.com/mnist/',
)


@dataclass(frozen=True)
class _IdxFile:
  """One of MNIST's original files: name, dimensions, compressed file, hash of its content."""

  name: str
  shape: tuple[int, ...]
  packed_bytes: int
  packed_sha256: str
  sha256: str

  @property
  def download(self) -> fetch.Download:
    name = f'{self.name}.gz'
    return fetch.Download(
      name=name,
      urls=tuple(place + name for place in _MNIST_PLACES),
      sha256=self.packed_sha256,
      num_bytes=self.packed_bytes,
    )


# Images and labels, by the name of the split in file names.
_MNIST_FILES = {
  'train': (
    _IdxFile(
      'train-images-idx3-ubyte',
      (60_000, 28, 28),
      9_912_422,
      '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609',
      'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db',
    ),
    _IdxFile(
      'train-labels-idx1-ubyte',
      (60_000,),
      28_881,
      '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c',
      '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5',
    ),
  ),
  'test': (
    _IdxFile(
      't10k-images-idx3-ubyte',
      (10_000, 28, 28),
      1_648_877,
      '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6',
      '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7',
    ),
    _IdxFile(
      't10k-labels-idx1-ubyte',
      (10_000,),
      4_542,
      'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6',
      'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2',
    ),
  ),
}

_ABOUT = {
  'digits': records.About(
    origin='Optical recognition of handwritten digits, E. Alpaydin and C. Kaynak 1998, UCI; the '
    'test part, as scikit-learn ships it',
    licence='CC BY 4.0',
    num_bytes=57_523,
  ),
  'mnist': records.About(
    origin='MNIST, Y. LeCun, C. Cortes and C. J. C. Burges',
    licence='CC BY-SA 3.0',
    num_bytes=55_160_768,
  ),
}


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
    if definition.data.source == 'digits':
      self._inputs, self._targets = _digits()[split]
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
    inputs = np.take(self._inputs, rows.indices, axis=0) * self._scale
    inputs -= self._shift
    return _batch(self._definition, inputs, np.take(self._targets, rows.indices))


@functools.cache
def _digits() -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
  """Returns images, uint8 [n, 8, 8, 1] from 0 to 16, and labels, int32 [n], by split.

  Image i is validation if i % 5 is 4, test if it is 3, and train otherwise.

  Raises:
    UserError: scikit-learn is missing, or its file differs from the one of the definition.
  """
  spec = importlib.util.find_spec('sklearn')
  if spec is None or not spec.submodule_search_locations:
    raise errors.UserError(
      'The digits are read from the data files of scikit-learn, which is not installed: '
      "pip install 'algorithmic-efficiency[quick]'"
    )
  path = Path(spec.submodule_search_locations[0]) / _DIGITS_FILE
  try:
    with gzip.open(path, 'rt') as file:
      table = np.loadtxt(file, np.uint8, delimiter=',')
  except (OSError, EOFError, zlib.error, ValueError) as error:
    raise errors.UserError(
      f'The digits cannot be read from {path} ({error}); reinstall scikit-learn.'
    ) from None
  if hashlib.sha256(table.tobytes()).hexdigest() != _DIGITS_SHA256:
    raise errors.UserError(
      f'{path} does not hold the digits that quick_vision is defined on; reinstall scikit-learn.'
    )
  inputs = table[:, :-1].reshape(-1, 8, 8, 1)
  targets = table[:, -1].astype(np.int32)
  residue = np.arange(len(table)) % 5
  chosen = {'train': residue < 3, 'test': residue == 3, 'validation': residue == 4}
  return {split: (inputs[rows], targets[rows]) for split, rows in chosen.items()}


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
  if source is None:
    folder = out.downloads
    for file in _MNIST_FILES[group]:
      fetch.fetch(file.download, folder, progress)
  else:
    folder = source
  images, labels = (_read_idx(folder, file, progress) for file in _MNIST_FILES[group])
  return images, labels


def _read_idx(folder: Path, file: _IdxFile, progress: Progress) -> np.ndarray:
  """Reads the uint8 array of an idx file: four bytes of type and rank, big-endian sizes, values.

  Raises:
    UserError: the file is missing, truncated or not MNIST's.
  """
  path = next(
    (path for path in (folder / f'{file.name}.gz', folder / file.name) if path.is_file()), None
  )
  if path is None:
    raise errors.UserError(
      f'--source must name a folder with the four idx files of MNIST; {folder} has no '
      f'{file.name}.gz, packed or unpacked.'
    )
  progress(f'read {path.name}', 0, None)
  try:
    content = gzip.decompress(path.read_bytes()) if path.suffix == '.gz' else path.read_bytes()
  except (OSError, EOFError, zlib.error) as error:
    raise errors.UserError(f'{path} is truncated or damaged ({error}); fetch it again.') from None
  header = struct.pack(f'>HBB{len(file.shape)}I', 0, 8, len(file.shape), *file.shape)
  expected = len(header) + math.prod(file.shape)
  if len(content) != expected:
    raise errors.UserError(
      f'{path} must hold {expected} bytes when unpacked; it holds {len(content)}: it is truncated '
      'or another file. Fetch it again.'
    )
  if hashlib.sha256(content).hexdigest() != file.sha256 or not content.startswith(header):
    raise errors.UserError(
      f"{path} is not MNIST's file: its content has been changed. Fetch it again."
    )
  return np.frombuffer(content, np.uint8, offset=len(header)).reshape(file.shape)
