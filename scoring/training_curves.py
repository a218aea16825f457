"""Training curves as they are drawn: for each submission the median over its studies, and a band.

A study is its trial that counts, or the best one on validation where none reaches the target. A
study that has ended keeps its last value, and a line ends where half of the studies have ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from scoring.axis import UNITS
from scoring.result import Result
from scoring.runs import KEYS
from scoring.time_to_target import medians

if TYPE_CHECKING:
  import pandas as pd

Split = Literal['validation', 'train', 'test']
SPLITS: tuple[Split, ...] = get_args(Split)
AXES = ('seconds', 'steps', 'examples', UNITS['cost_adjusted_steps'])

NUM_POINTS = 60  # of a line
_MARGIN = 0.06  # of a range, on both sides
_BEYOND = 1.15  # times the latest hit: where the part that is shown first ends
_FAR = 20.0  # times the part that is shown first: what goes beyond on either side, is cut off there
_LEFT_OUT = 0.15  # of all values, the worst ones, in the part that is shown first


@dataclass(frozen=True, kw_only=True)
class _Study:
  """The trial of a study: x by axis and values by split, [evaluation] each.

  Attributes:
    hit: x of its first evaluation at the target, by axis; inf if there is none.
  """

  submission: int
  x: dict[str, np.ndarray]
  values: dict[Split, np.ndarray]
  hit: dict[str, float]


def axes_of(result: Result) -> tuple[str, ...]:
  """What curves of a result can be drawn against; what is raced comes first."""
  raced = UNITS[result.rules.axis]
  others = [axis for axis in AXES[:3] if axis != raced]
  table = result.outcomes
  own = table[~table.submission.isin(result.published) & (table.num_rows > 0)]
  if own.batch_size.isna().any() and not result.rules.suite.fixes_batch_size:
    others.remove('examples')
  return (raced, *others)


def views(
  frame: pd.DataFrame,
  result: Result,
  *,
  workloads: Sequence[str] = (),
  splits: Sequence[Split] = SPLITS,
  axes: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
  """The curves of each workload, split and axis, as `report.line_charts.curves` draws them.

  Args:
    frame: what `result` was scored from.
    workloads, axes: empty takes all.

  Yields:
    A record for each that has values. `rows` is a table as CSV: position of the submission, x, and
    middle, lowest and highest value. `x_near` and `y_near` bound the part where curves differ, and
    `x_all` and `y_all` everything. Values beyond `y_far` are drawn there: those of a training that
    diverges have no bound. `hits` has the median x of the target by submission,
    and `outside` the submissions whose lines are not in the part that is shown first.
  """
  gathered = _studies(frame, result)
  for workload in workloads or result.workloads:
    for split in splits:
      for axis in axes or axes_of(result):
        view = _view(gathered.get(workload, []), result, workload, split, axis)
        if view is not None:
          yield view


def _view(
  studies: Sequence[_Study], result: Result, workload: str, split: Split, axis: str
) -> dict[str, Any] | None:
  target = result.rules.members[workload].target
  level = {'validation': target.validation, 'test': target.test, 'train': None}[split]
  bands, hits = {}, []
  for place in range(len(result.ranking)):
    mine = [one for one in studies if one.submission == place]
    band = _band([(one.x[axis], one.values[split]) for one in mine])
    if band is not None:
      bands[place] = band
      at = float(medians(np.array([one.hit[axis] for one in mine])))
      if np.isfinite(at) and split == 'validation':
        hits.append((place, _rounded(at)))
  if not bands:
    return None
  ranges = _ranges(bands, hits, level, is_max=target.direction == 'max')
  return {
    'workload': workload,
    'split': split,
    'axis': axis,
    'metric': target.metric,
    'target': level,
    'hits': hits,
    'outside': [place for place, band in bands.items() if not _is_seen(band, ranges)],
    'rows': _csv(bands),
    **ranges,
  }


def _is_seen(band: np.ndarray, ranges: dict[str, list[float]]) -> bool:
  """Whether a line crosses the part that is shown first."""
  x, middle = band[:, 0], band[:, 1]
  (_, end), (low, high) = ranges['x_near'], ranges['y_near']
  return bool(((x <= end) & (middle >= low) & (middle <= high)).any())


def _band(studies: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray | None:
  """[point, (x, middle, lowest, highest)] over studies; None if no study has a value."""
  found = []
  for x, values in studies:
    known = np.isfinite(x) & np.isfinite(values)
    if known.any():
      found.append((x[known], values[known]))
  if not found:
    return None
  start = float(np.median([x[0] for x, _ in found]))
  end = float(np.median([x[-1] for x, _ in found]))
  grid = np.linspace(start, max(start, end), NUM_POINTS)
  lines = np.array([np.interp(grid, x, values) for x, values in found])
  return np.stack([grid, np.median(lines, axis=0), lines.min(axis=0), lines.max(axis=0)], axis=1)


def _ranges(
  bands: dict[int, np.ndarray],
  hits: Sequence[tuple[int, float]],
  level: float | None,
  *,
  is_max: bool,
) -> dict[str, list[float]]:
  """The part where curves differ, and the whole.

  The former has the curves of the submissions that reach the target, without their worst values,
  and ends soon after the last one has reached it.
  """
  every = np.concatenate(list(bands.values()))
  x_end = float(every[:, 0].max()) or 1.0
  x_near = min(x_end, _BEYOND * max(at for _, at in hits)) if hits else x_end
  near_target = np.concatenate([bands[place] for place, _ in hits]) if hits else every
  middle = near_target[near_target[:, 0] <= x_near][:, 1]
  worst, best = (_LEFT_OUT, 1.0) if is_max else (1 - _LEFT_OUT, 0.0)
  near = [float(np.quantile(middle, worst)), float(np.quantile(middle, best))]
  levels = [] if level is None else [level]
  low, high = _with_margin([*near, *levels])
  far = [low - _FAR * (high - low), high + _FAR * (high - low)]
  whole = [max(far[0], float(every[:, 2].min())), min(far[1], float(every[:, 3].max()))]
  return {
    'x_near': [0.0, _rounded(x_near)],
    'x_all': [0.0, _rounded(x_end)],
    'y_near': [low, high],
    'y_far': [_rounded(value) for value in far],
    'y_all': _with_margin([*whole, *levels]),
  }


def _with_margin(values: Sequence[float]) -> list[float]:
  low, high = min(values), max(values)
  margin = _MARGIN * ((high - low) or abs(high) or 1.0)
  return [_rounded(low - margin), _rounded(high + margin)]


def _csv(bands: dict[int, np.ndarray]) -> str:
  lines = ['s,x,middle,low,high']
  for place, band in bands.items():
    lines += [','.join((str(place), *(f'{value:.5g}' for value in row))) for row in band]
  return '\n'.join(lines)


def _rounded(value: float) -> float:
  return float(f'{value:.5g}')


def _studies(frame: pd.DataFrame, result: Result) -> dict[str, list[_Study]]:
  """The studies of each workload, by the place of their submissions in the ranking."""
  rows = frame[frame.workload.isin(result.workloads).to_numpy()]
  groups = rows.groupby(list(KEYS), observed=True, sort=False).indices
  columns = {
    name: rows[name].to_numpy()
    for name in ('submission_time_sec', 'global_step', 'charged_steps', *SPLITS)
  }
  place = {result.submissions[s]: rank for rank, s in enumerate(result.ranking)}
  found: dict[str, list[_Study]] = {}
  for trial in counting(result).itertuples():
    indices = groups.get(tuple(getattr(trial, name) for name in KEYS))
    if indices is None:
      continue
    indices = np.sort(indices)
    mine = {name: column[indices] for name, column in columns.items()}
    steps = np.where(np.isnan(mine['charged_steps']), mine['global_step'], mine['charged_steps'])
    own_batch, given_batch = (
      trial.batch_size,
      result.rules.members[trial.workload].batch_sizes.train,
    )
    batch = own_batch if own_batch and own_batch == own_batch else given_batch  # not NaN
    cost = 1.0 if np.isnan(trial.cost) else trial.cost
    factors = {'steps': 1.0, 'examples': float(batch), AXES[3]: cost}
    x = {'seconds': mine['submission_time_sec']}
    x |= {axis: factor * steps for axis, factor in factors.items()}
    row = None if np.isnan(trial.row) else int(trial.row)
    found.setdefault(trial.workload, []).append(
      _Study(
        submission=place[trial.submission],
        x=x,
        values={split: mine[split] for split in SPLITS},
        hit={axis: np.inf if row is None else float(values[row]) for axis, values in x.items()},
      )
    )
  return found


def counting(result: Result) -> pd.DataFrame:
  """The outcomes of the trials that stand for their studies."""
  table = result.outcomes
  signs = [
    1.0 if result.rules.members[name].target.direction == 'min' else -1.0 for name in table.workload
  ]
  order = table.assign(signed=table.best * signs).sort_values(
    ['row', 'submission_time_sec', 'signed', 'trial'], na_position='last', kind='stable'
  )
  return order.drop_duplicates(['submission', 'workload', 'study'])
