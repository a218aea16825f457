"""Single charts of a folder of runs, for the command `plot` and for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from algorithmic_efficiency import errors
from scoring import training_curves
from scoring.leaderboard import Leaderboard
from scoring.report import board, cell_charts, line_charts
from scoring.report.figures import Chart, file_frame
from scoring.training_curves import Split

if TYPE_CHECKING:
  import pandas as pd

Kind = Literal['curves', 'profile', 'times']
KINDS: tuple[Kind, ...] = get_args(Kind)


def draw(
  kind: Kind,
  frame: pd.DataFrame,
  result: Leaderboard,
  *,
  split: Split = 'validation',
  x: str | None = None,
) -> Chart:
  """Draws a chart of a scored set of runs; statistics are not needed.

  Args:
    frame: what `result` was scored from.
    split, x: of curves; None takes the unit of the suite.

  Raises:
    UserError: the kind, the split or x is unknown, or there is nothing to draw.
  """
  found = board.of(result)
  frame_of_file = file_frame(found)
  if kind == 'curves':
    return Chart(line_charts.curves(found, _view(frame, result, split, x), frame_of_file))
  if kind == 'profile':
    return Chart(line_charts.profile(found, frame_of_file))
  if kind == 'times':
    return Chart(cell_charts.times(found, frame_of_file))
  raise errors.unknown('kind of chart', kind, KINDS)


def _view(frame: pd.DataFrame, result: Leaderboard, split: Split, x: str | None) -> dict[str, Any]:
  """The curves of the one workload of a result."""
  axes = training_curves.axes_of(result)
  if split not in training_curves.SPLITS:
    raise errors.unknown('split', split, training_curves.SPLITS)
  if x is not None and x not in axes:
    why = ' The runs do not say how many examples a step has.' if x == 'examples' else ''
    raise errors.UserError(
      f'Curves of these runs are drawn against {", ".join(axes)}; x is {x!r}.{why}'
    )
  found = set(frame['workload'])
  names = [name for name in result.workloads if name in found]
  if len(names) > 1:
    raise errors.UserError(
      f'A chart has the curves of one workload; these runs have {len(names)}. Choose one with '
      f'--workloads: {", ".join(names)}.'
    )
  views = training_curves.views(frame, result, splits=(split,), axes=(x or axes[0],))
  view = next(views, None)
  if view is None:
    raise errors.UserError(
      f'There is nothing to draw: no evaluation of {names[0]} has a value on {split}.'
    )
  return view
