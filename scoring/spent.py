"""What the wall time of trials went into, and how long training waited for data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scoring.result import Result
from scoring.runs import TrialFiles


@dataclass(frozen=True, kw_only=True)
class Spent:
  """The clocks of the finished trials of a submission on a workload, added up.

  Attributes:
    shares: of the wall time, by bucket.
    waited: share of the wall time in which training waited for batches that were not ready; NaN
      where no trial says it. It is part of the buckets.
  """

  submission: str
  workload: str
  num_trials: int
  shares: dict[str, float]
  waited: float


def of(result: Result) -> tuple[Spent, ...]:
  """By workload and submission, the best first; empty where no trial has a clock of ours."""
  trials = () if result.runs is None else result.runs.trials
  return tuple(
    _added(name, workload, found)
    for workload in result.workloads
    for name in (result.submissions[s] for s in result.ranking)
    if (found := list(_on(trials, name, workload)))
  )


def _on(trials: Iterable[TrialFiles], submission: str, workload: str) -> Iterable[TrialFiles]:
  for trial in trials:
    if (trial.submission, trial.workload) == (submission, workload) and trial.wall_sec:
      yield trial


def _added(submission: str, workload: str, trials: Sequence[TrialFiles]) -> Spent:
  wall_sec = sum(sum(trial.buckets.values()) for trial in trials)
  names = dict.fromkeys(name for trial in trials for name in trial.buckets)
  told = [trial for trial in trials if trial.data_wait_sec is not None]
  told_sec = sum(sum(trial.buckets.values()) for trial in told)
  return Spent(
    submission=submission,
    workload=workload,
    num_trials=len(trials),
    shares={
      name: sum(trial.buckets.get(name, 0.0) for trial in trials) / wall_sec for name in names
    },
    waited=sum(trial.data_wait_sec or 0.0 for trial in told) / told_sec if told else math.nan,
  )
