"""RandAugment: a few random operations on each image (Cubuk et al., 2020).

The 16 operations, their strengths and their equal chances are those of AlgoPerf, whose frameworks
differ in details. Here the operations are those of Pillow, bit for bit, as in its PyTorch version.
Only the gray values of `color` and `contrast` may differ by one. Below full strength, rotations and
shears may take a pixel from either side of a border on which its place lies. AlgoPerf's JAX version
takes a number of pixels for the mean gray value of `contrast`. A part that is cut out has its
center in the image, as in its JAX version.

Images are RGB, uint8 [height, width, 3]. What an operation leaves empty is gray, 128.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from algorithmic_efficiency.data.random_numbers import ExampleRandom

from . import pixels

MAX_MAGNITUDE = 10
_FILL = 128
_LEVELS = np.arange(256)

Operation = Callable[[np.ndarray, float, ExampleRandom], np.ndarray]
"""Takes an image, a strength from 0 to 1, and random numbers; returns another image."""


def augmented(
  image: np.ndarray, num_layers: int, magnitude: float, random: ExampleRandom
) -> np.ndarray:
  """Applies operations that are drawn with equal chances.

  Args:
    image: uint8 [height, width, 3].
    num_layers: number of operations, one after the other.
    magnitude: strength, from 0 to `MAX_MAGNITUDE`.
    random: random numbers of the image.

  Returns:
    uint8 [height, width, 3].
  """
  names = tuple(OPERATIONS)
  for _ in range(num_layers):
    operation = OPERATIONS[names[random.integer(len(names))]]
    image = operation(image, magnitude / MAX_MAGNITUDE, random)
  return image


def _auto_contrast(image: np.ndarray, strength: float, random: ExampleRandom) -> np.ndarray:
  """Stretches each channel to the full range."""
  tables = np.empty((256, 3), np.uint8)
  for channel in range(3):
    low, high = int(image[..., channel].min()), int(image[..., channel].max())
    scale = 255 / (high - low) if high > low else 1.0
    shift = -low * scale if high > low else 0.0
    tables[:, channel] = np.clip(np.trunc(_LEVELS * scale + shift), 0, 255)
  return _looked_up(image, tables)


def _equalize(image: np.ndarray, strength: float, random: ExampleRandom) -> np.ndarray:
  """Spreads the values of each channel evenly over the range."""
  tables = np.empty((256, 3), np.uint8)
  for channel in range(3):
    counts = np.bincount(image[..., channel].ravel(), minlength=256)
    present = counts[counts > 0]
    step = (counts.sum() - present[-1]) // 255
    if len(present) < 2 or step == 0:
      tables[:, channel] = _LEVELS
    else:
      before = np.cumsum(counts) - counts
      tables[:, channel] = np.minimum((step // 2 + before) // step, 255)
  return _looked_up(image, tables)


def _invert(image: np.ndarray, strength: float, random: ExampleRandom) -> np.ndarray:
  return 255 - image


def _posterize(image: np.ndarray, strength: float, random: ExampleRandom) -> np.ndarray:
  """Keeps the highest bits: 4 at full strength, none below a quarter of it, which leaves black."""
  return image & np.uint8(256 - 2 ** (8 - int(strength * 4)))


def _solarize(image: np.ndarray, strength: float, random: ExampleRandom) -> np.ndarray:
  """Inverts values from a threshold on, which is 256 at full strength, so that none is."""
  return _looked_up(image, np.where(int(strength * 256) > _LEVELS, _LEVELS, 255 - _LEVELS))


def _solarize_add(image: np.ndarray, strength: float, random: ExampleRandom) -> np.ndarray:
  """Adds to values below 128: 110 at full strength."""
  added = np.minimum(_LEVELS + int(strength * 110), 255)
  return _looked_up(image, np.where(_LEVELS < 128, added, _LEVELS))


def _color(image: np.ndarray, strength: float, random: ExampleRandom) -> np.ndarray:
  """Moves away from gray."""
  cv2 = pixels.opencv()
  gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
  factor = _enhancement(strength)
  return _truncated(gray + np.float32(factor) * (image.astype(np.float32) - gray))


def _contrast(image: np.ndarray, strength: float, random: ExampleRandom) -> np.ndarray:
  """Moves away from the mean gray value."""
  cv2 = pixels.opencv()
  mean = int(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean() + 0.5)
  return _looked_up(image, _away_from(mean, strength))


def _brightness(image: np.ndarray, strength: float, random: ExampleRandom) -> np.ndarray:
  """Moves away from black."""
  return _looked_up(image, _away_from(0, strength))


def _sharpness(image: np.ndarray, strength: float, random: ExampleRandom) -> np.ndarray:
  """Moves away from a smoothed image, but for its edges."""
  cv2 = pixels.opencv()
  kernel = np.full((3, 3), 1 / 13, np.float32)
  kernel[1, 1] = 5 / 13
  exact = image.astype(np.float32)
  smooth = np.floor(cv2.filter2D(exact, -1, kernel) + 0.5)
  sharp = _truncated(smooth + np.float32(_enhancement(strength)) * (exact - smooth))
  result = image.copy()
  result[1:-1, 1:-1] = sharp[1:-1, 1:-1]
  return result


def _rotate(image: np.ndarray, strength: float, random: ExampleRandom) -> np.ndarray:
  """Rotates about the center, in one of the two directions: by 30 degrees at full strength."""
  angle = math.radians(_signed(30 * strength, random))
  cosine, sine = math.cos(angle), math.sin(angle)
  height, width = image.shape[:2]
  x, y = width / 2, height / 2
  return _warped(
    image,
    [
      [cosine, -sine, x - cosine * x + sine * y],
      [sine, cosine, y - sine * x - cosine * y],
    ],
  )


def _shear_x(image: np.ndarray, strength: float, random: ExampleRandom) -> np.ndarray:
  """Shifts rows by 0.3 of their number at full strength."""
  return _warped(image, [[1, _signed(0.3 * strength, random), 0], [0, 1, 0]])


def _shear_y(image: np.ndarray, strength: float, random: ExampleRandom) -> np.ndarray:
  return _warped(image, [[1, 0, 0], [_signed(0.3 * strength, random), 1, 0]])


def _translate_x(image: np.ndarray, strength: float, random: ExampleRandom) -> np.ndarray:
  """Shifts the image: by 100 pixels at full strength."""
  return _warped(image, [[1, 0, int(_signed(100 * strength, random))], [0, 1, 0]])


def _translate_y(image: np.ndarray, strength: float, random: ExampleRandom) -> np.ndarray:
  return _warped(image, [[1, 0, 0], [0, 1, int(_signed(100 * strength, random))]])


def _cutout(image: np.ndarray, strength: float, random: ExampleRandom) -> np.ndarray:
  """Blanks a square around a random pixel, with sides of 80 pixels at full strength."""
  height, width = image.shape[:2]
  row, column = random.integer(height), random.integer(width)
  half = int(40 * strength)
  result = image.copy()
  result[max(0, row - half) : row + half, max(0, column - half) : column + half] = _FILL
  return result


OPERATIONS: Mapping[str, Operation] = {
  'auto_contrast': _auto_contrast,
  'equalize': _equalize,
  'invert': _invert,
  'rotate': _rotate,
  'posterize': _posterize,
  'solarize': _solarize,
  'color': _color,
  'contrast': _contrast,
  'brightness': _brightness,
  'sharpness': _sharpness,
  'shear_x': _shear_x,
  'shear_y': _shear_y,
  'translate_x': _translate_x,
  'translate_y': _translate_y,
  'cutout': _cutout,
  'solarize_add': _solarize_add,
}


def _enhancement(strength: float) -> float:
  """Returns 1.9 at full strength; 1 leaves an image as it is."""
  return 1.8 * strength + 0.1


def _signed(value: float, random: ExampleRandom) -> float:
  return -value if random.integer(2) else value


def _away_from(center: int, strength: float) -> np.ndarray:
  """Returns a table of the values moved away from one."""
  return _truncated(
    center + np.float32(_enhancement(strength)) * (_LEVELS - center).astype(np.float32)
  )


def _truncated(values: np.ndarray) -> np.ndarray:
  return np.clip(values, 0, 255).astype(np.uint8)


def _looked_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
  """Replaces values by those of a table, [256], or [256, 3] for each channel."""
  if table.ndim == 2:
    table = table[None]
  return pixels.opencv().LUT(image, table.astype(np.uint8))


def _warped(image: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
  """Takes the pixel with its center at (x, y) from that at `matrix` times (x, y, 1)."""
  cv2 = pixels.opencv()
  height, width = image.shape[:2]
  # OpenCV counts from the center of the first pixel, Pillow and `matrix` from its corner.
  centered = np.array(matrix, np.float64)
  centered[:, 2] += centered[:, :2].sum(axis=1) / 2 - 0.5
  return cv2.warpAffine(
    image,
    centered,
    (width, height),
    flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
    borderMode=cv2.BORDER_CONSTANT,
    borderValue=(_FILL, _FILL, _FILL),
  )
