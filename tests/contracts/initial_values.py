"""Initial parameters of which no kernel is zero: a head that begins so hides what is before it."""

from __future__ import annotations

from typing import Any

import numpy as np

_STDDEV = 0.1


def without_zeros(array: Any) -> np.ndarray:
  """Returns the array, or small random numbers in place of a kernel of zeros."""
  values = np.asarray(array)
  if values.ndim < 2 or values.any():
    return values
  return (_STDDEV * np.random.default_rng(0).standard_normal(values.shape)).astype(values.dtype)
