"""Shows the progress of a race: a live table in a terminal, a line for each trial elsewhere."""

from __future__ import annotations

import functools
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from algorithmic_efficiency.experiments.race.state import TrialState
from algorithmic_efficiency.launch import outcome as outcomes
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.launch.pool import Event
from algorithmic_efficiency.launch.progress import duration, say, title
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.messages import Progress

if TYPE_CHECKING:
  from rich.table import Table

_REFRESH_PERIOD_SEC = 0.25

Stage = Literal['left', 'running', 'done', 'failed']
Row = tuple[str, str, str]  # submission, workload, framework
Cell = tuple[str, str]  # workload, framework


def row_of(config: TrialConfig) -> Row:
  return config.submission, config.workload, config.framework


class RaceProgress:
  """Counts of a race's trials by stage, and the time that is left.

  Args:
    states: all trials of the race, as they were found.
    jobs: for each job the index of its trial; for a job that times steps, its workload and
      framework.
    num_slots: number of trials that run at a time.
    now: the source of time, in seconds.
  """

  def __init__(
    self,
    states: Sequence[TrialState],
    jobs: Sequence[int | Cell],
    *,
    num_slots: int,
    now: Callable[[], float] = time.monotonic,
  ):
    self.configs = [found.config for found in states]
    self._jobs = jobs
    self._todo = [index for index in jobs if isinstance(index, int)]
    self._timings = {job: _Timing(cell) for job, cell in enumerate(jobs) if isinstance(cell, tuple)}
    self._num_slots = num_slots
    self._now = now
    self._started: dict[int, float] = {}
    self._steps: dict[int, int] = {}
    self._seconds: defaultdict[Row, list[float]] = defaultdict(list)
    self._outcomes: dict[int, Outcome] = {}
    for index in set(range(len(states))).difference(self._todo):
      found = states[index]
      assert found.record is not None
      self._outcomes[index] = outcomes.recorded(found.config.path, found.record)
    for found in states:
      if found.record is not None and found.kind == 'finished':
        self._seconds[row_of(found.config)].append(sum(found.record.buckets.values()))

  def take(self, event: Event) -> int | None:
    """Counts an event of a job; returns the index of its trial, or None if it is no trial."""
    index = self._jobs[event.index]
    if not isinstance(index, int):
      self._timings[event.index].take(event, self._now())
      return None
    if event.kind == 'started':
      self._started[index] = self._now()
    elif isinstance(event.message, Progress):
      self._steps[index] = event.message.global_step
    elif event.outcome is not None:
      self._outcomes[index] = event.outcome
      if event.outcome.status == 'finished':
        self._seconds[row_of(self.configs[index])].append(self.elapsed(index))
    return index

  def outcomes(self) -> dict[int, Outcome]:
    """Gives the outcome of every trial that has ended, by its index, in order."""
    return dict(sorted(self._outcomes.items()))

  def outcome(self, index: int) -> Outcome | None:
    return self._outcomes.get(index)

  def elapsed(self, index: int) -> float:
    """Gives the seconds since this process started a trial."""
    return self._now() - self._started[index]

  def stage(self, index: int) -> Stage:
    outcome = self._outcomes.get(index)
    if outcome is not None:
      return 'done' if outcome.status == 'finished' else 'failed'
    return 'running' if index in self._started else 'left'

  def counts(self) -> dict[Row, Counter[Stage]]:
    """Counts the trials at each stage, by row of the table."""
    found: defaultdict[Row, Counter[Stage]] = defaultdict(Counter)
    for index, config in enumerate(self.configs):
      found[row_of(config)][self.stage(index)] += 1
    return dict(found)

  def total(self) -> Counter[Stage]:
    return sum(self.counts().values(), Counter())

  def steps(self, row: Row) -> list[int]:
    """Gives the steps that the running trials of a row have made."""
    return [
      self._steps.get(index, 0)
      for index in self._todo
      if row_of(self.configs[index]) == row and self.stage(index) == 'running'
    ]

  def seconds_left(self) -> float | None:
    """Estimates the seconds left, from finished trials of the same row, else of the same workload.

    Steps that are still to be timed count with the longest timing of the same workload, else of
    any. It precedes the trials of its study; before the first one has ended it counts nothing.

    Returns:
      None before any trial has finished.
    """
    left = self._timing_left()
    expectation = functools.cache(self._expected)
    for index in self._todo:
      stage = self.stage(index)
      if stage in ('done', 'failed'):
        continue
      expected = expectation(row_of(self.configs[index]))
      if expected is None:
        return None
      left += expected if stage == 'left' else max(0.0, expected - self.elapsed(index))
    return left / self._num_slots

  def _timing_left(self) -> float:
    """Estimates the seconds of timings that have not ended."""
    ended: defaultdict[Cell, float] = defaultdict(float)
    for one in self._timings.values():
      ended[one.cell] = max(ended[one.cell], one.seconds or 0.0)
    longest = max(ended.values(), default=0.0)
    return sum(
      max(0.0, (ended[one.cell] or longest) - one.elapsed(self._now()))
      for one in self._timings.values()
      if one.seconds is None
    )

  def _expected(self, row: Row) -> float | None:
    """Gives the median seconds of a trial of a row; None before any has finished."""
    alike = (
      self._seconds.get(row, []),
      [sec for other, found in self._seconds.items() if other[1:] == row[1:] for sec in found],
      [sec for other, found in self._seconds.items() if other[1] == row[1] for sec in found],
      [sec for found in self._seconds.values() for sec in found],
    )
    return next((statistics.median(found) for found in alike if found), None)


