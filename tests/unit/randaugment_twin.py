"""RandAugment in Pillow, plainly: what the faster version in the vision task is compared with.

Each operation takes an image of Pillow, a strength from 0 to 1, and random numbers, which it draws
as the other version does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

GRAY = (128, 128, 128)


def augmented(image, num_layers, magnitude, random):
  """Applies operations that are drawn with equal chances, at a magnitude from 0 to 10."""
  names = list(OPERATIONS)
  for _ in range(num_layers):
    image = OPERATIONS[names[random.integer(len(names))]](image, magnitude / 10, random)
  return image


def _posterize(image, strength, random):
  bits = int(4 * strength)
  # Pillow refuses to keep none of the bits; the image is black then.
  return ImageOps.posterize(image, bits) if bits else Image.new('RGB', image.size)


def _solarize_add(image, strength, random):
  values = np.asarray(image).astype(int)
  added = np.where(values < 128, values + int(110 * strength), values)
  return Image.fromarray(added.clip(0, 255).astype(np.uint8))


def _enhanced(kind):
  return lambda image, strength, random: kind(image).enhance(1.8 * strength + 0.1)


def _sign(random):
  return (1, -1)[random.integer(2)]


def _rotate(image, strength, random):
  return image.rotate(30 * strength * _sign(random), fillcolor=GRAY)


def _moved(matrix):
  """The pixel at (x, y) is taken from that at `matrix(amount)` times (x, y, 1)."""

  def operation(image, strength, random):
    values = matrix(strength * _sign(random))
    return image.transform(
      image.size, Image.Transform.AFFINE, values, Image.Resampling.NEAREST, fillcolor=GRAY
    )

  return operation


def _cutout(image, strength, random):
  width, height = image.size
  row, column = random.integer(height), random.integer(width)
  half = int(40 * strength)
  top, left = max(0, row - half), max(0, column - half)
  result = image.copy()
  result.paste(GRAY, (left, top, min(width, column + half), min(height, row + half)))
  return result


Operation = Callable[..., Image.Image]
OPERATIONS: Mapping[str, Operation] = {
  'auto_contrast': lambda image, strength, random: ImageOps.autocontrast(image),
  'equalize': lambda image, strength, random: ImageOps.equalize(image),
  'invert': lambda image, strength, random: ImageOps.invert(image),
  'rotate': _rotate,
  'posterize': _posterize,
  'solarize': lambda image, strength, random: ImageOps.solarize(image, int(256 * strength)),
  'color': _enhanced(ImageEnhance.Color),
  'contrast': _enhanced(ImageEnhance.Contrast),
  'brightness': _enhanced(ImageEnhance.Brightness),
  'sharpness': _enhanced(ImageEnhance.Sharpness),
  'shear_x': _moved(lambda amount: (1, 0.3 * amount, 0, 0, 1, 0)),
  'shear_y': _moved(lambda amount: (1, 0, 0, 0.3 * amount, 1, 0)),
  'translate_x': _moved(lambda amount: (1, 0, int(100 * amount), 0, 1, 0)),
  'translate_y': _moved(lambda amount: (1, 0, 0, 0, 1, int(100 * amount))),
  'cutout': _cutout,
  'solarize_add': _solarize_add,
}
