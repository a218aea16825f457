"""The charts as files for papers and slides: SVG, PNG and PDF."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.results import files
from scoring.report import cell_charts, colors, line_charts
from scoring.report.chart_parts import Frame, Spec

FORMATS = ('svg', 'png', 'pdf')
_PNG_SCALE = 2  # pixels of a picture to a pixel of the page

_FILES: Mapping[str, Callable[[Mapping[str, Any], Frame], Spec]] = {
  'performance_profile': line_charts.profile,
  'scores': cell_charts.scores,
  'time_to_target': cell_charts.times,
  'verdicts': cell_charts.verdicts,
  'tuning_budget': line_charts.tuning,
}


@dataclass(frozen=True)
class Chart:
  """A chart, as a specification of Vega-Lite; a notebook shows it."""

  spec: Spec

  def __repr__(self) -> str:
    return f'Chart({self.spec.get("description", "")!r})'

  def save(self, path: str | Path) -> Path:
    """Writes the chart in the format that the name of the file ends with.

    Raises:
      UserError: the format is unknown, or the file cannot be written.
    """
    file = Path(path).expanduser()
    kind = file.suffix.removeprefix('.').lower()
    require_format(file)
    content = self.to_bytes(kind)
    with files.replacing(file, durable=False, then='draw the chart again') as opened:
      opened.write(content)
    return file

  def to_bytes(self, kind: str) -> bytes:
    """The chart as a file of a format: 'svg', 'png', 'pdf', or 'json' for the specification."""
    import vl_convert

    if kind == 'json':
      return json.dumps(self.spec).encode()
    if kind == 'svg':
      return vl_convert.vegalite_to_svg(self.spec).encode()
    if kind == 'png':
      return vl_convert.vegalite_to_png(self.spec, scale=_PNG_SCALE)
    return vl_convert.vegalite_to_pdf(self.spec)

  def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
    return {
      'application/vnd.vegalite.v6+json': self.spec,
      'image/svg+xml': self.to_bytes('svg').decode(),
    }


def require_format(file: Path) -> None:
  """
  Raises:
    UserError: the name of the file ends with no format of charts.
  """
  kinds = (*FORMATS, 'json')
  if file.suffix.removeprefix('.').lower() not in kinds:
    raise errors.UserError(
      f'The name of a chart must end with .{", .".join(kinds)}; it is {file.name}.'
    )


def write(data: Mapping[str, Any], folder: Path) -> list[Path]:
  """Draws every figure in every format; returns the files.

  Raises:
    UserError: one of them cannot be written.
  """
  written = [
    chart.save(folder / f'{name}.{kind}')
    for name, chart in drawn(data['charts'])
    for kind in FORMATS
  ]
  for path in set(paths(folder)) - set(written):
    path.unlink(missing_ok=True)  # of an earlier score
  return written


def drawn(board: Mapping[str, Any]) -> Iterator[tuple[str, Chart]]:
  """The figures that say something of a board, by name."""
  frame = file_frame(board)
  for name, draw in _FILES.items():
    if name not in empty(board):
      yield name, Chart(draw(board, frame))


def empty(board: Mapping[str, Any]) -> set[str]:
  """The names of charts that would show nothing.

  They are those of one submission, of one workload, or of one trial a study.
  """
  found = set()
  if len(board['submissions']) < 2:
    found.add('verdicts')
  if sum(one['base'] is None for one in board['workloads']) < 2:
    found.add('performance_profile')  # a line would be one step: at the ratio that `times` has
  if len(board['tuning']['k']) < 2:
    found.add('tuning_budget')
  return found


def file_frame(board: Mapping[str, Any]) -> Frame:
  """A chart in a file: on white."""
  return Frame(colors=colors.light(len(board['submissions'])))


def paths(folder: Path) -> list[Path]:
  """The files that `write` may make in a folder."""
  return [folder / f'{name}.{kind}' for name in _FILES for kind in FORMATS]
