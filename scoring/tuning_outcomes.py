"""What external tuning tried: the points of each search space, and what came of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.result import Result
from scoring.training_curves import counting

if TYPE_CHECKING:
  import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Outcome:
  """What became of a point on a workload.

  Attributes:
    num_won: studies that count by this point, of those that reached the target.
    time: the median time to target of the trials that reached it; NaN if none did.
  """

  num_trials: int
  num_reached: int
  num_diverged: int
  num_won: int
  time: float


@dataclass(frozen=True, kw_only=True)
class Tried:
  """The points of a submission, those that win most first.

  Attributes:
    points: values of the hyperparameters that vary.
    fixed: values of the others.
    outcomes: by point and workload; a workload on which a point was not tried is absent.
  """

  submission: str
  points: tuple[Mapping[str, Any], ...]
  fixed: Mapping[str, Any]
  outcomes: tuple[Mapping[str, Outcome], ...]


def of(result: Result) -> tuple[Tried, ...]:
  """In the order of the ranking; submissions with a single point are left out."""
  table = result.outcomes
  known = table[table.hyperparameters != '']
  won = counting(result)
  winners = set(won.path[won.status == 'reached'])
  found = []
  for s in result.ranking:
    mine = known[known.submission == result.submissions[s]]
    by_point = dict(iter(mine.groupby('hyperparameters', sort=True)))
    if len(by_point) > 1:
      found.append(_tried(result.submissions[s], by_point, winners))
  return tuple(found)


def _tried(submission: str, by_point: Mapping[str, pd.DataFrame], winners: set[str]) -> Tried:
  points = {text: json.loads(text) for text in by_point}
  names = list(dict.fromkeys(name for point in points.values() for name in point))
  varying = [
    name for name in names if len({json.dumps(point.get(name)) for point in points.values()}) > 1
  ]
  outcomes = {
    text: {str(w): _outcome(found, winners) for w, found in rows.groupby('workload')}
    for text, rows in by_point.items()
  }
  order = sorted(points, key=lambda text: -sum(one.num_won for one in outcomes[text].values()))
  first = points[order[0]]
  return Tried(
    submission=submission,
    points=tuple({name: points[text].get(name) for name in varying} for text in order),
    fixed={name: first[name] for name in names if name not in varying},
    outcomes=tuple(outcomes[text] for text in order),
  )


def _outcome(rows: pd.DataFrame, winners: set[str]) -> Outcome:
  reached = rows.status == 'reached'
  times = rows.time[reached].to_numpy(dtype=float)
  lost = ~reached & ((rows.stop_reason == 'diverged') | ((rows.num_rows > 0) & rows.best.isna()))
  return Outcome(
    num_trials=len(rows),
    num_reached=int(reached.sum()),
    num_diverged=int(lost.sum()),
    num_won=sum(path in winners for path in rows.path),
    time=float(np.median(times)) if len(times) else float('nan'),
  )
