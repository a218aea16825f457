"""ImageNet: photographs, decoded and augmented when they are drawn.

A batch has `inputs`, float32 [batch, height, width, 3], normalized by the definition's mean and
standard deviation, and `targets`, int32 [batch]. With mixup, `targets` of a training batch are
probabilities, float32 [batch, classes].

A prepared set has these fields:

- `<split>/images`: JPEG or PNG files, uint8 of varying length; empty if an image was left out.
- `<split>/sizes`: height and width, int32 [n, 2].
- `<split>/targets`: int32 [n].

Where an image was left out, the nearest one of its class is repeated.
"""

from __future__ import annotations

import collections
import warnings
from collections.abc import Iterable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency import errors, seeds
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import records, tfds
from algorithmic_efficiency.data.batch_mix import MixRows
from algorithmic_efficiency.data.pipeline import Batch
from algorithmic_efficiency.data.prepare import Progress, Source
from algorithmic_efficiency.data.random_numbers import ExampleRandom
from algorithmic_efficiency.data.sources import Collate, Example, Transform
from algorithmic_efficiency.results import environment

from . import image_checks, image_files, pixels, randaugment, resampling
from .image_checks import StoredImage
from .image_files import RawImage
from .photographs import Photographs
from .pixels import fake_batch as fake_batch

_ORDER_SEED = 0  # of the order in which training images are numbered
_NUM_AHEAD = 64  # images that are checked ahead, for each thread
_SHOWN_EVERY = 1_000  # images, of the progress
# By split: the name of the builder in the definition, and its split.
_TFDS_SPLITS = {
  'train': ('imagenet', 'train'),
  'validation': ('imagenet', 'validation'),
  'test': ('imagenet_v2', 'test'),
}


def about(definition: WorkloadDefinition) -> records.About:
  """Returns origin, license and approximate size of the data set."""
  return records.About(
    origin='ImageNet, ILSVRC 2012, O. Russakovsky et al. 2015; test: ImageNet-v2, matched '
    'frequency, B. Recht et al. 2019',
    licence='terms of access of ImageNet; MIT for ImageNet-v2',
    num_bytes=146_000_000_000,
  )


# Preparation.


def prepare(
  definition: WorkloadDefinition, source: Source, out: records.Writer, progress: Progress
) -> None:
  """Checks every image, and stores them with their sizes and labels.

  Args:
    source: a folder, as `image_files` describes it; or builders of TensorFlow Datasets by name,
      `imagenet` and `imagenet_v2`.

  Raises:
    UserError: a file or class is missing; an archive is damaged; there are more or fewer images
      than the definition says. Or an image is bad, and the command asks to fail.
  """
  if not isinstance(source, (Path, tfds.Builders)):
    raise errors.UserError(
      'ImageNet cannot be downloaded without registration: name its folder with --source, or read '
      'it out of TensorFlow Datasets with --from tfds.'
    )
  with warnings.catch_warnings():  # here, as it is of all threads
    warnings.filterwarnings('ignore', module=r'PIL\.')  # of damaged EXIF data and very many pixels
    for split in _TFDS_SPLITS:
      if not all(out.has(f'{split}/{name}') for name in ('images', 'sizes', 'targets')):
        _prepare_split(definition, source, split, out, progress)


