"""Positions as both frameworks have them: tables in numpy, made once for each model."""

from __future__ import annotations

import numpy as np


def rotary_table(length: int, head_dim: int, theta: float) -> np.ndarray:
  """Cosines and sines of rotary positions, float64 [2, length, head_dim / 2].

  Pair i of a head's elements turns by theta^(-2i / head_dim) radians a position (Su et al., 2021,
  "RoFormer"). They are computed in float64, because in float32 the angle of a late position is off
  by as much as 1e-4.

  Raises:
    ValueError: the head's elements do not come in pairs.
  """
  if head_dim % 2:
    raise ValueError(f'Rotary positions turn pairs of elements; the head has {head_dim}.')
  frequencies = theta ** (-np.arange(0, head_dim, 2) / head_dim)
  angles = np.outer(np.arange(length), frequencies)
  return np.stack([np.cos(angles), np.sin(angles)])
