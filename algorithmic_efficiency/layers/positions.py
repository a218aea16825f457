"""Tables of positions for both frameworks: computed in numpy, once a model."""

from __future__ import annotations

import numpy as np


def rotary_table(length: int, head_dim: int, theta: float) -> np.ndarray:
  """Returns cosines and sines of rotary positions, float64 [2, length, head_dim / 2].

  Pair i of the elements of a head rotates by theta^(-2i / head_dim) radians a position (Su et al.,
  2021, "RoFormer"). The table is float64, because angles of late positions in float32 are wrong by
  up to 1e-4.

  Raises:
    ValueError: `head_dim` is odd.
  """
  if head_dim % 2:
    raise ValueError(f'Rotary positions need an even head_dim; it is {head_dim}.')
  frequencies = theta ** (-np.arange(0, head_dim, 2) / head_dim)
  angles = np.outer(np.arange(length), frequencies)
  return np.stack([np.cos(angles), np.sin(angles)])


def sinusoidal_table(length: int, dim: int, max_wavelength: float = 10_000.0) -> np.ndarray:
  """Returns sines, then cosines, of positions, float64 [length, dim], in the form of WMT.

  Frequencies fall geometrically from 1 to 1 / max_wavelength, which the last pair has. An odd last
  element is 0.

  Raises:
    ValueError: `dim` is below 4.
  """
  if dim < 4:
    raise ValueError(f'Sinusoidal positions need a width of at least 4; it is {dim}.')
  frequencies = _frequencies(dim // 2, max_wavelength)
  angles = np.outer(np.arange(length), frequencies)
  table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
  return np.pad(table, [(0, 0), (0, dim % 2)])


def sine_cosine_2d_table(
  height: int, width: int, dim: int, max_wavelength: float = 10_000.0
) -> np.ndarray:
  """Returns positions of the patches of an image, float64 [height * width, dim], as ViT has them.

  A row of the table is sines and cosines of the column, then of the row of the patch. Patches
  follow each other row by row.

  Raises:
    ValueError: `dim` is not a multiple of 4, or is 4 itself.
  """
  if dim % 4 or dim < 8:
    raise ValueError(f'Positions of two axes need a width of 8, 12, 16, ...; it is {dim}.')
  frequencies = _frequencies(dim // 4, max_wavelength)
  rows, columns = np.mgrid[:height, :width]
  x, y = np.outer(columns, frequencies), np.outer(rows, frequencies)
  return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)


def _frequencies(count: int, max_wavelength: float) -> np.ndarray:
  """From 1 down to 1 / max_wavelength, geometrically."""
  return max_wavelength ** (-np.arange(count) / (count - 1))
