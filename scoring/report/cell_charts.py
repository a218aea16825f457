"""Charts of a row for each submission: scores, times to target, and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scoring.report.chart_parts import Frame, Spec, listed, short_number, sizes, spec_of
from scoring.report.colors import HEAT_LIMITS

MARKS = {'better': '▲', 'worse': '▼', 'same': '=', 'undecided': '·'}  # of verdicts
_TIMES = '\u00d7'
_LEGEND = {'orient': 'bottom', 'symbolType': 'square', 'symbolSize': 180}


def scores(board: Mapping[str, Any], frame: Frame) -> Spec:
  """The score of each submission with its interval."""
  names = board['submissions']
  rows = [
    {'submission': name, 'score': score, 'low': low, 'high': high}
    for name, (score, low, high) in zip(names, board['scores'], strict=True)
  ]
  y = _names_axis('submission', names, frame)
  y['axis'] |= {'grid': True, 'labelPadding': 10}  # a point at 0 is not on its name
  x: Spec = {
    'type': 'quantitative',
    'scale': {'domain': [0, 1]},
    'axis': {'tickCount': 5},
    'title': 'score, with its interval',
  }
  ink = {'value': frame.colors['series0']}
  tooltip: list[Spec] = [{'field': 'submission'}]
  tooltip += [{'field': name, 'format': '.4f'} for name in ('score', 'low', 'high')]
  layers = [
    {
      'transform': [{'filter': 'isValid(datum.low)'}],
      'mark': {'type': 'rule', 'strokeWidth': 3, 'opacity': 0.6},
      'encoding': {'x': {'field': 'low', **x}, 'x2': {'field': 'high'}, 'color': ink},
    },
    {
      'mark': {'type': 'point', 'filled': True, 'size': 70, 'opacity': 1},
      'encoding': {'x': {'field': 'score', **x}, 'color': ink, 'tooltip': tooltip},
    },
  ]
  return spec_of(
    board,
    frame,
    title='Scores',
    description=f'Scores with intervals. {listed(board, [row[0] for row in board["scores"]])}',
    data={'values': rows},
    **sizes(frame, 30 * len(names)),
    encoding={'y': y},
    layer=layers,
  )


def times(board: Mapping[str, Any], frame: Frame) -> Spec:
  """Time to target: a row a submission, a column a workload; a list of workloads on a phone."""
  names, workloads = board['submissions'], [one['name'] for one in board['workloads']]
  rows = [
    _cell(name, workload, cell, board, frame)
    for name, cells in zip(names, board['heat'], strict=True)
    for workload, cell in zip(workloads, cells, strict=True)
  ]
  shades = [*range(len(HEAT_LIMITS) + 1)]
  fills = [*(frame.colors[f'heat{shade}'] for shade in shades), frame.colors['panel']]
  fill: Spec = {'field': 'shade', 'type': 'ordinal', 'legend': _shade_legend(board)}
  fill['scale'] = {'domain': [*shades, 'miss'], 'range': fills}
  tooltip: list[Spec] = [{'field': name} for name in ('submission', 'workload', 'time', 'interval')]
  tooltip += [{'field': 'ratio', 'title': f'over {board["ratios_to"]}'}, {'field': 'outcome'}]
  num_misses = sum(row['shade'] == 'miss' for row in rows)
  return spec_of(
    board,
    frame,
    title=f'Time to target, {board["unit"]}',
    description=f'Time to target: {len(names)} submissions by {len(workloads)} workloads, in '
    f'{board["unit"]}. {num_misses} cells are misses. The table below holds the figures.',
    data={'values': rows},
    **_table_of_times(names, workloads, _tile(fill, tooltip, frame), frame),
  )


def _table_of_times(
  names: Sequence[str], workloads: Sequence[str], tile: Spec, frame: Frame
) -> Spec:
  """A column for each workload, or a table for each below the other where there is little room."""
  y = _names_axis('submission', names, frame)
  if not frame.is_narrow:
    return {
      'width': {'step': max(70, min(140, (frame.width - 200) // len(workloads)))},
      'height': {'step': 42},
      'encoding': {'x': _heads_axis('workload', workloads), 'y': y},
      'layer': [tile, _text('time', dy=-8, bold=True), _text('below', dy=9, small=True)],
    }
  half = (frame.width - 160) // 2
  columns = [_text('time', dx=half // 2), _text('below', dx=3 * half // 2)]
  for column in columns:
    column['encoding']['x'] = {'value': 0}
  header: Spec = {'title': None, 'labelAnchor': 'start', 'labelFontWeight': 'bold'}
  header |= {'labelFontSize': 12, 'labelLimit': 2 * half}
  return {
    'facet': {'field': 'workload', 'type': 'nominal', 'sort': workloads, 'header': header},
    'columns': 1,
    'spacing': 18,
    'spec': {
      'width': 2 * half,
      'height': {'step': 28},
      'encoding': {'y': y},
      'layer': [tile, *columns],
    },
  }


def verdicts(board: Mapping[str, Any], frame: Frame) -> Spec:
  """Whether the submission of a row is better or worse than that of a column."""
  names = board['submissions']
  ink = {'ink': frame.colors['text']}
  cells = [ink | cell for one in board['verdicts'] for cell in verdict_cells(one)]
  fills = [frame.colors[role] for role in ('better-back', 'worse-back', 'line', 'panel')]
  fill: Spec = {'field': 'verdict', 'type': 'nominal'}
  fill['scale'] = {'domain': list(MARKS), 'range': fills}
  fill['legend'] = {'title': None, **_LEGEND, 'columns': 2 if frame.is_narrow else 4}
  fill['legend']['labelExpr'] = f'{MARKS!r}[datum.label] + " " + datum.label'
  tooltip: list[Spec] = [
    {'field': 'submission'},
    {'field': 'other', 'title': 'against'},
    {'field': 'verdict'},
    {'field': 'speedup', 'title': 'times as fast'},
    {'field': 'p'},
  ]
  return spec_of(
    board,
    frame,
    title='Verdicts of rows against columns',
    description=f'Verdicts of {len(names)} submissions against each other. The list below holds '
    'the same in sentences.',
    data={'values': cells},
    width={'step': max(16, (frame.width - 190) // len(names)) if frame.is_narrow else 68},
    height={'step': 34},
    encoding={
      'x': _heads_axis('other', names, upright=frame.is_narrow),
      'y': _names_axis('submission', names, frame),
    },
    layer=[_tile(fill, tooltip, frame), _text('mark' if frame.is_narrow else 'shown')],
  )


def _tile(fill: Spec, tooltip: Sequence[Spec], frame: Frame) -> Spec:
  rect = {'type': 'rect', 'stroke': frame.colors['back'], 'strokeWidth': 2, 'cornerRadius': 4}
  return {'mark': rect, 'encoding': {'fill': fill, 'tooltip': list(tooltip)}}


def _names_axis(field: str, names: Sequence[str], frame: Frame) -> Spec:
  axis = {'labelLimit': 130 if frame.is_narrow else 180, 'domain': False, 'ticks': False}
  return {'field': field, 'type': 'nominal', 'sort': names, 'title': None, 'axis': axis}


def _heads_axis(field: str, names: Sequence[str], *, upright: bool = False) -> Spec:
  """Names above the columns, slanted, or upright where columns are narrow."""
  angle = -90 if upright else -35
  axis: Spec = {'orient': 'top', 'labelAngle': angle, 'labelAlign': 'left', 'labelLimit': 220}
  axis |= {'domain': False, 'ticks': False}
  return {'field': field, 'type': 'nominal', 'sort': names, 'title': None, 'axis': axis}


def _cell(
  name: str, workload: str, cell: Mapping[str, Any], board: Mapping[str, Any], frame: Frame
) -> dict[str, Any]:
  """A cell of the heat map as a row of data."""
  texts = texts_of(cell, board)
  ink = frame.colors['text' if texts['shade'] == 'miss' else f'ink{texts["shade"]}']
  return {'submission': name, 'workload': workload, 'ink': ink, **texts}


def texts_of(cell: Mapping[str, Any], board: Mapping[str, Any]) -> dict[str, Any]:
  """What a cell of `cells.of` shows; `below` is the ratio, or the reason for a miss."""
  reason, ratio = cell.get('miss'), cell.get('r')
  shade: int | str = 'miss'
  if reason is None and ratio is not None:
    shade = sum(ratio > limit for limit in HEAT_LIMITS)
  short = board['reasons'][reason]['short'] if reason else f'{_TIMES}{ratio:.2f}' if ratio else ''
  bounds = ''
  if cell['low'] is not None:
    bounds = f'{short_number(cell["low"])} to {short_number(cell["high"])} ({cell["cov"]})'
  return {
    'shade': shade,
    'time': short_number(cell['t']),
    'interval': bounds,
    'ratio': '' if ratio is None else f'{ratio:.2f}',
    'below': short,
    'outcome': board['reasons'][reason]['text'] if reason else 'counts',
  }


def verdict_cells(one: Mapping[str, Any]) -> list[dict[str, Any]]:
  """The two cells of a pair: its verdict, and that of the other one against it."""
  mirrored = {'better': 'worse', 'worse': 'better', '≥': '≤', '≤': '≥'}
  verdict, bound, speedup = one['verdict'], one['bound'], one['speedup']
  both = [
    (one['a'], one['b'], verdict, f'{bound}{speedup:.2f}'),
    (
      *(one['b'], one['a'], mirrored.get(verdict, verdict)),
      f'{mirrored.get(bound, bound)}{1 / speedup:.2f}',
    ),
  ]
  return [
    {
      'submission': a,
      'other': b,
      'verdict': kind,
      'speedup': figure,
      'p': f'{one["p"]:.2g}',
      'mark': MARKS[kind],
      'shown': f'{MARKS[kind]} {figure}',
    }
    for a, b, kind, figure in both
  ]


def _shade_legend(board: Mapping[str, Any]) -> Spec:
  """What the shades of the heat map mean, as ratios."""
  texts = [*(f'up to {limit:g}' for limit in HEAT_LIMITS), f'above {HEAT_LIMITS[-1]:g}']
  labels = {str(index): text for index, text in enumerate(texts)} | {'miss': 'miss'}
  return {
    **_LEGEND,
    'title': f'time over {board["ratios_to"]}',
    'columns': 3 if len(board['workloads']) < 5 else 6,
    'labelExpr': f'{labels!r}[datum.label]',
  }


def _text(field: str, *, dx: int = 0, dy: int = 0, bold: bool = False, small: bool = False) -> Spec:
  """A text in each cell, in the ink that its row of data names."""
  mark = {'type': 'text', 'dx': dx, 'dy': dy, 'fontSize': 11 if small else 12, 'aria': False}
  mark |= {'fontWeight': 600 if bold else 400, 'color': {'expr': 'datum.ink'}}
  return {'mark': mark, 'encoding': {'text': {'field': field}}}
