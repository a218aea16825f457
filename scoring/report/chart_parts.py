"""What the charts share: where a chart stands, its style, and its axes.

The charts of the report are Vega-Lite specifications, each defined once: `line_charts` and
`cell_charts`. The page draws them with Vega, and `figures` turns the same specifications into SVG,
PNG and PDF. Vega needs about 0.9 MB in each page. For that it brings zooming, tooltips and
descriptions for screen readers, in one definition for all formats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]

SCHEMA = 'https://vega.github.io/schema/vega-lite/v6.json'
POINT: Spec = {'type': 'point', 'filled': True, 'opacity': 1, 'clip': True, 'aria': False}
_NARROW = 560  # pixels; below, charts are those of a phone


@dataclass(frozen=True, kw_only=True)
class Frame:
  """Where a chart stands.

  Attributes:
    colors: by role, see `colors`.
    width: of the whole chart, in pixels; charts of cells may be wider.
    alone: True in a file, with a title, a legend and a background; a page has its own.
    still: True for a picture that nobody moves: nothing shows near the pointer.
  """

  colors: Mapping[str, str]
  width: int = 860
  alone: bool = True
  still: bool = False

  @property
  def is_narrow(self) -> bool:
    return self.width < _NARROW


def spec_of(
  board: Mapping[str, Any], frame: Frame, *, title: str, description: str, **parts: Any
) -> Spec:
  spec = {'$schema': SCHEMA, 'description': description, **parts, 'config': _config(frame)}
  if frame.alone:
    spec['title'] = {'text': title, 'subtitle': board['title'], 'anchor': 'start'}
  return spec


def sizes(frame: Frame, height: Any) -> dict[str, Any]:
  """Sizes of which the width is that of the whole chart, and the height that of its inside."""
  return {
    'width': frame.width,
    'height': height,
    'autosize': {'type': 'fit-x', 'contains': 'padding'},
  }


def quantity(field: str, title: str, domain: Sequence[float]) -> Spec:
  scale = {'domain': list(domain), 'nice': False, 'zero': False}
  axis = {'tickCount': 8}
  return {'field': field, 'type': 'quantitative', 'title': title, 'scale': scale, 'axis': axis}


def listed(board: Mapping[str, Any], values: Sequence[float | None], what: str = 'score') -> str:
  """The values of all submissions in words, for those who do not see the chart."""
  pairs = zip(board['submissions'], values, strict=True)
  return f'By {what}: ' + ', '.join(f'{name} {value or 0:.3f}' for name, value in pairs) + '.'


def short_number(value: float | None) -> str:
  """A number in at most six characters; 'miss' for none."""
  if value is None:
    return 'miss'
  for limit, unit, suffix in ((1e6, 1e6, 'M'), (1e4, 1e3, 'k')):
    if abs(value) >= limit:
      return f'{value / unit:#.3g}'.rstrip('.') + suffix
  return f'{value:.3g}' if abs(value) < 999.5 else f'{value:.0f}'


def _config(frame: Frame) -> Spec:
  """The style that all charts share."""
  ink = frame.colors
  label = {'labelColor': ink['text'], 'labelFontSize': 12}
  title = {'titleColor': ink['text'], 'titleFontSize': 13, 'titleFontWeight': 'normal'}
  return {
    'background': ink['back'] if frame.alone else 'transparent',
    'padding': 8 if frame.alone else 2,
    'font': 'sans-serif' if frame.alone else 'system-ui, sans-serif',
    'view': {'stroke': None},
    'axis': {**label, **title, 'gridColor': ink['line'], 'domainColor': ink['quiet']}
    | {'tickColor': ink['line'], 'titlePadding': 8},
    'legend': {**label, **title},
    'header': {'labelColor': ink['text'], 'labelFontSize': 13},
    'title': {'color': ink['text'], 'fontSize': 15, 'offset': 14, 'subtitleColor': ink['quiet']},
    'text': {'fontSize': 12},
  }