def _prepare_split(
  definition: WorkloadDefinition,
  source: Path | tfds.Builders,
  split: str,
  out: records.Writer,
  progress: Progress,
) -> None:
  expected = getattr(definition.splits, split)
  if isinstance(source, Path):
    found = image_files.find(source, split, definition.data.num_classes, out, progress)
    number, images = len(found), iter(found)
  else:
    builder, part = _TFDS_SPLITS[split]
    number, images = source[builder].num_examples(part), _of_tfds(source[builder], part)
  if number != expected:
    raise errors.UserError(
      f'{definition.name} needs {expected:,} images in {split}; there are {number:,}.'
    )
  sizes = np.zeros((number, 2), np.int32)
  targets = np.zeros(number, np.int32)
  field = f'{split}/images'

  def written() -> Iterator[np.ndarray]:
    for index, (raw, image) in enumerate(_checked(images)):
      targets[index] = raw.label
      if isinstance(image, StoredImage):
        sizes[index] = image.height, image.width
        yield np.frombuffer(image.encoded, np.uint8)
      else:
        out.skip(field, raw.name, str(image))
        yield np.empty(0, np.uint8)
      if index % _SHOWN_EVERY == 0 or index == number - 1:
        progress(f'check and store {split}', index + 1, number)

  out.ragged(field, written(), dtype=np.uint8)
  _stand_ins(targets, sizes[:, 0] > 0)  # raises where a class has no image left
  out.array(f'{split}/sizes', [sizes], shape=sizes.shape, dtype=np.int32)
  out.array(f'{split}/targets', [targets], shape=targets.shape, dtype=np.int32)


def _checked(
  images: Iterable[RawImage],
) -> Iterator[tuple[RawImage, StoredImage | pixels.BadImage]]:
  """Checks images in threads, as decoding runs without Python's lock; yields them in order."""
  num_threads = len(environment.bound_cpus())
  with futures.ThreadPoolExecutor(num_threads) as threads:
    ahead: collections.deque[tuple[RawImage, Any]] = collections.deque()
    try:
      for image in images:
        ahead.append((image, threads.submit(_check, image)))
        if len(ahead) > num_threads * _NUM_AHEAD:
          raw, future = ahead.popleft()
          yield raw, future.result()
      while ahead:
        raw, future = ahead.popleft()
        yield raw, future.result()
    finally:
      threads.shutdown(wait=True, cancel_futures=True)


def _check(image: RawImage) -> StoredImage | pixels.BadImage:
  try:
    return image_checks.checked(image.read())
  except pixels.BadImage as error:
    return error


def _of_tfds(builder: tfds.Builder, split: str) -> Iterator[RawImage]:
  """Yields the images of a builder, which it holds as encoded files, in its order."""
  for index, example in enumerate(builder.encoded(split, ('image', 'label'), raw=('image',))):
    content = example['image']
    yield RawImage(
      name=f'{builder.title}, {split}, example {index}',
      label=int(example['label']),
      read=lambda content=content: content,
    )


# Reading.


def source(definition: WorkloadDefinition, root: Path, split: str) -> _Images:
  """Returns the encoded images of a stored split.

  Training images are numbered in a random order, always the same one. So the first of them, on
  which training is evaluated, are of all classes.

  Raises:
    UserError: the data is missing or damaged.
  """
  return _Images(root, split)


class _Images:
  """Encoded images by number. Pickled as its path."""

  def __init__(self, root: Path, split: str):
    self._root, self._split = root, split
    prepared = records.open_prepared(root)
    self._images = prepared.field(f'{split}/images')
    self._sizes = prepared.field(f'{split}/sizes')
    self._targets = prepared.field(f'{split}/targets')
    self._numbers = _stand_ins(self._targets, self._sizes[:, 0] > 0)
    if split == 'train':
      order = seeds.generator(_ORDER_SEED, 'imagenet').permutation(len(self._numbers))
      self._numbers = self._numbers[order]

  def __len__(self) -> int:
    return len(self._numbers)

  def __getitem__(self, index: int) -> Example:
    number = self._numbers[index]
    return {
      'image': self._images[number],
      'size': np.array(self._sizes[number]),
      'target': np.int32(self._targets[number]),
    }

  def __reduce__(self) -> tuple[Any, ...]:
    return type(self), (self._root, self._split)


