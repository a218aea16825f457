"""AlgoPerf's `data_utils`, of which only what needs no data is offered."""

from __future__ import annotations

import numpy as np

from algorithmic_efficiency.compat import absent

_REASON = 'batches come ready, padded and placed on the devices, from the input queue'


def pad(tensor: np.ndarray, pad_size: int, padding_value: float = 0) -> np.ndarray:
  """Appends `pad_size` rows of a value to an array [batch, ...]."""
  if tensor.ndim == 0:
    raise ValueError('An array must have rows to be padded; it has no axis.')
  filling = np.full((pad_size, *tensor.shape[1:]), padding_value, tensor.dtype)
  return np.concatenate([tensor, filling])


def __getattr__(name: str) -> absent.Absent:
  return absent.named('data_utils', name, _REASON)
