"""The figures of the report as files for papers and slides: SVG, PNG and PDF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scoring.outputs import replacing

FORMATS = ('svg', 'png', 'pdf')
_STYLES = ('-', '--', '-.', ':')
_COLORS = ('#0969da', '#cf222e', '#1a7f37', '#8250df', '#9a6700', '#bf3989', '#0a7ea4', '#57606a')


def write(data: dict[str, Any], folder: Path) -> list[Path]:
  """Draws every figure in every format; returns the files."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  charts, written = data['charts'], []
  for name, draw in _DRAWINGS.items():
    figure = Figure(figsize=(8, 5), layout='constrained')
    FigureCanvasAgg(figure)
    draw(figure.subplots(), charts)
    for kind in FORMATS:
      path = folder / f'{name}.{kind}'
      metadata = (
        {'Date': None} if kind == 'svg' else {'CreationDate': None} if kind == 'pdf' else {}
      )
      with replacing(path) as file:
        figure.savefig(file, format=kind, dpi=160, metadata=metadata)
      written.append(path)
  return written


def paths(folder: Path) -> list[Path]:
  """The files that `write` makes in a folder."""
  return [folder / f'{name}.{kind}' for name in _DRAWINGS for kind in FORMATS]


def _style(index: int) -> dict[str, Any]:
  return {
    'color': _COLORS[index % len(_COLORS)],
    'linestyle': _STYLES[index // len(_COLORS) % len(_STYLES)],
  }


def _profile(axes: Any, charts: dict[str, Any]) -> None:
  for index, name in enumerate(charts['submissions']):
    axes.plot(
      charts['profile']['tau'],
      charts['profile']['share'][index],
      drawstyle='steps-post',
      label=name,
      **_style(index),
    )
  axes.set(
    xlabel='time ratio to the fastest, at most',
    ylabel='share of workloads',
    title=f'{charts["title"]}: performance profile',
    xlim=(1, charts['max_ratio']),
    ylim=(-0.02, 1.02),
  )
  axes.legend(fontsize='small', loc='upper left', bbox_to_anchor=(1.01, 1))


def _scores(axes: Any, charts: dict[str, Any]) -> None:
  places = range(len(charts['submissions']))
  middle = [score for score, _, _ in charts['scores']]
  below = [0.0 if low is None else max(0.0, score - low) for score, low, _ in charts['scores']]
  above = [0.0 if high is None else max(0.0, high - score) for score, _, high in charts['scores']]
  axes.errorbar(middle, list(places), xerr=[below, above], fmt='o', capsize=3, color=_COLORS[0])
  axes.set_yticks(list(places), charts['submissions'])
  axes.invert_yaxis()
  axes.set(xlabel='score, with its interval', title=f'{charts["title"]}: scores', xlim=(0, 1))
  axes.grid(axis='x', alpha=0.3)


def _heat_map(axes: Any, charts: dict[str, Any]) -> None:
  import numpy as np

  ratios = [[cell.get('r') or np.nan for cell in row] for row in charts['heat']]
  image = axes.imshow(ratios, aspect='auto', cmap='Blues', vmin=1, vmax=charts['max_ratio'])
  for y, row in enumerate(charts['heat']):
    for x, cell in enumerate(row):
      ratio = cell.get('r')
      text = 'miss' if ratio is None else f'{ratio:.2f}' + ('*' if 'miss' in cell else '')
      dark = ratio is not None and ratio > 1 + 0.6 * (charts['max_ratio'] - 1)
      axes.text(x, y, text, ha='center', va='center', fontsize=6, color='w' if dark else 'k')
  axes.set_yticks(range(len(charts['submissions'])), charts['submissions'], fontsize=7)
  names = [workload['name'] for workload in charts['workloads']]
  axes.set_xticks(range(len(names)), names, rotation=40, ha='right', fontsize=7)
  what = f'time to target over {charts["ratios_to"]} (* not counted)'
  axes.set_title(f'{charts["title"]}: {what}', fontsize=9)
  axes.figure.colorbar(image, ax=axes, label='ratio')


def _tuning(axes: Any, charts: dict[str, Any]) -> None:
  for index, name in enumerate(charts['submissions']):
    scores = [
      value if value is not None else float('nan') for value in charts['tuning']['score'][index]
    ]
    axes.plot(charts['tuning']['k'], scores, marker='o', label=name, **_style(index))
  axes.set(
    xlabel='tuning trials in each study',
    ylabel='expected score',
    title=f'{charts["title"]}: what tuning buys',
    ylim=(-0.02, 1.02),
  )
  axes.set_xticks(charts['tuning']['k'])
  axes.legend(fontsize='small', loc='upper left', bbox_to_anchor=(1.01, 1))


_DRAWINGS = {
  'performance_profile': _profile,
  'scores': _scores,
  'time_to_target': _heat_map,
  'tuning_budget': _tuning,
}
