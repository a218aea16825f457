"""Quantiles of Student's t distribution, which spreads estimated from few draws need."""

from __future__ import annotations

import math

_MANY = 200  # degrees of freedom, from which on the distribution is taken as normal


def quantile(share: float, df: int) -> float:
  """The value that a t-distributed number exceeds with a chance of `1 - share`.

  Args:
    share: from 1/2 to below 1.
    df: degrees of freedom, at least 1.

  Raises:
    ValueError: one of them is out of range.
  """
  if not (0.5 <= share < 1.0 and df >= 1):
    raise ValueError(f'share is from 1/2 to below 1 and df from 1 on; they are {share}, {df}')
  from statistics import NormalDist

  if df > _MANY:
    return NormalDist().inv_cdf(share)
  low, high = 0.0, math.pi / 2  # of the angle whose tangent is t / sqrt(df)
  for _ in range(60):
    middle = (low + high) / 2
    low, high = (middle, high) if _within(middle, df) < 2 * share - 1 else (low, middle)
  return math.sqrt(df) * math.tan(low)


def _within(angle: float, df: int) -> float:
  """The chance of |t| below sqrt(df) tan(angle): Abramowitz and Stegun, 26.7.3 and 26.7.4."""
  cosine, sine = math.cos(angle), math.sin(angle)
  odd = df % 2
  term = cosine if odd else 1.0
  total = 0.0
  for power in range(1 + odd, df, 2):
    total += term
    term *= cosine**2 * power / (power + 1)
  return 2 / math.pi * (angle + sine * total) if odd else sine * total
