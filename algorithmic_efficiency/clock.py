"""The stopwatch of a trial.

The source of time is bound when the core is first imported. A submission that patches `time`
afterwards changes nothing here. The wall time of a trial is cut into named buckets without gaps, so
the buckets always sum to the wall time. `SUBMISSION_BUCKETS` are those that count against the
budget. All times are in seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

_monotonic = time.perf_counter

PROCESS_START = _monotonic()
"""The monotonic time, in seconds, at which the core was imported in this process."""

_EPOCH_OFFSET = time.time() - PROCESS_START

BUCKETS = (
  'setup',
  'init_optimizer',
  'data',
  'update',
  'prepare_for_eval',
  'eval',
  'log',
  'checkpoint',
)
SUBMISSION_BUCKETS = ('data', 'update', 'prepare_for_eval')


def epoch_sec(monotonic_sec: float) -> float:
  """Converts a monotonic time of this process to seconds since 1970, as AlgoPerf tells times."""
  return _EPOCH_OFFSET + monotonic_sec


class Stopwatch:
  """Cuts the time since `start` into buckets: each lap charges the time since the previous lap.

  Args:
    start: monotonic time in seconds at which the first lap begins.
    now: the source of monotonic time.
  """

  __slots__ = ('_buckets', '_carried', '_charged', '_last', '_now')

  def __init__(
    self,
    *,
    start: float,
    now: Callable[[], float] = _monotonic,
  ):
    self._now = now
    self._last = start
    self._buckets = dict.fromkeys(BUCKETS, 0.0)
    self._carried = 0.0
    self._charged = 0.0

  def carry(self, buckets: Mapping[str, float], charged: float) -> None:
    """Adds the times that a resumed trial had on its clock at its last checkpoint.

    `charged` is not added to what this process has charged: the larger of the two counts, because
    an uninterrupted trial charges its initialization once.
    """
    for name, seconds in buckets.items():
      self._buckets[name] += seconds
    self._carried += sum(buckets.values())
    self._charged = max(self._charged, charged)

  def lap(self, bucket: str) -> float:
    """Charges the time since the previous lap to `bucket`; returns the current monotonic time."""
    now = self._now()
    self._buckets[bucket] += now - self._last
    self._last = now
    return now

  def charge(self, seconds: float) -> None:
    """Counts `seconds` of another bucket as submission time too."""
    self._charged += seconds

  @property
  def last(self) -> float:
    """The monotonic time of the last lap."""
    return self._last

  @property
  def charged(self) -> float:
    """Seconds of other buckets that count as submission time."""
    return self._charged

  def total(self) -> float:
    """Seconds in all buckets: the wall time of the trial up to the last lap."""
    return sum(self._buckets.values())

  @property
  def session_sec(self) -> float:
    """The part of `total` that this process spent, without what `carry` added."""
    return self.total() - self._carried

  @property
  def submission_time(self) -> float:
    """Seconds that count against the budget."""
    return sum(self._buckets[name] for name in SUBMISSION_BUCKETS) + self._charged

  def buckets(self) -> dict[str, float]:
    """Returns the seconds of each bucket, by its name in `BUCKETS`."""
    return dict(self._buckets)
