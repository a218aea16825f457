"""The colors of the report, by role, on light and on dark backgrounds.

Charts take a mapping of roles to colors. That of the page holds CSS variables, so that a chart that
is drawn follows the scheme of the reader.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

HEAT_LIMITS = (1.1, 1.5, 2.0, 3.0)  # ratios to the fastest, between the shades of a cell
DASHES = ([1, 0], [7, 3], [2, 3], [9, 3, 2, 3])

_GOLDEN_ANGLE = 137.508  # degrees: neighbors in a ranking get hues far apart, and none comes twice
_FIRST_HUE = 255.0
# Lightness and chroma of OKLCH. Every lightness is at least 3 to 1 against its background.
_SERIES_LIGHT = ((0.50, 0.17), (0.62, 0.15), (0.38, 0.13))
_SERIES_DARK = ((0.76, 0.14), (0.65, 0.15), (0.87, 0.10))
_HEAT_LIGHT = ((0.46, 0.14), (0.62, 0.11), (0.76, 0.08), (0.86, 0.05), (0.94, 0.02))
_HEAT_DARK = ((0.80, 0.11), (0.68, 0.11), (0.54, 0.10), (0.42, 0.07), (0.33, 0.04))

_LIGHT = {
  'back': '#ffffff',
  'panel': '#f4f6f8',
  'text': '#1f2328',
  'quiet': '#59636e',
  'line': '#d1d9e0',
  'link': '#0550ae',
  'focus': '#0969da',
  'better': '#116329',
  'worse': '#a40e26',
  'better-back': '#c6efd0',
  'worse-back': '#ffd8d3',
}
_DARK = {
  'back': '#0d1117',
  'panel': '#161b22',
  'text': '#e6edf3',
  'quiet': '#9da7b3',
  'line': '#3d444d',
  'link': '#79c0ff',
  'focus': '#58a6ff',
  'better': '#7ee787',
  'worse': '#ffa198',
  'better-back': '#0f3d1e',
  'worse-back': '#58151c',
}


def light(num_series: int) -> dict[str, str]:
  """Colors on white, by role; `series0` and so on are those of the submissions."""
  return _LIGHT | _shades(_HEAT_LIGHT) | _series(_SERIES_LIGHT, num_series)


def dark(num_series: int) -> dict[str, str]:
  """The same on a dark background."""
  return _DARK | _shades(_HEAT_DARK) | _series(_SERIES_DARK, num_series)


def variables(colors: Mapping[str, str]) -> dict[str, str]:
  """The CSS variable of each role."""
  return {role: f'var(--{role})' for role in colors}


def css(colors: Mapping[str, str]) -> str:
  """The declarations of the variables."""
  return ' '.join(f'--{role}: {color};' for role, color in colors.items())


def series(colors: Mapping[str, str]) -> list[str]:
  """The colors of the submissions, in the order of the ranking."""
  return [color for role, color in colors.items() if role.startswith('series')]


def contrast(one: str, other: str) -> float:
  """The contrast of two colors `#rrggbb` by WCAG 2, from 1 to 21."""
  darker, lighter = sorted(map(_luminance, (one, other)))
  return (lighter + 0.05) / (darker + 0.05)


def _shades(levels: tuple[tuple[float, float], ...]) -> dict[str, str]:
  """The fills of the heat map, from the fastest on, and the inks that are read on them."""
  fills = [_oklch(lightness, chroma, _FIRST_HUE) for lightness, chroma in levels]
  inks = [max(('#0b1220', '#ffffff'), key=lambda ink: contrast(ink, fill)) for fill in fills]
  found = {f'heat{index}': fill for index, fill in enumerate(fills)}
  return found | {f'ink{index}': ink for index, ink in enumerate(inks)}


def _series(levels: tuple[tuple[float, float], ...], count: int) -> dict[str, str]:
  return {
    f'series{index}': _oklch(*levels[index % len(levels)], _FIRST_HUE + _GOLDEN_ANGLE * index)
    for index in range(count)
  }


def _oklch(lightness: float, chroma: float, hue: float) -> str:
  """A color of OKLCH as `#rrggbb`, with less chroma where a screen cannot show it.

  Source: B. Ottosson, A perceptual color space for image processing, 2020.
  """
  while True:
    channels = _linear_rgb(lightness, chroma, hue)
    if all(-1e-4 <= channel <= 1 + 1e-4 for channel in channels):
      return '#' + ''.join(f'{round(255 * _encoded(channel)):02x}' for channel in channels)
    chroma *= 0.95


def _linear_rgb(lightness: float, chroma: float, hue: float) -> tuple[float, float, float]:
  a = chroma * math.cos(math.radians(hue))
  b = chroma * math.sin(math.radians(hue))
  l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3  # noqa: E741, the name of the source
  m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
  s = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
  return (
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s,
  )


def _encoded(channel: float) -> float:
  channel = min(1.0, max(0.0, channel))
  return 12.92 * channel if channel <= 0.0031308 else 1.055 * channel ** (1 / 2.4) - 0.055


def _luminance(color: str) -> float:
  channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
  linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in channels]
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
