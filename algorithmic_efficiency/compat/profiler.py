"""AlgoPerf's `profiler`: seconds that named actions take, on the host's clock."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator


class Profiler:
  """Records how long each action takes. Devices are not waited for."""

  def __init__(self, local_rank: int | None = None) -> None:
    self.local_rank = local_rank
    self.recorded_durations: dict[str, list[float]] = defaultdict(list)
    self._begun: dict[str, float] = {}

  def set_local_rank(self, local_rank: int) -> None:
    """Sets the rank of this process; only rank 0 records."""
    self.local_rank = local_rank

  def start(self, action_name: str) -> None:
    """Begins an action.

    Raises:
      ValueError: the action has begun and not ended.
    """
    if action_name in self._begun:
      raise ValueError(f'An action must end before it begins again; {action_name!r} has not.')
    self._begun[action_name] = time.perf_counter()

  def stop(self, action_name: str) -> None:
    """Ends an action.

    Raises:
      ValueError: the action has not begun.
    """
    if action_name not in self._begun:
      raise ValueError(f'An action must begin before it ends; {action_name!r} has not.')
    seconds = time.perf_counter() - self._begun.pop(action_name)
    if not self.local_rank:
      self.recorded_durations[action_name].append(seconds)

  @contextlib.contextmanager
  def profile(self, action_name: str) -> Iterator[str]:
    """Records the block as an action."""
    self.start(action_name)
    try:
      yield action_name
    finally:
      self.stop(action_name)

  def summary(self) -> str:
    """Returns a table of all actions: calls, mean, total and share of seconds, longest first."""
    totals = {name: sum(seconds) for name, seconds in self.recorded_durations.items()}
    everything = sum(totals.values()) or 1.0
    lines = [f'{"action":32} {"calls":>8} {"mean sec":>12} {"total sec":>12} {"share":>8}']
    for name in sorted(totals, key=lambda name: -totals[name]):
      seconds = self.recorded_durations[name]
      lines.append(
        f'{name:32} {len(seconds):8} {statistics.fmean(seconds):12.6f} {totals[name]:12.4f} '
        f'{totals[name] / everything:8.2%}'
      )
    return '\n'.join(lines)


class PassThroughProfiler(Profiler):
  """Takes the same calls and records nothing."""

  def start(self, action_name: str) -> None:
    """Does nothing."""

  def stop(self, action_name: str) -> None:
    """Does nothing."""

  def summary(self) -> str:
    """Returns an empty text."""
    return ''
