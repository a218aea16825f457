"""Decodes and normalizes images, by OpenCV and numpy; generates batches of photographs.

`tests/benchmarks/bench_images.py` compares decoders. All that build on libjpeg-turbo give the same
pixels, bit for bit. OpenCV is among the fastest, has no dependencies but numpy, and resizes, warps
and looks up tables faster than Pillow.
"""

from __future__ import annotations

import functools
import importlib.util
from types import ModuleType

import numpy as np

from algorithmic_efficiency import errors, seeds
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data.pipeline import Batch


class BadImage(Exception):
  """An image cannot be used; the message is a predicate, such as `is truncated`."""


def require(package: str, library: str) -> None:
  """Checks that a package is installed.

  Args:
    package: its import name.
    library: its name for users.

  Raises:
    UserError: it is not; the message names the extra that installs it.
  """
  if importlib.util.find_spec(package) is None:
    raise errors.UserError(
      f'Photographs need {library}, which is not installed: '
      "pip install 'algorithmic-efficiency[data]'"
    )


@functools.cache
def opencv() -> ModuleType:
  """Imports OpenCV, with one thread: data workers are processes, and share the CPUs with training.

  Raises:
    UserError: it is not installed.
  """
  require('cv2', 'OpenCV')
  import cv2

  cv2.setNumThreads(1)
  return cv2


def decode(encoded: np.ndarray, *, reduction: int = 1) -> np.ndarray:
  """Decodes a JPEG or PNG file; its EXIF orientation is ignored, as AlgoPerf does.

  Args:
    encoded: bytes of the file, uint8 [bytes].
    reduction: 1, 2, 4 or 8; the image has this part of its height and width, rounded up. JPEG
      reduces while it decodes, which filters high frequencies and saves time.

  Returns:
    RGB, uint8 [height, width, 3].

  Raises:
    BadImage: the bytes are no image.
  """
  cv2 = opencv()
  is_reduced = reduction > 1 and bytes(encoded[:2]) == b'\xff\xd8'  # a JPEG file
  flag = cv2.IMREAD_COLOR_RGB
  if is_reduced:
    flag = getattr(cv2, f'IMREAD_REDUCED_COLOR_{reduction}')  # which has no form for RGB
  image = cv2.imdecode(encoded, flag | cv2.IMREAD_IGNORE_ORIENTATION) if len(encoded) else None
  if image is None:
    raise BadImage('cannot be decoded')
  if is_reduced:
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
  if reduction > 1:
    below, right = (-size % reduction for size in image.shape[:2])
    image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
    height, width = (size // reduction for size in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
  return image


class Normalizer:
  """Takes pixels, uint8, to float32, less a mean and divided by a standard deviation.

  Args:
    definition: has the mean and the standard deviation, a number or one for each channel.
    width: width of the images.
  """

  def __init__(self, definition: WorkloadDefinition, width: int):
    assert definition.train_mean is not None and definition.train_stddev is not None
    mean, stddev = np.float64(definition.train_mean), np.float64(definition.train_stddev)
    # A row of pixels at a time: numpy is slow where the innermost axis has three channels.
    self._scale = np.tile((1 / stddev).astype(np.float32), width)
    self._shift = np.tile((mean / stddev).astype(np.float32), width)

  def __call__(self, images: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Returns images [..., width, channels] as float32; they are written to `out` if given."""
    rows = images.reshape(-1, len(self._scale))
    if out is None:
      out = np.empty(images.shape, np.float32)
    filled = out.reshape(rows.shape)
    np.multiply(rows, self._scale, out=filled)
    filled -= self._shift
    return out


def fake_batch(definition: WorkloadDefinition, batch_size: int, seed: int) -> Batch:
  """Returns a batch of generated images and labels of the right ranks and types, not mixed."""
  random = seeds.generator(seed, 'fake')
  shape = (batch_size, *definition.data.image_shape)
  return {
    'inputs': random.standard_normal(shape, np.float32),
    'targets': random.integers(definition.data.num_classes, size=batch_size, dtype=np.int32),
  }
