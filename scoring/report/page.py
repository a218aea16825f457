"""Renders the page from its data: template, style and script are files beside this one."""

from __future__ import annotations

import functools
import json
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoring.report import cell_charts, colors, figures, line_charts
from scoring.report.chart_parts import Frame

if TYPE_CHECKING:
  import jinja2

_FOLDER = Path(__file__).resolve().parent
_MAX_UPRIGHT = 7  # columns of cells on an upright sheet of paper; more take a wide one
_WIDE, _NARROW = 1150, 390  # pixels; the page gives lines the width that there is


def render(data: Mapping[str, Any]) -> str:
  """The whole page as text, with everything that it needs inside."""
  board = data['charts']
  drawn = _charts(board)
  return (
    templates()
    .get_template('report.html.j2')
    .render(
      **{name: value for name, value in data.items() if name not in ('charts', 'unfinished')},
      unfinished=data.get('unfinished'),
      **columns(data),
      num_workloads=len(board['workloads']),
      wide_from=_MAX_UPRIGHT,
      has_curves=bool(drawn['curves']),
      has_profile='profile' in drawn['charts'],
      has_verdicts='verdicts' in drawn['charts'],
      has_tuning='tuning' in drawn['charts'],
      has_intervals=any(low is not None for _, low, _ in board['scores']),
      charts=_script_text(drawn),
      style=stylesheet(len(board['submissions'])),
      library=_library(),
      tables=tables_script(),
      script=(_FOLDER / 'report.js').read_text(),
    )
  )


def templates(*folders: Path) -> jinja2.Environment:
  """Templates in these folders and of the report; every text is escaped."""
  import jinja2

  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader([*folders, _FOLDER]),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  environment.filters['is_web_address'] = is_web_address
  return environment


def is_web_address(text: str) -> bool:
  """Whether a text is an address that a page may link to: of http or https, and nothing else."""
  try:
    found = urllib.parse.urlsplit(text)
  except ValueError:
    return False
  return found.scheme in ('http', 'https') and bool(found.hostname) and ' ' not in text


def stylesheet(num_series: int) -> str:
  """The style of pages, with the colors of both schemes."""
  light, dark = colors.css(colors.light(num_series)), colors.css(colors.dark(num_series))
  return (
    f':root {{ {light} }}\n'
    f'@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n'
    f'{(_FOLDER / "report.css").read_text()}'
  )


def tables_script() -> str:
  """What sorts the tables of pages."""
  return (_FOLDER / 'tables.js').read_text()


def columns(data: Mapping[str, Any]) -> dict[str, list[str]]:
  """The headings of tables whose columns depend on what there is to say."""
  tuned = data['tried'] is not None
  speed = ['Speed-up'] * bool(data['speedups'])
  spent = data['spent'] or {'buckets': []}
  buckets = [name.replace('_', ' ') for name in spent['buckets']]
  return {
    'leaderboard_names': [
      *('Rank', 'Submission', 'Score', 'Interval', 'Coverage', 'Vs next', 'Scored on'),
      *(*speed, 'Trials', 'Hours'),
    ],
    'ledger_names': [
      *('Submission', 'Trials', *['Points'] * tuned),
      *('Training, h', 'Evaluation, h', 'In all, h', *['What varies'] * tuned),
    ],
    'spent_names': ['Submission', 'Workload', 'Trials', *buckets, 'Waiting for data'],
  }


def _charts(board: Mapping[str, Any]) -> dict[str, Any]:
  """The specifications of all charts that say something, and the names of the lines."""
  names = board['submissions']
  inks = colors.variables(colors.light(len(names)))
  wide = Frame(colors=inks, width=_WIDE, alone=False)
  narrow = Frame(colors=inks, width=_NARROW, alone=False)
  empty = figures.empty(board)
  found = {'scores': cell_charts.scores(board, wide), 'times': cell_charts.times(board, wide)}
  if 'performance_profile' not in empty:
    found['profile'] = line_charts.profile(board, wide)
  cells = {'times': cell_charts.times(board, narrow)}
  if 'tuning_budget' not in empty:
    found['tuning'] = line_charts.tuning(board, wide)
  if 'verdicts' not in empty:
    found['verdicts'] = cell_charts.verdicts(board, wide)
    cells['verdicts'] = cell_charts.verdicts(board, narrow)
  curves: dict[str, dict[str, dict[str, Any]]] = {}
  for view in board['curves']:
    splits = curves.setdefault(view['workload'], {})
    splits.setdefault(view['split'], {})[view['axis']] = line_charts.curves(board, view, wide)
  return {
    'submissions': [
      {'name': name, 'dash': dash} for name, dash in zip(names, dashes(board), strict=True)
    ],
    'charts': found,
    'narrow': cells,
    'curves': curves,
  }


def dashes(board: Mapping[str, Any]) -> list[str]:
  """The dashes of the lines of the submissions, as SVG has them."""
  return [' '.join(map(str, line_charts.dash(index))) for index in range(len(board['submissions']))]


def _script_text(value: Any) -> str:
  """JSON in which no tag or comment can end or change its script element."""
  text = json.dumps(value, separators=(',', ':'), allow_nan=False)
  return text.replace('&', '\\u0026').replace('<', '\\u003c').replace('>', '\\u003e')


@functools.cache
def _library() -> str:
  """Vega, Vega-Lite and their tooltips, as one script that needs no network."""
  import vl_convert

  script = vl_convert.javascript_bundle('window.vegaEmbed = vegaEmbed;')
  return script.replace('</script', '<\\/script')
