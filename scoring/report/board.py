"""What the charts of a result show, as plain data; `line_charts` and `cell_charts` draw it."""

from __future__ import annotations

from typing import Any

import numpy as np

from scoring.axis import UNITS
from scoring.leaderboard import Leaderboard
from scoring.report import cells


def of(result: Leaderboard) -> dict[str, Any]:
  """The part of a board that needs no statistics; intervals are there with statistics."""
  order, statistics = result.ranking, result.statistics
  unknown = (None, None)
  return {
    'title': result.rules.suite.title,
    'unit': UNITS[result.rules.axis],
    'ratios_to': result.reference or 'the fastest',
    'max_ratio': result.rules.suite.max_ratio,
    'submissions': [result.submissions[s] for s in order],
    'profile': _profile(result),
    'scores': [
      [
        float(result.scores[s]),
        *(unknown if statistics is None else map(cells.short, statistics.intervals.scores[s])),
      ]
      for s in order
    ],
    'workloads': [_workload(result, name) for name in result.workloads],
    'heat': cells.of(result),
    'reasons': cells.reasons(result.rules.suite.max_ratio),
  }


def _profile(result: Leaderboard) -> list[list[float]]:
  """The steps of the performance profiles: place in the ranking, ratio, share of workloads.

  Every ratio at which one of the profiles rises has a row for each submission.
  """
  limit, ratios = result.rules.suite.max_ratio, result.ratios[result.ranking]
  steps = np.unique(ratios[np.isfinite(ratios) & (ratios <= limit)])
  steps = np.unique(np.concatenate([[1.0], np.maximum(steps, 1.0), [limit]]))
  shares = (ratios[:, :, None] <= steps).sum(axis=1) / result.columns.num_counted
  return [
    [place, round(float(ratio), 4), round(float(share), 4)]
    for place, row in enumerate(shares)
    for ratio, share in zip(steps, row, strict=True)
  ]


def _workload(result: Leaderboard, name: str) -> dict[str, Any]:
  target = result.rules.members[name].target
  return {
    'name': name,
    'base': result.rules.base_of.get(name),
    'metric': target.metric,
    'max': target.direction == 'max',
    'target': target.validation,
  }
