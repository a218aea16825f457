"""The files of a site: pages from templates, and the data of the board to take away."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from scoring import outputs, report
from scoring.report import figures, line_charts, page
from scoring.site import feed, folder, pictures, views
from scoring.site.board import LEADERBOARD, Board
from scoring.site.history import History, changes_of

FIRST_PAGE = 'index.html'
_CHANGES = 'changes.html'
_PAGES = Path(__file__).resolve().parent / 'pages'
_TABLES = {  # of a board, with what they hold
  LEADERBOARD: 'scores, times, intervals, verdicts and notes, for programs',
  'leaderboard.md': 'the leaderboard as a table in Markdown',
  'scores.csv': 'scores with their intervals',
  'time_to_targets.csv': 'time to target by workload',
  'time_to_targets_raw.csv': 'the same with steps, seconds and examples',
  'performance_profile.csv': 'the performance profiles',
}


def of(board: Board, history: History, url: str) -> dict[str, bytes]:
  """Every file of the site but its history, by path."""
  found = views.Views(board, history)
  files: dict[str, bytes] = dict(_downloads(board, found))
  files['style.css'] = _style(found)
  files['site.js'] = (page.tables_script() + (_PAGES / 'site.js').read_text()).encode()
  files[feed.FILE] = feed.write(history, title=found.title, unit=found.unit, page=_CHANGES, url=url)
  pages = _Pages(found, has_report=report.PAGE in files)
  files[FIRST_PAGE] = pages.render('index', **found.index(), profile=_profile(board))
  files['workloads.html'] = pages.render('workloads', rows=found.workload_rows())
  files['rules.html'] = pages.render('rules', shown=board.shown)
  files[_CHANGES] = pages.render('changes', publications=_publications(history, found.unit))
  files |= _workload_pages(pages, board, found)
  files |= _submission_pages(pages, board, found, files)
  files['data.html'] = pages.render('data', groups=_groups(files, found))
  return files


class _Pages:
  """Renders pages with what all of them need."""

  def __init__(self, found: views.Views, *, has_report: bool):
    self._templates = page.templates(_PAGES)
    self._found = found
    self._facts = {'title': found.title, 'unit': found.unit, 'published': found.published}
    self._facts |= {'has_report': has_report}

  def render(self, template: str, *, root: str = '', **context: Any) -> bytes:
    """A page; `root` leads from it to the top of the site."""
    links = {name: root + path for name, path in self._found.submission_paths.items()}
    workload_links = {name: root + path for name, path in self._found.workload_paths.items()}
    text = self._templates.get_template(f'{template}.html.j2').render(
      **self._facts, **context, root=root, here=template, links=links, workload_links=workload_links
    )
    return text.encode()


def _style(found: views.Views) -> bytes:
  own = (_PAGES / 'site.css').read_text()
  return (page.stylesheet(len(found.submissions)) + own).encode()


def _profile(board: Board) -> dict[str, str] | None:
  charts = board.shown['charts']
  if 'performance_profile' in figures.empty(charts):
    return None
  return pictures.both(charts, 'profile', partial(line_charts.profile, charts))


def _publications(history: History, unit: str) -> list[dict[str, Any]]:
  """The newest first."""
  return [
    {
      'day': views.day(one.date),
      'date': one.date,
      'anchor': feed.anchor(one.date),
      'changes': changes_of(history, unit, place),
    }
    for place, one in reversed([*enumerate(history.publications)])
  ]


def _workload_pages(pages: _Pages, board: Board, found: views.Views) -> dict[str, bytes]:
  files, charts = {}, board.shown['charts']
  for name, path in found.workload_paths.items():
    records = found.records(name)
    curves = records_chart = None
    if (view := found.curves(name)) is not None:
      curves = pictures.both(charts, 'curves', partial(line_charts.curves, charts, view))
    if len({one['date'] for one in records[:-1]}) > 1:
      draw = partial(line_charts.records, charts, name, records)
      records_chart = pictures.both(charts, 'records', draw)
    context = found.workload(name) | {'curves': curves, 'records_chart': records_chart}
    files[path] = pages.render('workload', root='../', **context)
  return files


def _submission_pages(
  pages: _Pages, board: Board, found: views.Views, data: Collection[str]
) -> dict[str, bytes]:
  """Each shows the curves of all submissions, of which the style lifts out its own.

  Args:
    data: paths of the files that can be taken away.
  """
  charts = board.shown['charts']
  panels = {
    name: pictures.small(
      charts, f'curves-{number}', partial(line_charts.curves, charts, view, small=True)
    )
    for number, name in enumerate(found.workload_paths)
    if (view := found.curves(name)) is not None
  }
  return {
    path: pages.render(
      'submission',
      root='../',
      **found.submission(name, panels),
      trials_file=trials if (trials := found.trials_path(name)) in data else '',
    )
    for name, path in found.submission_paths.items()
  }


def _downloads(board: Board, found: views.Views) -> Iterator[tuple[str, bytes]]:
  """The data of a board, and the specification of each chart; what is not there is left out."""
  paths = {name: f'data/{name}' for name in _TABLES} | {report.PAGE: report.PAGE}
  for submission, name in outputs.summary_files(found.submissions).items():
    paths[name] = found.trials_path(submission)
  for name, path in paths.items():
    if (content := board.content(name)) is not None:
      yield path, content
  charts = board.shown['charts']
  for name, chart in figures.drawn(charts):
    yield f'data/charts/{name}.json', chart.to_bytes('json')
  frame = figures.file_frame(charts)
  for name in found.workload_paths:
    if (view := found.curves(name)) is not None:
      chart = figures.Chart(line_charts.curves(charts, view, frame))
      yield f'data/charts/{found.curves_file(name)}', chart.to_bytes('json')


def _groups(files: Mapping[str, bytes], found: views.Views) -> list[dict[str, Any]]:
  """The files that the page of data offers, by kind."""
  tables = [(f'data/{name}', text) for name, text in _TABLES.items()]
  tables.append((report.PAGE, 'the whole report, with all charts, as one file'))
  trials = [(found.trials_path(name), f'all trials of {name}') for name in found.submissions]
  charts = [
    (path, path.rpartition('/')[2].removesuffix('.json').replace('_', ' '))
    for path in files
    if path.startswith('data/charts/')
  ]
  history = [
    (feed.FILE, 'changes, as an Atom feed'),
    (folder.MARK, 'every state that was published'),
  ]
  groups = {'Board': tables, 'Trials': trials, 'Charts': charts, 'History': history}
  return [
    {
      'name': name,
      'files': [
        {'path': path, 'text': text, 'size': _size(files.get(path))}
        for path, text in group
        if path in files or path == folder.MARK
      ],
    }
    for name, group in groups.items()
  ]


def _size(content: bytes | None) -> str:
  if content is None:
    return ''
  size = len(content)
  return f'{size / 1e6:.1f} MB' if size >= 1e6 else f'{max(size / 1e3, 0.1):.1f} kB'