def _stand_ins(targets: np.ndarray, is_there: np.ndarray) -> np.ndarray:
  """Returns the image to use for each place: its own, or the nearest one of its class.

  Args:
    targets: int32 [n].
    is_there: bool [n], False where an image was left out.

  Returns:
    int64 [n].

  Raises:
    UserError: a class has no image that is there.
  """
  numbers = np.arange(len(targets))
  for missing in np.flatnonzero(~is_there):
    candidates = np.flatnonzero(is_there & (targets == targets[missing]))
    if not len(candidates):
      raise errors.UserError(
        f'Each class must have an image that can be used; class {targets[missing]} has none.'
      )
    numbers[missing] = candidates[np.abs(candidates - missing).argmin()]
  return numbers


def transform(definition: WorkloadDefinition, train: bool) -> Transform:
  """Returns the function that decodes an image: a random part in training, else its center."""
  pixels.opencv()
  return (_Augmented if train else _Center)(definition.data)


class _Augmented:
  """A random crop, flipped in half of the cases, with RandAugment if the record asks for it."""

  def __init__(self, data: Photographs):
    self._data = data

  def __call__(self, example: Example, random: ExampleRandom | None) -> Example:
    assert random is not None
    data = self._data
    height, width = example['size'].tolist()
    box = resampling.random_box(random, height, width, data.crop_area, data.crop_aspect)
    image = resampling.decoded_crop(example['image'], height, width, box, data.image_size)
    if random.integer(2):
      image = pixels.opencv().flip(image, 1)
    image = randaugment.augmented(
      image, data.randaugment_layers, data.randaugment_magnitude, random
    )
    return {'inputs': image, 'targets': example['target']}


class _Center:
  """The center of the resized image."""

  def __init__(self, data: Photographs):
    self._data = data

  def __call__(self, example: Example, random: ExampleRandom | None) -> Example:
    data = self._data
    height, width = example['size'].tolist()
    box = resampling.center_box(height, width, data.image_size, data.resize_size)
    image = resampling.decoded_crop(example['image'], height, width, box, data.image_size)
    return {'inputs': image, 'targets': example['target']}


def collate(definition: WorkloadDefinition) -> Collate:
  """Returns the function that normalizes and joins images."""
  return _Joined(definition)


class _Joined:
  def __init__(self, definition: WorkloadDefinition):
    self._shape = definition.data.image_shape
    self._normalize = pixels.Normalizer(definition, definition.data.image_size)

  def __call__(self, examples: list[Example]) -> Batch:
    inputs = np.empty((len(examples), *self._shape), np.float32)
    for example, row in zip(examples, inputs, strict=True):
      self._normalize(example['inputs'], out=row)
    return {
      'inputs': inputs,
      'targets': np.array([example['targets'] for example in examples], np.int32),
    }


def mix_batch(definition: WorkloadDefinition) -> MixRows | None:
  """Returns mixup of a batch with itself, rolled by one image; None if the record has none."""
  data = definition.data
  return _Mixup(data.mixup_alpha, data.num_classes) if data.mixup_alpha else None


class _Mixup:
  """Mixes neighbors with one weight a batch, from Beta(alpha, alpha) (Zhang et al., 2018)."""

  def __init__(self, alpha: float, num_classes: int):
    self._alpha = alpha
    self._num_classes = num_classes

  def __call__(self, rows: Batch, before: Batch, random: ExampleRandom) -> Batch:
    weight = np.float32(random.generator().beta(self._alpha, self._alpha))
    one_hot = np.eye(self._num_classes, dtype=np.float32)
    targets = one_hot[rows['targets']]
    _mix(targets, one_hot[before['targets']][0], weight)
    _mix(rows['inputs'], before['inputs'][0], weight)
    return {**rows, 'targets': targets}


def _mix(rows: np.ndarray, before: np.ndarray, weight: np.float32) -> None:
  """Mixes each row with the one before it, in place; the last one first, while it has those."""
  part = np.empty_like(before)
  for index in reversed(range(len(rows))):
    np.multiply(rows[index - 1] if index else before, 1 - weight, out=part)
    rows[index] *= weight
    rows[index] += part
