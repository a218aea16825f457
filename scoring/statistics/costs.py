"""What the runs took, in accelerator-hours, and what a step costs beside one of the baseline."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scoring import cost_errors
from scoring.cost_errors import CostErrors
from scoring.result import Result

if TYPE_CHECKING:
  import pandas as pd


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
    basis: 'rounds', 'runs' or 'plain', as in `axis`; empty where no step of the place was timed.
    cost: the geometric mean over studies; NaN where no step was timed.
    low, high: its interval at `LEVEL`: Student's for the mean over studies, or that of the noise,
      whichever is wider. NaN where neither is known.
    noise: what the baseline seemed to cost more or less than itself, in the root mean square over
      workloads, frameworks and hosts. None where it was not measured.
  """

  submission: str
  workload: str
  basis: str
  cost: float
  low: float
  high: float
  noise: float | None


def steps(result: Result) -> tuple[CostSummary, ...]:
  """In the order of the ranking; empty where steps are not weighed."""
  if result.rules.axis != 'cost_adjusted_steps':
    return ()
  found = cost_errors.of(result)
  cells = result.outcomes.groupby(['submission', 'workload'])
  return tuple(
    _summary(result, cells.get_group((result.submissions[s], workload)), found, s, w)
    for s in result.ranking
    for w, workload in enumerate(result.workloads)
    if (result.submissions[s], workload) in cells.groups
  )


def _summary(result: Result, rows: pd.DataFrame, found: CostErrors, s: int, w: int) -> CostSummary:
  logs = np.log(rows.groupby('study').cost.median().dropna().to_numpy())
  basis = str(rows.cost_basis.iloc[0])
  is_exact = basis == 'plain' or bool(found.is_unit[s, w])
  is_measured = found.places[s, w] != cost_errors.NOT_MEASURED and found.df > 0
  errors = found if is_measured else replace(found, log_sd=0.0, df=0)
  half = 0.0 if is_exact else errors.margin(logs)
  center = float(logs.mean()) if len(logs) else math.nan
  return CostSummary(
    submission=result.submissions[s],
    workload=result.workloads[w],
    basis=basis,
    cost=math.exp(center),
    low=math.exp(center - half),
    high=math.exp(center + half),
    noise=math.expm1(found.log_sd) if is_measured else None,
  )


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
