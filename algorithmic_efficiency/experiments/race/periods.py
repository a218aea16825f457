"""Finds after how many steps the work of a submission repeats, from the seconds of its steps.

Some algorithms compute an inverse root or a new basis every so many steps. Their cost is that of a
whole period.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LITTLE = 0.03  # extra work, as a share of all, that makes no period
_MOST_LEFT = 0.3  # share of the variance that a period may leave unexplained


def period_of(step_secs: Sequence[float]) -> int | None:
  """Finds the smallest period that explains what steps take beyond the usual.

  Args:
    step_secs: seconds of consecutive steps. A period must be there twice to be found.

  Returns:
    A number of steps; 1 if all steps take about equally long. None if some take longer, and no
    period explains it.
  """
  seconds = np.asarray(step_secs)
  usual = np.median(seconds)
  if np.maximum(seconds - usual, 0.0).sum() <= _LITTLE * seconds.sum():
    return 1
  variance = seconds.var(ddof=1)
  for period in range(2, len(seconds) // 2 + 1):
    phases = [seconds[phase::period] for phase in range(period)]
    left = sum(float(((one - one.mean()) ** 2).sum()) for one in phases)
    if left / (len(seconds) - period) <= _MOST_LEFT * variance:
      return period
  return None
