"""The spread of a few values of which one may be an outlier, such as a seed that never trains."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np

_NUM_DRAWS = 20_000


def spread(*groups: Sequence[float]) -> float:
  """Estimates the standard deviation within groups that may have different centers.

  This is the estimator of M. I. Shamos (1976): the median of the distances between any two values
  of a group. P. J. Rousseeuw and C. Croux (1993) compare it with others
  (https://doi.org/10.1080/01621459.1993.10476408). For normal values its efficiency is 86 %, and
  29 % of many values may be outliers. One of five may be, or one of six in two groups, but not one
  of three. The median is divided by its mean for normal values of groups of these sizes.

  Args:
    groups: values of each group; one of them has two values or more.
  """
  shape = tuple(sorted(len(group) for group in groups))
  return float(np.median(np.concatenate([_distances(group) for group in groups])) / _scale(shape))


def _distances(values: Sequence[float] | np.ndarray) -> np.ndarray:
  """[..., pair]: distances between any two of the values [..., value]."""
  found = np.asarray(values, dtype=float)
  pairs = np.array([*itertools.combinations(range(found.shape[-1]), 2)], dtype=int).reshape(-1, 2)
  return np.abs(found[..., pairs[:, 0]] - found[..., pairs[:, 1]])


@functools.cache
def _scale(shape: tuple[int, ...]) -> float:
  """The mean median distance of standard normal values in groups of these sizes, simulated."""
  random = np.random.default_rng(0)
  drawn = [_distances(random.standard_normal((_NUM_DRAWS, size))) for size in shape]
  return float(np.median(np.concatenate(drawn, axis=-1), axis=-1).mean())
