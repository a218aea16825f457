"""What the report shows, as plain data: texts for the page, numbers for its charts."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from algorithmic_efficiency.results import environment
from scoring import about, planned, spent, summary, training_curves, tuning_outcomes, workload_facts
from scoring.axis import UNITS
from scoring.console import sentence
from scoring.leaderboard import Leaderboard
from scoring.notes import KINDS, counted
from scoring.outputs import BOUNDS, against_next, footnotes, number_of, percent
from scoring.report import board, cells
from scoring.report.chart_parts import short_number
from scoring.statistics import costs, speedups
from scoring.tuning_outcomes import Outcome, Tried

if TYPE_CHECKING:
  import pandas as pd

  from algorithmic_efficiency.benchmark.suites import Tuning

MAX_PLACES = 400  # of one kind of note that the page lists
MAX_TRIED = 100  # points of a submission
MAX_WINNERS = 3  # points that a cell names
MAX_ENVIRONMENTS = 8


def build(frame: pd.DataFrame, result: Leaderboard) -> dict[str, Any]:
  """Everything that the page needs; `charts` goes to its script, the rest to its template."""
  rules = result.rules
  return {
    'title': rules.suite.title,
    'unit': UNITS[rules.axis],
    'setting': _setting(result),
    'lead': summary.sentences(result, _statistics(result).verdicts),
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
    'tried': _tried(result),
    'misses': _misses(result),
    'about_names': _about_names(result),
    'tuning_exact': _statistics(result).tuning_curves.exact,
    'left_out': _left_out(result),
    'rules': _rules(result),
    'ratios_to': result.reference or 'the fastest',
    'environment': _environment(result),
    'raw': _raw(result),
    'workloads': workload_facts.of(result),
    'charts': _charts(frame, result),
  }


def _setting(result: Leaderboard) -> list[str]:
  """What was raced, in sentences, with all that differs from what the suite says."""
  rules = result.rules
  first = f'Suite {rules.suite.name}, {rules.ruleset} tuning, raced in {UNITS[rules.axis]}.'
  return [first, *(f'Other than the suite says: {change}.' for change in rules.changes)]


def _statistics(result: Leaderboard):
  assert result.statistics is not None, 'the report needs the statistics'
  return result.statistics


def _names(result: Leaderboard) -> list[str]:
  return [result.submissions[s] for s in result.ranking]


def _leaderboard(result: Leaderboard) -> list[dict[str, Any]]:
  statistics, rows = _statistics(result), []
  known = about.of(result)
  ratios = {one.submission: one for one in statistics.speedups}
  ledger = {one.submission: one for one in statistics.ledger}
  costs = {one.submission: one for one in statistics.costs}
  reference = speedups.reference_of(result)
  for place, s in enumerate(result.ranking):
    name = result.submissions[s]
    low, high = statistics.intervals.scores[s]
    speedup = ratios.get(name)
    rows.append(
      {
        'rank': result.rank(s),
        'submission': name,
        'published': name in result.published,
        'about': asdict(known[name]),
        'score': float(result.scores[s]),
        'low': cells.short(low),
        'high': cells.short(high),
        'coverage': percent(statistics.intervals.score_coverages[s]),
        'verdict': against_next(result, place),
        'scored': int(np.isfinite(result.ratios[s]).sum()),
        'counted': result.columns.num_counted,
        'speedup': None if speedup is None else speedup.ratio,
        'speedup_text': _speedup_text(speedup, is_reference=name == reference),
        'num_trials': ledger[name].num_trials,
        'num_points': ledger[name].num_points,
        'hours': costs[name].total_hours,
      }
    )
  return rows


def _speedup_text(one: speedups.Speedup | None, *, is_reference: bool) -> str:
  if one is None:
    return 'reference' if is_reference else ''
  return f'{BOUNDS[one.bound]}{one.ratio:.2f}'


def _about_names(result: Leaderboard) -> list[str]:
  """The facts on submissions that are known of one at least, other than those of the board."""
  found = [asdict(one) for one in about.of(result).values()]
  names = ('authors', 'affiliations', 'framework', 'version', 'date', 'paper', 'source_hash')
  known = [name for name in names if any(one[name] for one in found)]
  if known == ['framework'] and not any(one['description'] for one in found):
    return []  # the leaderboard says it
  return [name.replace('_', ' ').capitalize() for name in known]


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
    text = KINDS[kind][0].upper() + KINDS[kind][1:]
    groups.append(
      {'count': count, 'text': text, 'places': shown[:MAX_PLACES]}
      | {'more': max(0, count - MAX_PLACES)}
    )
  return groups


def _rules(result: Leaderboard) -> list[tuple[str, str]]:
  rules = result.rules
  return [
    ('Suite', f'{rules.suite.name}: {rules.suite.title}'),
    ('Tuning ruleset', rules.ruleset),
    ('Studies and trials', _studies_and_trials(rules.tuning)),
    ('Axis', UNITS[rules.axis]),
    ('Hardware of the rules', rules.suite.hardware),
    ('Miss', f'above {rules.suite.max_ratio:g} times the fastest, or a missed held-out variant'),
    ('Score', f'{rules.integral} integral of the performance profile'),
    ('Ratios against', result.reference or 'the fastest of each workload'),
    *[('Other than the suite says', change) for change in rules.changes],
  ]


def _studies_and_trials(tuning: Tuning) -> str:
  best = (
    'The best trial of a study counts, by the row of its first evaluation at the target, then by '
    'seconds. '
  )
  trials = number_of(tuning.num_trials, 'trial', 'trials')
  return (
    f'{number_of(tuning.num_studies, "study", "studies")} of {trials}. '
    f'{best if tuning.num_trials > 1 else ""}A submission counts as the median over studies, '
    'misses included.'
  )


def _tried(result: Leaderboard) -> dict[str, Any] | None:
  """Which points win on which workload, and what came of each; None where nothing was tuned."""
  found = tuning_outcomes.of(result) if result.rules.ruleset == 'external' else ()
  if not found:
    return None
  return {
    'workloads': list(result.workloads),
    'submissions': [
      {
        'submission': one.submission,
        'names': list(one.points[0]),
        'fixed': [f'{name} {_value(value)}' for name, value in one.fixed.items()],
        'winners': [_winner(one, name) for name in result.workloads],
        'won': _won(one),
        'points': [
          {
            'values': [_value(value) for value in point.values()],
            'outcomes': [_tried_cell(outcomes.get(name)) for name in result.workloads],
          }
          for point, outcomes in zip(one.points[:MAX_TRIED], one.outcomes, strict=False)
        ],
        'more': max(0, len(one.points) - MAX_TRIED),
      }
      for one in found
    ],
  }


def _winner(one: Tried, workload: str) -> str:
  """The points by which studies of a workload count, by number, with the count of studies."""
  won = [
    (outcomes[workload].num_won, f'#{number}')
    for number, outcomes in enumerate(one.outcomes, 1)
    if workload in outcomes and outcomes[workload].num_won
  ]
  won.sort(key=lambda pair: -pair[0])
  return ', '.join(f'{name} ({count})' for count, name in won[:MAX_WINNERS])


def _won(one: Tried) -> str:
  """By how many studies the first point counts, of those that reach a target."""
  counts = [sum(found.num_won for found in outcomes.values()) for outcomes in one.outcomes]
  return f'{counts[0]} of {sum(counts)}'


def _tried_cell(one: Outcome | None) -> dict[str, Any]:
  if one is None:
    return {'text': '', 'time': '', 'won': 0}
  lost = f', {one.num_diverged} diverged' if one.num_diverged else ''
  return {
    'text': f'{one.num_reached} of {one.num_trials}{lost}',
    'time': '' if math.isnan(one.time) else short_number(one.time),
    'won': one.num_won,
  }


def _value(value: Any) -> str:
  return f'{value:.4g}' if isinstance(value, float) else str(value)


def _misses(result: Leaderboard) -> list[dict[str, Any]]:
  """The reasons for misses that the heat map shows: word, explanation, and number of cells."""
  counts = Counter(cell['miss'] for row in cells.of(result) for cell in row if 'miss' in cell)
  found = cells.reasons(result.rules.suite.max_ratio)
  return [{**found[name], 'count': count} for name, count in counts.most_common()]


def _environment(result: Leaderboard) -> dict[str, Any] | None:
  """The distinct environments that our runs recorded: a column each, with its number of trials."""
  if result.runs is None:
    return None
  texts = Counter(
    json.dumps(environment.without_folders(trial.environment), sort_keys=True, default=str)
    for trial in result.runs.trials
    if trial.environment
  )
  if not texts:
    return None
  records = [dict(_flat(json.loads(text))) for text, _ in texts.most_common(MAX_ENVIRONMENTS)]
  names = dict.fromkeys(name for record in records for name in record)
  return {
    'counts': [count for _, count in texts.most_common(MAX_ENVIRONMENTS)],
    'more': max(0, len(texts) - MAX_ENVIRONMENTS),
    'rows': [
      {'name': name, 'values': values, 'same': len(set(values)) == 1}
      for name in names
      if any(values := [record.get(name, '') for record in records])
    ],
  }


def _flat(record: dict[str, Any], prefix: str = '') -> Iterator[tuple[str, str]]:
  """The facts of a nested record, by names such as 'devices, platform'."""
  versions = record.get('versions')
  for name, value in record.items():
    if isinstance(value, dict) and isinstance(versions, dict) and name != 'versions':
      inner = value.get('versions')
      if isinstance(inner, dict) and inner.items() <= versions.items():
        value = {key: one for key, one in value.items() if key != 'versions'}  # said once
    label = prefix + name.replace('_', ' ')
    if isinstance(value, dict):
      yield from _flat(value, f'{label}: ')
    elif name == 'memory_bytes' and isinstance(value, int):
      yield f'{prefix}memory', f'{value / 2**30:.1f} GiB'
    else:
      yield label, '' if value is None else str(value)


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
  statistics = _statistics(result)
  tuning = statistics.tuning_curves
  return {
    **board.of(result),
    'verdicts': [
      {
        'a': one.a,
        'b': one.b,
        'verdict': one.verdict,
        'speedup': one.speedup,
        'bound': BOUNDS[one.bound],
        'p': one.adjusted_p,
      }
      for one in statistics.verdicts
    ],
    'tuning': {
      'k': list(tuning.num_trials),
      'score': [[cells.short(v) for v in row] for row in tuning.scores[result.ranking]],
    },
    'curves': list(training_curves.views(frame, result)),
  }
