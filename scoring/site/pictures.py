"""Charts as still pictures inside of pages: SVG that takes its colors from the style sheet."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from typing import Any

from scoring.report import colors
from scoring.report.chart_parts import Frame, Spec

WIDE, NARROW = 1100, 370  # pixels
_SHAPE = re.compile(r' (?:d|transform|x2|y2)="[^"]*"')
_DECIMALS = re.compile(r'(\.\d)\d+')  # a tenth of a pixel is enough
_CLIP = re.compile(r'(id="|url\(#)clip(\d+)')  # the number goes on from picture to picture


def both(board: Mapping[str, Any], name: str, draw: Callable[[Frame], Spec]) -> dict[str, str]:
  """A chart for wide and for narrow screens, and its description.

  Args:
    name: of the chart, another one for each chart of a page.
    draw: makes the specification of the chart.
  """
  specs = [draw(_frame(board, width)) for width in (WIDE, NARROW)]
  return {
    'label': specs[0]['description'],
    'wide': _picture(specs[0], f'{name}-wide'),
    'narrow': _picture(specs[1], f'{name}-narrow'),
  }


def small(board: Mapping[str, Any], name: str, draw: Callable[[Frame], Spec]) -> dict[str, str]:
  """A chart that is as wide as a phone."""
  spec = draw(_frame(board, NARROW))
  return {'label': spec['description'], 'picture': _picture(spec, name)}


def _frame(board: Mapping[str, Any], width: int) -> Frame:
  inks = colors.variables(colors.light(len(board['submissions'])))
  return Frame(colors=inks, width=width, alone=False, still=True)


def _picture(spec: Spec, name: str) -> str:
  """An SVG that fills the width it is given; names in it are its own."""
  import vl_convert

  drawn = vl_convert.vegalite_to_svg(spec)
  size = re.search(r'viewBox="[^"]*"', drawn)
  assert size is not None, 'every picture has a size'
  inside = drawn[drawn.index('>') + 1 :]
  inside = _SHAPE.sub(lambda found: _DECIMALS.sub(r'\1', found[0]), inside)
  found = dict.fromkeys(one[2] for one in _CLIP.finditer(inside))
  clips = {number: place for place, number in enumerate(found)}
  inside = _CLIP.sub(lambda one: f'{one[1]}{name}-{clips[one[2]]}', inside)
  label = html.escape(spec['description'])
  return f'<svg role="img" aria-label="{label}" {size[0]}>{inside}'