class _Timing:
  """A job that times the steps of all submissions of a study; `seconds` once it has ended."""

  def __init__(self, cell: Cell):
    self.cell = cell
    self.seconds: float | None = None
    self._started: float | None = None

  def take(self, event: Event, now: float) -> None:
    if event.kind == 'started':
      self._started = now
    elif event.kind == 'ended':
      self.seconds = self.elapsed(now)

  def elapsed(self, now: float) -> float:
    return 0.0 if self._started is None else now - self._started


class RaceDisplay:
  """Shows the progress of a race, from the events of the pool."""

  def __init__(self, progress: RaceProgress, *, quiet: bool = False):
    self._progress = progress
    self._quiet = quiet
    self._live: Any = None
    self._next_refresh = 0.0

  def __enter__(self) -> Self:
    if self._quiet:
      return self
    total = self._progress.total()
    before = f'; done before: {total["done"]}, failed before: {total["failed"]}'
    say(f'Trials to run: {total["left"]}{before if total["done"] + total["failed"] else ""}')
    if sys.stderr.isatty():
      from rich.console import Console
      from rich.live import Live

      self._live = Live(
        table(self._progress), console=Console(stderr=True), auto_refresh=False, transient=True
      )
      self._live.start()
    return self

  def __exit__(self, *exception: object) -> None:
    if self._live is not None:
      self._live.stop()

  def take(self, event: Event) -> None:
    index = self._progress.take(event)
    if self._quiet:
      return
    if self._live is not None:
      if event.kind != 'message' or time.monotonic() >= self._next_refresh:
        self._next_refresh = time.monotonic() + _REFRESH_PERIOD_SEC
        self._live.update(table(self._progress), refresh=True)
    elif event.kind == 'ended' and index is not None:
      say(line(self._progress, index))


def line(progress: RaceProgress, index: int) -> str:
  """Says how a trial ended, and how far the race has come."""
  total = progress.total()
  ended = total['done'] + total['failed']
  outcome = progress.outcome(index)
  assert outcome is not None
  how = outcome.stop_reason.replace('_', ' ') if outcome.status == 'finished' else cause(outcome)
  return (
    f'[{ended}/{len(progress.configs)}] {title(progress.configs[index])}: {how}, '
    f'{duration(progress.elapsed(index))}; {_summary(progress)}'
  )


def cause(outcome: Outcome) -> str:
  """Says why a trial has not finished."""
  word = outcome.status.upper()
  return f'{word}: {outcome.reason or outcome.stop_reason.replace("_", " ")}'


def _summary(progress: RaceProgress) -> str:
  total = progress.total()
  left = progress.seconds_left()
  when = 'time left unknown' if left is None else f'about {duration(left)} left'
  return f'{total["running"]} running, {total["failed"]} failed, {when}'


def table(progress: RaceProgress) -> Table:
  """Makes a table of the race, with a row for each submission on each workload."""
  from rich.table import Table

  total = progress.total()
  shown = Table(
    title=f'{total["done"]} of {len(progress.configs)} trials done, {_summary(progress)}'
  )
  for name in ('submission', 'workload', 'framework'):
    shown.add_column(name)
  for name in ('done', 'running', 'failed', 'left'):
    shown.add_column(name, justify='right')
  shown.add_column('at step', justify='right')
  for row, counts in progress.counts().items():
    numbers = (str(counts[stage] or '') for stage in ('done', 'running', 'failed', 'left'))
    shown.add_row(*row, *numbers, ', '.join(map(str, progress.steps(row))))
  return shown
