"""What the runs took, in accelerator-hours, and what a step costs beside one of the baseline."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scoring.result import Result


@dataclass(frozen=True, kw_only=True)
class Cost:
  """Hours times accelerators: inside the submission, in evaluations, and all with the logging.

  What trials spent after their last evaluation, and on setting up, is in no log and not counted.
  """

  submission: str
  submission_hours: float
  eval_hours: float
  total_hours: float
  num_accelerators: int


@dataclass(frozen=True, kw_only=True)
class CostSummary:
  """The cost by which the steps of a submission are weighed on a workload.

  Attributes:
    cost: the median over studies; NaN where no step was timed. low, high: the extremes.
    floor: the largest difference from 1 that a second process of the baseline showed in any study.
      None where costs come from the step times of the runs.
  """

  submission: str
  workload: str
  cost: float
  low: float
  high: float
  floor: float | None


def steps(result: Result) -> tuple[CostSummary, ...]:
  """In the order of the ranking; empty where seconds are raced."""
  if result.rules.axis == 'seconds':
    return ()
  cells = result.outcomes.groupby(['submission', 'workload'])
  found = []
  for s in result.ranking:
    for workload in result.workloads:
      key = (result.submissions[s], workload)
      if key not in cells.groups:
        continue
      rows = cells.get_group(key)
      floor = float(rows.log_floor.max())
      found.append(
        CostSummary(
          submission=result.submissions[s],
          workload=workload,
          cost=float(rows.cost.median()),
          low=float(rows.cost.min()),
          high=float(rows.cost.max()),
          floor=None if math.isnan(floor) else math.expm1(floor),
        )
      )
  return tuple(found)


def of(result: Result) -> tuple[Cost, ...]:
  """In the order of the ranking."""
  count = result.rules.suite.num_accelerators
  table = result.outcomes
  found = []
  for s in result.ranking:
    rows = table[table.submission == result.submissions[s]]
    seconds = [
      float(rows[name].sum()) for name in ('total_submission_time_sec', 'eval_sec', 'logging_sec')
    ]
    hours = [value * count / 3600 for value in seconds]
    found.append(
      Cost(
        submission=result.submissions[s],
        submission_hours=hours[0],
        eval_hours=hours[1],
        total_hours=sum(hours),
        num_accelerators=count,
      )
    )
  return tuple(found)
