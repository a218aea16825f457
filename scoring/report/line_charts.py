"""Charts of a line for each submission: profiles, training curves, and what tuning buys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scoring.report import colors
from scoring.report.chart_parts import (
  POINT,
  Frame,
  Spec,
  listed,
  quantity,
  short_number,
  sizes,
  spec_of,
)
from scoring.report.colors import DASHES

_LINE_WIDTH = 2.2
# Without a format, Vega-Lite 6.4 takes a text from the wrong place near the pointer.
_NAME = {'field': 'submission', 'type': 'nominal', 'format': ''}
_MAX_OUTSIDE = 5  # names of lines that are beyond a chart
_HIDDEN = {'filter': 'indexof(hidden, datum.submission) < 0'}
_ZOOM = {
  'name': 'zoom',
  'bind': 'scales',
  'select': {'type': 'interval', 'zoom': 'wheel![event.shiftKey]'},
}


def profile(board: Mapping[str, Any], frame: Frame) -> Spec:
  """The share of workloads on which each submission is at most tau times slower than the fastest.

  Lines that coincide are drawn side by side.
  """
  height = 300 if frame.is_narrow else 380
  names = board['submissions']
  rows = [
    {'submission': names[s], 'ratio': ratio, 'share': share, 'drawn': drawn}
    for s, ratio, share, drawn in _side_by_side(board['profile'], _LINE_WIDTH / height)
  ]
  x = quantity('ratio', f'time over that of {board["ratios_to"]}, at most', [1, board['max_ratio']])
  y = quantity('drawn', 'share of workloads', [-0.03, 1.03])
  y['axis'] = {'format': '.0%', 'values': [0, 0.25, 0.5, 0.75, 1]}
  tooltip = [
    _NAME,
    {'field': 'ratio', 'format': '.2f', 'title': 'at most'},
    {'field': 'share', 'format': '.1%', 'title': 'share of workloads'},
  ]
  line = {'type': 'line', 'interpolate': 'step-after', 'strokeWidth': _LINE_WIDTH, 'clip': True}
  lines = {'params': [_ZOOM], 'mark': line, 'encoding': {'x': x, 'y': y}}
  return _lines(
    board,
    frame,
    title='Performance profile',
    description='Performance profile: share of workloads by ratio to the fastest. '
    f'{listed(board, [row[0] for row in board["scores"]], "score")}',
    rows=rows,
    height=height,
    layers=[lines, *_nearest(x, y, tooltip, frame)],
  )


def tuning(board: Mapping[str, Any], frame: Frame) -> Spec:
  """The expected score of each submission with fewer tuning trials in each study."""
  curves = board['tuning']
  rows = [
    {'submission': name, 'trials': k, 'score': score}
    for name, found in zip(board['submissions'], curves['score'], strict=True)
    for k, score in zip(curves['k'], found, strict=True)
    if score is not None
  ]
  x = quantity('trials', 'tuning trials in each study', [min(curves['k']), max(curves['k'])])
  x['axis'] = {'values': curves['k'], 'format': 'd'}
  x['scale']['padding'] = 12
  y = quantity('score', 'expected score', [-0.03, 1.03])
  tooltip = [_NAME, {'field': 'trials'}, {'field': 'score', 'format': '.4f'}]
  line = {'type': 'line', 'strokeWidth': _LINE_WIDTH, 'clip': True}
  return _lines(
    board,
    frame,
    title='What tuning buys',
    description='Expected score by the number of tuning trials in each study. '
    f'{listed(board, [found[0] for found in curves["score"]], "with one trial")}',
    rows=rows,
    height=300 if frame.is_narrow else 340,
    layers=[
      {'params': [_ZOOM], 'mark': line, 'encoding': {'x': x, 'y': y}},
      {
        'mark': {**POINT, 'size': 45},
        'encoding': {'x': x, 'y': y, 'tooltip': tooltip},
      },
    ],
  )


def curves(
  board: Mapping[str, Any], view: Mapping[str, Any], frame: Frame, *, small: bool = False
) -> Spec:
  """The training curves of a workload: a line a submission, with a band over its studies.

  Args:
    view: one of `training_curves.views`.
    small: leaves out bands, names and the value of the target.
  """
  names = board['submissions']
  x = quantity('x', view['axis'], view['x_near'])
  y = quantity('drawn', view['metric'], view['y_near'])
  if small:
    x['axis'], y['axis'] = {'tickCount': 4, 'format': '~s'}, {'tickCount': 4}
  tooltip = [
    _NAME,
    {'field': 'x', 'title': view['axis'], 'format': ',.5~g'},
    {'field': 'middle', 'title': view['metric'], 'format': '.5~g'},
    {'field': 'low', 'title': 'lowest study', 'format': '.5~g'},
    {'field': 'high', 'title': 'highest study', 'format': '.5~g'},
  ]
  band = {
    'mark': {'type': 'area', 'opacity': 0.16, 'clip': True, 'aria': False},
    'encoding': {'x': x, 'y': {**y, 'field': 'drawn_low'}, 'y2': {'field': 'drawn_high'}},
  }
  line = {'type': 'line', 'strokeWidth': _LINE_WIDTH, 'clip': True}
  layers: list[Spec] = [
    {'params': [_ZOOM], 'mark': line, 'encoding': {'x': x, 'y': y}},
    *[band] * (not small),
    *_nearest(x, y, tooltip, frame),
  ]
  if view['target'] is not None:
    layers += _target(view, frame)[: 1 if small else None]
  if view['hits']:
    layers.append(_hits(view, names, x, y, frame))
  if view['outside'] and not small:
    rises = any(one['max'] for one in board['workloads'] if one['name'] == view['workload'])
    layers.append(_remark([names[s] for s in view['outside']], frame, at_bottom=rises))
  spec = _lines(
    board,
    frame,
    title=f'{view["workload"]}, {view["split"]}',
    description=f'{view["metric"]} of {view["workload"]} on {view["split"]} against '
    f'{view["axis"]}. {_reached(names, view)}',
    rows=view['rows'],
    height=190 if small else 320 if frame.is_narrow else 440,
    layers=layers,
  )
  spec['params'].append({'name': 'names', 'value': names})
  spec['transform'] = [*_calculated(view), *spec['transform']]
  spec['usermeta']['whole'] = [view['x_all'], view['y_all']]
  return spec


def records(
  board: Mapping[str, Any], workload: str, rows: Sequence[Mapping[str, Any]], frame: Frame
) -> Spec:
  """The shortest time to the target of a workload, from one record to the next.

  Args:
    rows: `date` (ISO 8601), `time` and `submission` of each record; the last date is that of today.
  """
  x: Spec = {'field': 'date', 'type': 'temporal', 'title': None}
  x['scale'] = {'type': 'utc', 'padding': frame.width // 12}
  x['axis'] = {'tickCount': 4 if frame.is_narrow else 8, 'labelOverlap': True}
  y: Spec = {'field': 'time', 'type': 'quantitative', 'title': board['unit']}
  y['scale'] = {'zero': False, 'padding': 20}
  ink = {'value': frame.colors['series0']}
  label = {'type': 'text', 'align': 'left', 'dx': 6, 'dy': -10, 'aria': False}
  label |= {'limit': frame.width // 3}
  texts = [f'{one["submission"]} {short_number(one["time"])}' for one in rows[:-1]]
  points = {'data': {'values': [*rows[:-1]]}}
  return spec_of(
    board,
    frame,
    title=f'{workload}, best so far',
    description=f'The shortest time to the target of {workload}: {", then ".join(texts)}.',
    data={'values': [*rows]},
    **sizes(frame, 220),
    encoding={'x': x, 'y': y, 'color': ink},
    layer=[
      {'mark': {'type': 'line', 'interpolate': 'step-after', 'strokeWidth': _LINE_WIDTH}},
      {**points, 'mark': {**POINT, 'size': 80}},
      {
        **points,
        'mark': label,
        'encoding': {'text': {'field': 'submission'}, 'color': {'value': frame.colors['text']}},
      },
    ],
  )


def dash(index: int) -> list[int]:
  """The dashes of the line of a submission, by its place in the ranking."""
  return DASHES[index % len(DASHES)]


def _lines(
  board: Mapping[str, Any],
  frame: Frame,
  *,
  title: str,
  description: str,
  rows: Any,
  height: int,
  layers: Sequence[Spec],
) -> Spec:
  """A chart of a line for each submission, which `hidden` hides; the first layer is the lines.

  `usermeta` tells the page which fields its zoom changes.
  """
  names, inks = board['submissions'], colors.series(frame.colors)
  legend = {'title': None, 'symbolType': 'stroke', 'symbolStrokeWidth': 3, 'symbolSize': 300}
  legend['symbolOpacity'] = 1
  shown = {**legend, 'labelLimit': 200} if frame.alone else None
  dashes = [dash(index) for index in range(len(names))]
  by_name = {'field': 'submission', 'type': 'nominal', 'legend': shown}
  dashed = {**by_name, 'scale': {'domain': names, 'range': dashes}}
  first, *others = layers
  first['encoding'] |= {'strokeDash': dashed}
  data = {'values': rows}
  if isinstance(rows, str):
    columns = rows.partition('\n')[0].split(',')
    data['format'] = {'type': 'csv', 'parse': dict.fromkeys(columns, 'number')}
  return spec_of(
    board,
    frame,
    title=title,
    description=description,
    data=data,
    params=[{'name': 'hidden', 'value': []}],
    transform=[_HIDDEN],
    usermeta={'zoom': [first['encoding'][axis]['field'] for axis in 'xy']},
    **sizes(frame, height),
    encoding={'color': {**by_name, 'scale': {'domain': names, 'range': inks}}},
    layer=[first, *others],
  )


def _nearest(x: Spec, y: Spec, tooltip: Sequence[Spec], frame: Frame) -> list[Spec]:
  """Points that show when the pointer is near, with their figures; none in a still picture."""
  if frame.still:
    return []
  near = {
    'name': 'near',
    'select': {'type': 'point', 'nearest': True, 'on': 'pointermove', 'clear': 'pointerout'},
  }
  opacity = {'condition': {'param': 'near', 'empty': False, 'value': 1}, 'value': 0}
  points = {
    'params': [near],
    'mark': {**POINT, 'size': 70},
    'encoding': {'x': x, 'y': y, 'opacity': opacity, 'tooltip': list(tooltip)},
  }
  return [points]


def _target(view: Mapping[str, Any], frame: Frame) -> list[Spec]:
  """The line at the target, with its value."""
  at = {'y': {'datum': view['target'], 'type': 'quantitative'}}
  ink = {'value': frame.colors['text']}
  rule = {'type': 'rule', 'strokeDash': [6, 4], 'strokeWidth': 1.4}
  text = {'type': 'text', 'align': 'left', 'dx': 5, 'dy': -8, 'fontSize': 12, 'aria': False}
  label = {'text': {'value': f'target {view["target"]:g}'}, 'x': {'value': 0}}
  one: Spec = {'data': {'values': [{}]}}
  return [
    {**one, 'mark': rule, 'encoding': {**at, 'color': ink}},
    {**one, 'mark': text, 'encoding': {**at, **label, 'color': ink}},
  ]


def _calculated(view: Mapping[str, Any]) -> list[Spec]:
  """The names of submissions, and values as they are drawn, from the columns of the rows."""
  low, high = view['y_far']
  found = {'submission': 'names[datum.s]'} | {
    drawn: f'clamp(datum.{name}, {low}, {high})'
    for name, drawn in (('middle', 'drawn'), ('low', 'drawn_low'), ('high', 'drawn_high'))
  }
  return [{'calculate': text, 'as': name} for name, text in found.items()]


def _hits(view: Mapping[str, Any], names: Sequence[str], x: Spec, y: Spec, frame: Frame) -> Spec:
  """Dots where submissions reach the target."""
  hits = [{'submission': names[s], 'x': at, 'drawn': view['target']} for s, at in view['hits']]
  tooltip = [_NAME, {'field': 'x', 'title': 'target reached at'}]
  return {
    'data': {'values': hits},
    'transform': [_HIDDEN],
    'mark': {**POINT, 'size': 100, 'stroke': frame.colors['back'], 'strokeWidth': 1.5},
    'encoding': {'x': x, 'y': y, 'tooltip': tooltip},
  }


def _remark(outside: Sequence[str], frame: Frame, *, at_bottom: bool) -> Spec:
  """Which lines are beyond what the chart shows, in the corner where curves and target are not."""
  some = ', '.join(outside[:_MAX_OUTSIDE])
  more = f' and {len(outside) - _MAX_OUTSIDE} more' if len(outside) > _MAX_OUTSIDE else ''
  mark: Spec = {'type': 'text', 'align': 'right', 'dx': -6, 'aria': False}
  mark |= {'baseline': 'bottom', 'dy': -6} if at_bottom else {'baseline': 'top', 'dy': 6}
  return {
    'data': {'values': [{}]},
    'mark': {**mark, 'limit': {'expr': 'width - 12'}},
    'encoding': {
      'text': {'value': f'Beyond this range: {some}{more}'},
      'x': {'value': 'width'},
      'y': {'value': 'height' if at_bottom else 0},
      'color': {'value': frame.colors['quiet']},
    },
  }


def _side_by_side(
  rows: Sequence[Sequence[float]], distance: float
) -> list[tuple[int, float, float, float]]:
  """The steps of a profile, with the height at which each is drawn beside those it coincides with.

  Args:
    rows: submission, ratio, share; with a row for each submission at every ratio.
    distance: between two lines, as a share.
  """
  groups: dict[tuple[float, float], list[int]] = {}
  for s, ratio, share in rows:
    groups.setdefault((ratio, share), []).append(int(s))
  found = []
  for s, ratio, share in rows:
    members = groups[ratio, share]
    place = members.index(int(s)) - (len(members) - 1) / 2
    found.append((int(s), ratio, share, share - place * distance))
  return found


def _reached(names: Sequence[str], view: Mapping[str, Any]) -> str:
  hits = [f'{names[s]} at {short_number(at)}' for s, at in view['hits']]
  return f'The target is reached by {", ".join(hits)}.' if hits else ''
