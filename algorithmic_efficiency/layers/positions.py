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
