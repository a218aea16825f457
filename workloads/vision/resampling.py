"""Crops and resizes images: random crops for training, the center for evaluation.

A crop is resized by linear interpolation, after a filter against aliasing where it shrinks. The
filter has three or five taps, and the variance that is missing to a triangle as wide as a pixel of
the result. That is close to Pillow's bilinear resampling, which torchvision uses, and takes a fifth
of its time.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from algorithmic_efficiency.data.random_numbers import ExampleRandom

from . import pixels

_NUM_TRIES = 10  # for a random crop that lies within the image
_REDUCTIONS = (8, 4, 2)  # at which JPEG decodes with little loss


class Box(NamedTuple):
  """A part of an image, in pixels."""

  top: int
  left: int
  height: int
  width: int


def random_box(
  random: ExampleRandom,
  height: int,
  width: int,
  area: tuple[float, float],
  aspect: tuple[float, float],
) -> Box:
  """Draws a crop of random area, shape and position (Szegedy et al., 2015), as torchvision does.

  Args:
    height, width: of the image.
    area: least and largest fraction of the image, drawn uniformly.
    aspect: least and largest width over height, drawn uniformly on a logarithmic scale.

  Returns:
    the first of 10 crops that lies within the image; if none does, the largest centered crop of an
    allowed shape.
  """
  low, high = (math.log(one) for one in aspect)
  for _ in range(_NUM_TRIES):
    pixels_in_crop = height * width * random.uniform(*area)
    ratio = math.exp(random.uniform(low, high))
    crop_width = round(math.sqrt(pixels_in_crop * ratio))
    crop_height = round(math.sqrt(pixels_in_crop / ratio))
    if 0 < crop_width <= width and 0 < crop_height <= height:
      top = random.integer(height - crop_height + 1)
      left = random.integer(width - crop_width + 1)
      return Box(top, left, crop_height, crop_width)
  crop_width = min(width, max(1, round(height * aspect[1])))
  crop_height = min(height, max(1, round(width / aspect[0])))
  top, left = (height - crop_height) // 2, (width - crop_width) // 2
  return Box(top, left, crop_height, crop_width)


def center_box(height: int, width: int, image_size: int, resize_size: int) -> Box:
  """Returns what stays if the shorter side is resized to one size, and the center is cropped.

  Args:
    height, width: of the image.
    image_size: side of the crop.
    resize_size: length of the resized shorter side.
  """
  side = max(1, int(min(height, width) * image_size / resize_size))
  return Box((height - side + 1) // 2, (width - side + 1) // 2, side, side)


def decoded_crop(encoded: np.ndarray, height: int, width: int, box: Box, size: int) -> np.ndarray:
  """Decodes an image and resizes a part of it to a square.

  Images much larger than `size` are decoded at a half, a quarter or an eighth of their size.

  Args:
    encoded: JPEG or PNG file, uint8 [bytes].
    height, width: of the image.
    box: the part.
    size: side of the square.

  Returns:
    RGB, uint8 [size, size, 3].

  Raises:
    BadImage: it cannot be decoded, or has another size.
  """
  fits = (one for one in _REDUCTIONS if min(box.height, box.width) >= one * size)
  reduction = next(fits, 1)
  image = pixels.decode(encoded, reduction=reduction)
  expected = (-(-height // reduction), -(-width // reduction))
  if image.shape[:2] != expected:
    raise pixels.BadImage(
      f'has {image.shape[:2]} pixels, and had {expected} at this size when prepared'
    )
  if reduction > 1:
    box = Box(*(round(length / reduction) for length in box))
  return resized(image[box.top : box.top + box.height, box.left : box.left + box.width], size)


def resized(image: np.ndarray, size: int) -> np.ndarray:
  """Resizes an image, uint8 [height, width, 3], to [size, size, 3], a third of it at least."""
  cv2 = pixels.opencv()
  height, width = image.shape[:2]
  if max(height, width) > size:
    across, down = _filter(width / size), _filter(height / size)
    image = cv2.sepFilter2D(image, -1, across, down, borderType=cv2.BORDER_REPLICATE)
  return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)


def _filter(shrinking: float) -> np.ndarray:
  """Returns the filter that comes before linear interpolation by a factor.

  A triangle of half-width s has the variance s^2 / 6. Interpolation itself is one of half-width 1.
  """
  variance = max(0.0, shrinking**2 - 1) / 6
  if variance <= 0.5:
    return _three_taps(variance)
  halved = _three_taps(min(variance / 2, 0.5))
  return np.convolve(halved, halved)


def _three_taps(variance: float) -> np.ndarray:
  return np.array([variance / 2, 1 - variance, variance / 2], np.float32)


def padded_crops(images: np.ndarray, draws: np.ndarray, padding: int) -> np.ndarray:
  """Crops images out of themselves with a border of zeros, and may flip some.

  Args:
    images: uint8 [n, height, width, channels].
    draws: random numbers in [0, 1), float64 [n, 2] or [n, 3]. The first two choose one of
      `2 * padding + 1` rows and columns for a crop. An image is flipped if it has a third, and that
      is below a half.
    padding: width of the border.

  Returns:
    uint8 [n, height, width, channels], a new array.
  """
  number, height, width, channels = images.shape
  padded = np.zeros((number, height + 2 * padding, width + 2 * padding, channels), np.uint8)
  padded[:, padding : padding + height, padding : padding + width] = images
  offsets = (draws[:, :2] * (2 * padding + 1)).astype(np.int64)
  # A view of all crops; a row of pixels is one stretch of memory.
  along_image, along_row, along_pixel, _ = padded.strides
  crops = np.lib.stride_tricks.as_strided(
    padded,
    (number, 2 * padding + 1, 2 * padding + 1, height, width * channels),
    (along_image, along_row, along_pixel, along_row, 1),
    writeable=False,
  )
  found = crops[np.arange(number), offsets[:, 0], offsets[:, 1]]
  found = found.reshape(number, height, width, channels)
  if draws.shape[1] > 2:
    is_flipped = draws[:, 2] < 0.5
    found[is_flipped] = found[is_flipped, :, ::-1]
  return found
