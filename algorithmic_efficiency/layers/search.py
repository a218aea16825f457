"""What beam search has in common in both frameworks."""

from __future__ import annotations


def length_penalties(max_length: int, exponent: float) -> list[float]:
  """Returns ((5 + length) / 6) ^ exponent for the lengths from 1 on (Wu et al., 2016).

  Raises:
    ValueError: the exponent is negative, so that no bound of unfinished sequences is known.
  """
  if exponent < 0:
    raise ValueError(f'The length penalty must not be negative; it is {exponent}.')
  return [((5 + length) / 6) ** exponent for length in range(1, max_length + 1)]
