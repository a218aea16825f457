"""What a race was planned to take, against what it took."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scoring.result import Result


@dataclass(frozen=True, kw_only=True)
class Forecast:
  """The wall seconds of finished trials, by their own clocks and added up.

  Attributes:
    workload: None for all together.
    basis: how it was known where the trials would stop; several are counted together as they are.
  """

  workload: str | None
  num_trials: int
  expected_sec: float
  at_most_sec: float
  actual_sec: float
  basis: tuple[str, ...]

  @property
  def error(self) -> float:
    """By how much of what was taken the estimate was off: above 0 if it was too high."""
    return self.expected_sec / self.actual_sec - 1


def forecasts(result: Result) -> tuple[Forecast, ...]:
  """By workload, then all together; empty where nothing was planned or nothing has finished."""
  by_workload = [one for name in result.workloads for one in _of_workload(result, name)]
  if not by_workload:
    return ()
  total = Forecast(
    workload=None,
    num_trials=sum(one.num_trials for one in by_workload),
    expected_sec=sum(one.expected_sec for one in by_workload),
    at_most_sec=sum(one.at_most_sec for one in by_workload),
    actual_sec=sum(one.actual_sec for one in by_workload),
    basis=tuple(dict.fromkeys(basis for one in by_workload for basis in one.basis)),
  )
  return (*by_workload, total)


def _of_workload(result: Result, workload: str) -> Iterator[Forecast]:
  if result.runs is None:
    return
  planned = {
    (one.submission, one.framework): one for one in result.runs.planned if one.workload == workload
  }
  took = [
    (planned[trial.entry, trial.framework], trial.wall_sec)
    for trial in result.runs.trials
    if trial.workload == workload
    and trial.wall_sec
    and trial.submission in result.submissions
    and (trial.entry, trial.framework) in planned
  ]
  if took:
    yield Forecast(
      workload=workload,
      num_trials=len(took),
      expected_sec=sum(one.expected_sec - one.off_clock_sec for one, _ in took),
      at_most_sec=sum(one.at_most_sec - one.off_clock_sec for one, _ in took),
      actual_sec=sum(sec for _, sec in took),
      basis=tuple(dict.fromkeys(one.basis for one, _ in took)),
    )


def sentence(one: Forecast) -> str:
  """A forecast in words."""
  what = 'All together' if one.workload is None else one.workload
  how = 'more than' if one.error > 0 else 'less than'
  off = f'{abs(one.error):.0%} {how} it took' if round(abs(one.error), 2) else 'as it was'
  return (
    f'{what}: {_minutes(one.actual_sec)} of {one.num_trials} finished '
    f'trial{"s" * (one.num_trials != 1)}; expected {_minutes(one.expected_sec)} ({off}), at most '
    f'{_minutes(one.at_most_sec)}. Where trials stop: {", ".join(one.basis)}.'
  )


def _minutes(seconds: float) -> str:
  return f'{seconds:.0f} s' if seconds < 100 else f'{seconds / 60:,.1f} min'
