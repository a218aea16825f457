"""The cells of the heat map: a time, its ratio to the fastest, and why it is a miss."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from scoring.leaderboard import Leaderboard
from scoring.outputs import percent

_STATUS_REASONS = {
  'no_data': 'no_data',
  'invalid_trial': 'invalid',
  'other_suite': 'invalid',
  'altered_suite': 'invalid',
  'altered_workload': 'invalid',
  'smoke': 'invalid',
}


def reasons(max_ratio: float) -> dict[str, dict[str, str]]:
  """Why a cell is a miss: the word in the cell, and the sentence that explains it."""
  found = {
    'budget': ('budget', 'Half of the studies or more did not reach the target in their budget.'),
    'diverged': ('diverged', 'Training diverged in most trials that missed the target.'),
    'no_data': ('no data', 'The trials left no evaluations.'),
    'damaged': ('damaged', 'Files of the trials are damaged; see what was left out.'),
    'invalid': ('invalid', 'The trials broke a rule, or were run for another suite or definition.'),
    'not_run': ('not run', 'There is no trial of this submission on this workload.'),
    'slow': (
      'too slow',
      f'The target was reached, but later than {max_ratio:g} times the fastest time.',
    ),
    'held_out': (
      'held out',
      'The target was reached here, but not on the held-out variant of this workload.',
    ),
    'base': (
      'base',
      'This is a held-out variant, and its base workload was missed. So this time does not count.',
    ),
  }
  return {name: {'short': short, 'text': text} for name, (short, text) in found.items()}


def of(result: Leaderboard) -> list[list[dict[str, Any]]]:
  """A row a submission, best first; a column a workload.

  `t` is the median time; `low`, `high` and `cov` are its interval and coverage. `r` is the ratio,
  and `miss` the key of a reason.
  """
  columns = range(len(result.workloads))
  return [[_cell(result, s, w) for w in columns] for s in result.ranking]


def short(value: float) -> float | None:
  """Five significant digits; None for what JSON cannot say."""
  return float(f'{value:.5g}') if math.isfinite(value) else None


def _cell(result: Leaderboard, s: int, w: int) -> dict[str, Any]:
  time = result.times[s, w]
  cell: dict[str, Any] = {'t': short(time), 'low': None, 'high': None, 'cov': ''}
  if result.statistics is not None:
    intervals = result.statistics.intervals
    cell['low'], cell['high'] = map(short, intervals.times[s, w])
    cell['cov'] = percent(intervals.time_coverages[s, w])
  if reason := _reason(result, s, w):
    cell['miss'] = reason
  if np.isfinite(time):
    cell['r'] = short(time / _unit(result, w))
  return cell


def _unit(result: Leaderboard, w: int) -> float:
  """What the times of a column are divided by: in a base column as the score does."""
  times = result.times[:, w]
  if result.reference is not None:
    own = float(times[result.submissions.index(result.reference)])
    if np.isfinite(own):
      return own
  elif w in result.columns.base:
    counted = np.isfinite(result.ratios[:, result.columns.base.index(w)])
    if counted.any():
      return float(times[counted].min())
  return _fastest(result, w)


def _fastest(result: Leaderboard, w: int) -> float:
  """What the cut-off of a column is measured by: a held-out time counts only with its base."""
  times = result.times[:, w]
  base = result.rules.base_of.get(result.workloads[w])
  if base is not None:
    counted = np.isfinite(result.times[:, result.workloads.index(base)]) & np.isfinite(times)
    times = times[counted] if counted.any() else times
  return float(np.nanmin(times))


def _reason(result: Leaderboard, s: int, w: int) -> str:
  time, limit = result.times[s, w], result.rules.suite.max_ratio
  if np.isnan(time):
    return 'not_run'
  if np.isinf(time):
    return _reason_of_trials(result, s, w)
  name = result.workloads[w]
  base = result.rules.base_of.get(name)
  if base is not None and not np.isfinite(result.times[s, result.workloads.index(base)]):
    return 'base'
  if time > limit * _fastest(result, w):
    return 'slow'
  if base is not None:
    return ''
  if np.isinf(result.ratios[s, result.columns.base.index(w)]):
    return 'held_out' if name in result.rules.base_of.values() else 'slow'
  return ''


def _reason_of_trials(result: Leaderboard, s: int, w: int) -> str:
  """The most frequent reason among the trials that did not reach the target."""
  table = result.outcomes
  mine = (table.submission == result.submissions[s]) & (table.workload == result.workloads[w])
  reasons: Counter[str] = Counter()
  for row in table[mine & (table.status != 'reached')].itertuples():
    if row.status == 'not_reached':
      lost = row.stop_reason == 'diverged' or (row.num_rows > 0 and not math.isfinite(row.best))
      reasons['diverged' if lost else 'budget'] += 1
    else:
      reasons[_STATUS_REASONS.get(row.status, 'damaged')] += 1
  return reasons.most_common(1)[0][0] if reasons else 'budget'
