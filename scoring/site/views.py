"""What each page of a site shows, from the data of the report and the history of the board."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from scoring.report import cell_charts, page
from scoring.report.chart_parts import short_number
from scoring.site.board import Board
from scoring.site.history import History, changes_of, since
from scoring.site.slugs import slug

_ABOUT = ('authors', 'affiliations', 'framework', 'version', 'paper')
_MAX_NEWS = 5  # changes on the first page


class Views:
  """The contexts of templates; names of submissions are in the order of the ranking."""

  def __init__(self, board: Board, history: History):
    shown = board.shown
    self._shown, self._history = shown, history
    self._charts = shown['charts']
    self.title, self.unit = shown['title'], shown['unit']
    self.submissions: list[str] = self._charts['submissions']
    self.workloads: list[str] = [one['name'] for one in self._charts['workloads']]
    self._base = {one['name'] for one in self._charts['workloads'] if one['base'] is None}
    self.submission_paths = {name: f'submissions/{slug(name)}.html' for name in self.submissions}
    self.workload_paths = {name: f'workloads/{slug(name)}.html' for name in self.workloads}
    self.published = {'date': history.last.date, 'day': day(history.last.date)}
    self._rows = {row['submission']: row for row in shown['leaderboard']}
    self._raw = {(row['submission'], row['workload']): row['values'] for row in shown['raw']}
    self._since = {
      name: since(history, name, self._rows[name]['about']['date']) for name in self.submissions
    }
    self._curves = {
      view['workload']: view
      for view in self._charts['curves']
      if view['split'] == 'validation' and view['axis'] == self.unit
    }

  # Paths.

  def trials_path(self, submission: str) -> str:
    return f'data/trials/{slug(submission)}.csv'

  def curves_file(self, workload: str) -> str:
    return f'curves_{slug(workload)}.json'

  # Contexts.

  def index(self) -> dict[str, Any]:
    shown = self._shown
    last = len(self._history.publications) - 1
    news = changes_of(self._history, self.unit)
    return {
      'lead': shown['lead'],
      'rows': shown['leaderboard'],
      'names': page.columns(shown)['leaderboard_names'],
      'reference': shown['speedup_reference'],
      'submissions': self.submissions,
      'dashes': page.dashes(self._charts),
      'workloads': self.workloads,
      'heat': [
        {'submission': name, 'cells': [self._texts(s, w) for w in range(len(self.workloads))]}
        for s, name in enumerate(self.submissions)
      ],
      'ratios_to': shown['ratios_to'],
      'misses': shown['misses'],
      'news': news[:_MAX_NEWS] if last else (),
      'num_more': max(0, len(news) - _MAX_NEWS),
    }

  def workload_rows(self) -> list[dict[str, Any]]:
    rows = []
    for name in self.workloads:
      results = self._results(name)
      reached = [one for one in results if one['place']]
      facts = self._shown['workloads'][name]
      rows.append(
        {
          'workload': name,
          'summary': facts['summary'],
          'target': facts['target'],
          'num_reached': len(reached),
          'num_all': len(results),
          'fastest': reached[0] if reached else None,
        }
      )
    return rows

  def workload(self, name: str) -> dict[str, Any]:
    results = self._results(name)
    return {
      'workload': name,
      **self._shown['workloads'][name],
      'results': results,
      'num_reached': sum(1 for one in results if one['place']),
      **self._tables(results),
      'records': self.records(name)[:-1],
      'submissions': self.submissions,
      'dashes': page.dashes(self._charts),
      'ratios_to': self._shown['ratios_to'],
      'chart_file': f'data/charts/{self.curves_file(name)}',
    }

  def submission(self, name: str, panels: Mapping[str, Any]) -> dict[str, Any]:
    row, shown = self._rows[name], self._shown
    s = self.submissions.index(name)
    results = [
      {'workload': workload, **next(r for r in self._results(workload) if r['submission'] == name)}
      for workload in self.workloads
    ]
    costs = shown['step_costs'] or {'workloads': [], 'rows': []}
    tried = shown['tried'] or {'workloads': [], 'submissions': []}
    return {
      'row': row,
      'series': s,
      'num_submissions': len(self.submissions),
      'about': [(fact.capitalize(), row['about'][fact]) for fact in _ABOUT if row['about'][fact]],
      'since': day(self._since[name]),
      'is_stated': bool(row['about']['date']) and row['about']['date'] == self._since[name],
      'results': results,
      **self._tables(results),
      'num_fastest': sum(one['place'] == 1 for one in results if one['workload'] in self._base),
      'panels': [(workload, panels[workload]) for workload in self.workloads if workload in panels],
      'verdicts': self._verdicts(name),
      'ledger': next(one for one in shown['ledger'] if one['submission'] == name),
      'tried': next((one for one in tried['submissions'] if one['submission'] == name), None),
      'tried_workloads': tried['workloads'],
      'step_costs': [
        (workload, cost)
        for one in costs['rows']
        if one['submission'] == name
        for workload, cost in zip(costs['workloads'], one['values'], strict=True)
        if cost
      ],
      'ratios_to': shown['ratios_to'],
    }

  def curves(self, workload: str) -> Mapping[str, Any] | None:
    """The training curves on validation against what is raced; None if there are none."""
    return self._curves.get(workload)

  def records(self, workload: str) -> list[dict[str, Any]]:
    """The best so far on a workload, from one record to the next.

    Each submission of the board counts from its own day on. The last row is the day of the last
    publication, with the time that stands then; empty where nobody reaches the target.
    """
    found: list[dict[str, Any]] = []
    dated = [(self._since[one['submission']], one) for one in self._results(workload)]
    for date, one in sorted(dated, key=lambda pair: (pair[0], pair[1]['order'])):
      if one['place'] and (not found or one['t'] < found[-1]['time']):
        found.append({'date': date, 'time': one['t'], 'submission': one['submission']})
        found[-1] |= {'day': day(date), 'shown': short_number(one['t'])}
    return [*found, found[-1] | {'date': self.published['date'][:10]}] if found else []

  # Parts.

  def _texts(self, s: int, w: int) -> dict[str, Any]:
    return cell_charts.texts_of(self._charts['heat'][s][w], self._charts)

  def _results(self, workload: str) -> list[dict[str, Any]]:
    """A row a submission, the fastest first; those that do not score there have no place."""
    w, rows = self.workloads.index(workload), []
    for s, name in enumerate(self.submissions):
      cell, raw = self._charts['heat'][s][w], self._raw[name, workload]
      rows.append(
        {
          'submission': name,
          'series': s,
          't': cell['t'],
          'miss': cell.get('miss', ''),
          'order': (cell['t'] is None or 'miss' in cell, cell['t'] or 0.0, s),
          'steps': raw[1],
          'examples': raw[-1],
          **self._texts(s, w),
        }
      )
    rows.sort(key=lambda row: row['order'])
    times = [row['t'] for row in rows if not row['miss']]
    return [
      row | {'place': None if row['miss'] else 1 + sum(t < row['t'] for t in times)} for row in rows
    ]

  def _tables(self, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a table of results has besides its rows: the reasons for misses, and which columns."""
    reasons = Counter(one['miss'] for one in results if one['miss'])
    return {
      'has_examples': any(one['examples'] for one in results),
      'misses': [
        {**self._charts['reasons'][name], 'count': count} for name, count in reasons.most_common()
      ],
    }

  def _verdicts(self, name: str) -> list[dict[str, Any]]:
    """The verdicts on a submission against each other one, in the order of the ranking."""
    cells = [
      cell
      for one in self._charts['verdicts']
      for cell in cell_charts.verdict_cells(one)
      if cell['submission'] == name
    ]
    return sorted(cells, key=lambda cell: self.submissions.index(cell['other']))


def day(date: str) -> str:
  """The day of a date or time in ISO 8601, as a reader writes it."""
  found = datetime.date.fromisoformat(date[:10])
  return f'{found:%B} {found.day}, {found.year}'
