"""Times the steps of a trial, and says when to wait for the device.

A *burst* is the steps between two synchronizations, a *segment* the steps between two evaluations.
"""

from __future__ import annotations

from collections.abc import Sequence

from algorithmic_efficiency.trial.position import Segment

MAX_IN_FLIGHT = 32  # steps by which the device may be behind the host
_SYNC_PERIOD_SEC = 0.25


class StepTimer:
  """Bounds the steps in flight, and keeps the mean step time of each burst.

  Args:
    now: monotonic seconds at which the first burst begins.
    max_in_flight: the most steps of a burst; with 1 each step is timed by itself.

  Attributes:
    last_bursts: mean seconds and number of steps of each burst of the segment that ended last.
  """

  def __init__(self, now: float, *, max_in_flight: int = MAX_IN_FLIGHT):
    self.last_bursts: tuple[Segment, ...] = ()
    self._max_in_flight = max_in_flight
    self._burst_start = now
    self._in_flight = 0
    self._window = 1
    self._bursts: list[tuple[float, int]] = []
    self._prepare_sec = 0.0

  def count_step(self) -> bool:
    """Counts one step as in flight. Returns whether it is time to synchronize."""
    self._in_flight += 1
    return self._in_flight >= self._window

  def end_burst(self, now: float, *, compiles: bool) -> float:
    """Ends the burst at a synchronization; does nothing if no step is in flight.

    Args:
      now: monotonic seconds.
      compiles: whether a step of the burst compiled, so that its time counts nowhere.

    Returns:
      The mean seconds of a step.
    """
    if not self._in_flight:
      return 0.0
    mean = (now - self._burst_start) / self._in_flight
    if not compiles:
      self._bursts.append((mean, self._in_flight))
    self._in_flight, self._burst_start = 0, now
    return mean

  def fit_window(self, step_sec: float) -> None:
    """Synchronizes from now on about every quarter of a second, if a step takes `step_sec`."""
    self._window = max(1, min(self._max_in_flight, int(_SYNC_PERIOD_SEC / max(step_sec, 1e-9))))

  def prepared(self, seconds: float) -> None:
    """Takes the seconds of `prepare_for_eval` for the evaluation that ends this segment."""
    self._prepare_sec = seconds

  def end_segment(self) -> Segment | None:
    """Ends the segment at an evaluation. Returns None if none of its steps was timed."""
    self.last_bursts = tuple(self._bursts)
    prepare_sec, self._prepare_sec = self._prepare_sec, 0.0
    if not self._bursts:
      return None
    num_steps = sum(count for _, count in self._bursts)
    total_sec = sum(seconds * count for seconds, count in self._bursts)
    self._bursts.clear()
    return (total_sec + prepare_sec) / num_steps, num_steps

  def skip_to(self, now: float) -> None:
    """Leaves out the time until `now`, which was spent on no step."""
    self._burst_start = now

  def steps_per_sec(self, past: Sequence[Segment]) -> float | None:
    """The present speed: of this segment, or of the last one in `past` while this has no burst."""
    seconds = median_step_sec(self._bursts or past[-1:])
    return 1.0 / seconds if seconds else None


def median_step_sec(parts: Sequence[tuple[float, int]]) -> float | None:
  """The median seconds of a step, from parts of (seconds of a step, number of steps)."""
  middle = sum(num_steps for _, num_steps in parts) / 2
  for seconds, num_steps in sorted(parts):
    middle -= num_steps
    if middle <= 0:
      return seconds
  return None


def mean_step_sec(segments: Sequence[Segment]) -> float | None:
  """The total seconds over the total steps of segments, so that periodic work has its price.

  The first segment is left out if there are others: a program may be compiled again in it.
  """
  counted = segments[1:] or segments
  num_steps = sum(count for _, count in counted)
  return sum(seconds * count for seconds, count in counted) / num_steps if num_steps else None
