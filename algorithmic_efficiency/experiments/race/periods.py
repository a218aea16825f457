"""Finds after how many steps the work of a submission repeats, from the seconds of its steps.

Some algorithms compute an inverse root or a new basis every so many steps. Their cost is that of a
whole period. On a busy machine, steps also take longer because others have the processor. Periodic
work is there in each of its periods, and noise is not. So each phase of a period counts with the
least that its steps take beyond the usual, of which one in ten may be an exception.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

MAX_PERIOD = 100
NUM_STEPS = 2 * MAX_PERIOD  # of which each period is there twice
_LITTLE = 0.03  # extra work, as a share of a usual step, that makes no period
_NOISE_SHARE = 1 / 4  # of what steps take beyond the usual: repeated work that noise may be
_EXCEPTIONS = 10  # periods of which one may lack the work
_MOST = 0.8  # share of the largest extra work by which a shorter period explains it, too


def period_of(step_secs: Sequence[float]) -> int | None:
  """Finds the smallest period of at most `MAX_PERIOD` steps that explains the extra work of steps.

  Extra work that is less than 3 % of a step, or than a quarter of what steps take beyond the usual,
  counts as noise.

  Args:
    step_secs: seconds of consecutive steps; NaN for a step that was not timed.

  Returns:
    A number of steps; 1 if no extra work repeats. None if more steps are needed to tell. All that
    are there four times are found, and with `NUM_STEPS` steps all.
  """
  seconds = np.asarray(step_secs, dtype=float)
  if len(seconds) < MAX_PERIOD:
    return None
  excess = np.maximum(seconds / np.nanmedian(seconds) - 1.0, 0.0)
  whole = float(np.nanmean(excess))
  if whole <= _LITTLE:
    return 1
  tolerance = max(_LITTLE, _NOISE_SHARE * whole)
  found = 1
  while True:
    extras = {period: _extra(excess, period) for period in range(2, MAX_PERIOD + 1)}
    largest = max(extras.values())
    if largest <= tolerance:
      return found
    period = next(one for one, extra in extras.items() if extra >= _MOST * largest)
    if not _is_sure(excess, period) and len(seconds) < NUM_STEPS:
      return None
    found = min(math.lcm(found, period), MAX_PERIOD)
    excess = excess - np.resize(_profile(excess, period), len(excess))


def _extra(excess: np.ndarray, period: int) -> float:
  """The extra work of a step, as a share of a usual one, that a period of steps explains.

  Noise coincides in a few phases of a period that is there less than four times. Its largest phase
  counts alone.
  """
  profile = _profile(excess, period)
  return float(profile.sum() if _is_sure(excess, period) else profile.max()) / period


def _is_sure(excess: np.ndarray, period: int) -> bool:
  return 4 * period <= len(excess)


def _profile(excess: np.ndarray, period: int) -> np.ndarray:
  """[phase]: the least excess of the steps of each phase; 0 where none was timed."""
  num_periods = len(excess) // period
  padded = np.full((num_periods + 1) * period, np.nan)
  padded[: len(excess)] = excess
  ordered = np.sort(padded.reshape(-1, period), axis=0)  # NaN comes last
  return np.nan_to_num(ordered[num_periods // _EXCEPTIONS])
