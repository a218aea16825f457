"""What the report shows, as plain data: texts for the page, numbers for its charts."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from scoring import planned, spent
from scoring.axis import UNITS
from scoring.console import sentence
from scoring.leaderboard import Leaderboard
from scoring.notes import KINDS, counted
from scoring.outputs import against_next, footnotes, percent
from scoring.profiles import NUM_POINTS
from scoring.runs import KEYS
from scoring.statistics import costs, speedups

if TYPE_CHECKING:
  import pandas as pd

MAX_POINTS = 24  # of a training curve; the page says that curves are thinned
MAX_PLACES = 400  # of one kind of note that the page lists

REASONS = {
  'budget': 'not within the budget',
  'diverged': 'diverged',
  'no_data': 'no data',
  'damaged': 'damaged file',
  'invalid': 'marked invalid',
  'not_run': 'not run',
  'slow': 'slower than the cut-off',
  'held_out': 'missed its held-out variant',
  'base': 'missed its base workload',
}
_STATUS_REASONS = {
  'no_data': 'no_data',
  'invalid_trial': 'invalid',
  'other_suite': 'invalid',
  'altered_suite': 'invalid',
  'altered_workload': 'invalid',
  'smoke': 'invalid',
}


def build(frame: pd.DataFrame, result: Leaderboard) -> dict[str, Any]:
  """Everything that the page needs; `charts` goes to its script, the rest to its template."""
  rules = result.rules
  return {
    'title': rules.suite.title,
    'unit': UNITS[rules.axis],
    'facts': footnotes(result),
    'leaderboard': _leaderboard(result),
    'verdicts': [sentence(one) for one in _statistics(result).verdicts],
    'speedups': [_speedup(one) for one in _statistics(result).speedups],
    'speedup_reference': speedups.reference_of(result),
    'sensitivity': list(_statistics(result).sensitivity.sentences),
    'step_costs': _step_costs(result),
    'spent': _spent(result),
    'forecasts': [planned.sentence(one) for one in planned.forecasts(result)],
    'ledger': _ledger(result),
    'tuning_exact': _statistics(result).tuning_curves.exact,
    'left_out': _left_out(result),
    'rules': _rules(result),
    'ratios_to': result.reference or 'the fastest',
    'environment': _environment(result),
    'raw': _raw(result),
    'charts': _charts(frame, result),
  }


def _statistics(result: Leaderboard):
  assert result.statistics is not None, 'the report needs the statistics'
  return result.statistics


def _names(result: Leaderboard) -> list[str]:
  return [result.submissions[s] for s in result.ranking]


def _leaderboard(result: Leaderboard) -> list[dict[str, Any]]:
  statistics, rows = _statistics(result), []
  ratios = {one.submission: one for one in statistics.speedups}
  ledger = {one.submission: one for one in statistics.ledger}
  costs = {one.submission: one for one in statistics.costs}
  for place, s in enumerate(result.ranking):
    name = result.submissions[s]
    low, high = statistics.intervals.scores[s]
    speedup = ratios.get(name)
    rows.append(
      {
        'rank': result.rank(s),
        'submission': name,
        'published': name in result.published,
        'score': float(result.scores[s]),
        'low': _short(low),
        'high': _short(high),
        'coverage': percent(statistics.intervals.score_coverages[s]),
        'verdict': against_next(result, place),
        'scored': int(np.isfinite(result.ratios[s]).sum()),
        'counted': result.columns.num_counted,
        'speedup': None if speedup is None else speedup.ratio,
        'num_trials': ledger[name].num_trials,
        'num_points': ledger[name].num_points,
        'hours': costs[name].total_hours,
      }
    )
  return rows


def _speedup(one: Any) -> str:
  interval = '' if math.isnan(one.low) else f' ({one.low:.2f} to {one.high:.2f})'
  bound = '' if one.bound == 'exact' else f'{one.bound} '
  return (
    f'{one.submission}: {bound}{one.ratio:.2f} times as fast as {one.reference}{interval}; '
    f'workloads not scored on: {one.num_missed}, by the reference {one.num_missed_by_reference}.'
  )


def _step_costs(result: Leaderboard) -> dict[str, Any] | None:
  """A row a submission, a column a workload; None where seconds are raced."""
  found = {(one.submission, one.workload): one for one in _statistics(result).step_costs}
  if not found:
    return None
  noise = {one.workload: one.noise for one in found.values() if one.noise is not None}
  plain = {one.workload for one in found.values() if one.basis == 'plain'}
  return {
    'workloads': list(result.workloads),
    'rows': [
      {'submission': name, 'values': [_cost(found.get((name, w))) for w in result.workloads]}
      for name in _names(result)
    ],
    'noise': [
      f'{noise[w]:.1%}' if w in noise else 'plain steps' if w in plain else 'from the runs'
      for w in result.workloads
    ],
  }


def _cost(one: costs.CostSummary | None) -> str:
  if one is None:
    return ''
  if math.isnan(one.cost):
    return 'not timed'
  known = math.isfinite(one.low) and one.low != one.high
  spread = f' ({one.low:.2f} to {one.high:.2f})' if known else ''
  return f'{one.cost:.2f}{spread}'


def _spent(result: Leaderboard) -> dict[str, Any] | None:
  """A row a workload and submission, in percent of the wall time; None where none is known."""
  found = spent.of(result)
  if not found:
    return None
  buckets = list(dict.fromkeys(name for one in found for name in one.shares))
  return {
    'buckets': buckets,
    'rows': [
      {
        'submission': one.submission,
        'workload': one.workload,
        'num_trials': one.num_trials,
        'values': [f'{one.shares.get(name, 0.0):.1%}' for name in buckets],
        'waited': '' if math.isnan(one.waited) else f'{one.waited:.1%}',
      }
      for one in found
    ],
  }


def _ledger(result: Leaderboard) -> list[dict[str, Any]]:
  costs = {one.submission: one for one in _statistics(result).costs}
  return [
    {
      'submission': one.submission,
      'score': one.score,
      'num_trials': one.num_trials,
      'num_points': one.num_points,
      'hyperparameters': list(one.hyperparameters),
      'submission_hours': costs[one.submission].submission_hours,
      'eval_hours': costs[one.submission].eval_hours,
      'total_hours': costs[one.submission].total_hours,
    }
    for one in _statistics(result).ledger
  ]


def _left_out(result: Leaderboard) -> list[dict[str, Any]]:
  groups = []
  for kind, count in counted(result.notes).items():
    places = [note for note in result.notes if note.kind == kind]
    shown = [f'{note.where}: {note.detail}' if note.detail else note.where for note in places]
    groups.append(
      {'count': count, 'text': KINDS[kind], 'places': shown[:MAX_PLACES]}
      | {'more': max(0, count - MAX_PLACES)}
    )
  return groups


def _rules(result: Leaderboard) -> list[tuple[str, str]]:
  rules = result.rules
  return [
    ('Suite', f'{rules.suite.name}: {rules.suite.title}'),
    ('Tuning ruleset', rules.ruleset),
    (
      'Studies and trials',
      f'{rules.tuning.num_studies} studies of {rules.tuning.num_trials}. The best trial of a study '
      'counts, by the row of its first evaluation at the target, then by seconds. A submission '
      'counts as the median over studies, misses included',
    ),
    ('Axis', UNITS[rules.axis]),
    ('Hardware of the rules', rules.suite.hardware),
    ('Miss', f'above {rules.suite.max_ratio:g} times the fastest, or a missed held-out variant'),
    ('Score', f'{rules.integral} integral of the performance profile'),
    ('Ratios against', result.reference or 'the fastest of each workload'),
    *[('Other than the suite says', change) for change in rules.changes],
  ]


def _environment(result: Leaderboard) -> list[dict[str, Any]]:
  """The distinct environments that our own runs recorded, with the number of trials in each."""
  if result.runs is None:
    return []
  texts = Counter(
    json.dumps(trial.environment, sort_keys=True, default=str)
    for trial in result.runs.trials
    if trial.environment
  )
  found = []
  for text, count in texts.most_common():
    record = json.loads(text)
    lines = [f'{name}: {value}' for name, value in sorted(record.items())]
    found.append({'count': count, 'lines': lines})
  return found


def _raw(result: Leaderboard) -> list[dict[str, Any]]:
  from scoring.outputs import raw_table

  table = raw_table(result)
  other = ('submission', 'workload', 'low', 'high', 'coverage')
  names = [name for name in table.columns if name not in other]
  return [
    {'submission': row['submission'], 'workload': row['workload']}
    | {'values': [_text(row[name]) for name in names]}
    for row in table.to_dict('records')
  ]


def _text(value: float) -> str:
  if math.isnan(value):
    return ''
  return 'miss' if math.isinf(value) else f'{value:,.5g}' if value < 1000 else f'{value:,.0f}'


def _charts(frame: pd.DataFrame, result: Leaderboard) -> dict[str, Any]:
  statistics, order = _statistics(result), result.ranking
  points = np.linspace(1.0, result.rules.suite.max_ratio, NUM_POINTS)
  curves = statistics.tuning_curves
  return {
    'title': result.rules.suite.title,
    'unit': UNITS[result.rules.axis],
    'ratios_to': result.reference or 'the fastest',
    'max_ratio': result.rules.suite.max_ratio,
    'submissions': _names(result),
    'profile': {
      'tau': [round(float(tau), 4) for tau in points],
      'share': [[round(float(v), 4) for v in row] for row in result.profile()[order]],
    },
    'scores': [
      [float(result.scores[s]), *map(_short, statistics.intervals.scores[s])] for s in order
    ],
    'workloads': [_workload(result, name) for name in result.workloads],
    'heat': [[_cell(result, s, w) for w in range(len(result.workloads))] for s in order],
    'reasons': REASONS,
    'tuning': {
      'k': list(curves.num_trials),
      'score': [[_short(value) for value in row] for row in curves.scores[order]],
    },
    'curves': _curves(frame, result),
  }


def _workload(result: Leaderboard, name: str) -> dict[str, Any]:
  target = result.rules.members[name].target
  return {
    'name': name,
    'base': result.rules.base_of.get(name),
    'metric': target.metric,
    'max': target.direction == 'max',
    'target': target.validation,
  }


def _cell(result: Leaderboard, s: int, w: int) -> dict[str, Any]:
  """A cell of the heat map: time, ratio to the fastest, and why it is a miss."""
  time = result.times[s, w]
  low, high = _statistics(result).intervals.times[s, w]
  cell: dict[str, Any] = {'t': _short(time), 'low': _short(low), 'high': _short(high)}
  reason = _reason(result, s, w)
  cell['cov'] = percent(_statistics(result).intervals.time_coverages[s, w])
  if reason:
    cell['miss'] = reason
  if np.isfinite(time):
    cell['r'] = _short(time / _unit(result, w))
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


def _short(value: float) -> float | None:
  """Five significant digits; None for what JSON cannot say."""
  return float(f'{value:.5g}') if math.isfinite(value) else None


def _curves(frame: pd.DataFrame, result: Leaderboard) -> dict[str, Any]:
  """The training curve of every trial, by workload and place in the ranking, thinned.

  Each is [study/trial, reached, seconds, steps, values].
  """
  place = {name: rank for rank, name in enumerate(_names(result))}
  status = {
    tuple(row[:5]): row[5] == 'reached'
    for row in result.outcomes[[*KEYS, 'status']].itertuples(index=False)
  }
  hit_rows = {
    tuple(row[:5]): row[5]
    for row in result.outcomes[[*KEYS, 'row']].itertuples(index=False)
    if not math.isnan(row[5])
  }
  wanted = frame.submission.isin(place) & frame.workload.isin(result.workloads)
  rows = frame[wanted.to_numpy()]
  found: dict[str, Any] = {name: [[] for _ in place] for name in result.workloads}
  values = {
    name: rows[name].to_numpy() for name in ('submission_time_sec', 'global_step', 'validation')
  }
  groups = rows.groupby(list(KEYS), observed=True, sort=True).indices
  for key, indices in groups.items():
    kept = _thinned(indices, hit_rows.get(key))
    submission, study, workload, _, trial = key
    found[workload][place[submission]].append(
      [
        f'{study}/{trial}',
        int(status.get(key, False)),
        [_short(value) for value in values['submission_time_sec'][kept].tolist()],
        [_short(value) for value in values['global_step'][kept].tolist()],
        [_short(value) for value in values['validation'][kept].tolist()],
      ]
    )
  return found


def _thinned(indices: np.ndarray, hit: float | None) -> np.ndarray:
  """At most MAX_POINTS of the rows, evenly, with the first, the last and the one at the target."""
  indices = np.sort(indices)
  if len(indices) <= MAX_POINTS:
    return indices
  kept = set(np.linspace(0, len(indices) - 1, MAX_POINTS).round().astype(int).tolist())
  if hit is not None and hit < len(indices):
    kept.add(int(hit))
  return indices[sorted(kept)]
