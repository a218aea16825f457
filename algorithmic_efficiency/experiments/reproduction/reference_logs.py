"""The logs that a run is compared with: curves of metrics by step, from our files or AlgoPerf's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.results import csv_table, files, measurements, trial_record
from algorithmic_efficiency.results.trial_record import Point

_SPLITS = ('train/', 'validation/', 'test/')
_COUNT = '/num_examples'


@dataclass(frozen=True, kw_only=True)
class Log:
  """The evaluations of one trial.

  Attributes:
    point: hyperparameters; None under self tuning.
    suite: suite of the trial, which AlgoPerf's logs do not record.
    steps: int [rows], increasing.
    curves: metrics by name, such as 'validation/loss', each [rows].
  """

  folder: Path
  point: Point | None
  suite: str | None
  steps: np.ndarray
  curves: Mapping[str, np.ndarray]

  def at(self, name: str, steps: np.ndarray) -> np.ndarray:
    """Returns a metric at each of the steps, linearly interpolated between rows.

    It is NaN outside of the rows and for a metric that the log does not have.
    """
    curve = self.curves.get(name)
    if curve is None:
      return np.full(len(steps), np.nan)
    return np.interp(steps, self.steps, curve, left=np.nan, right=np.nan)


@dataclass(frozen=True, kw_only=True)
class Logs:
  """The logs of one workload below a folder, and the reasons why some of them cannot be used."""

  root: Path
  workload: str
  framework: str
  found: tuple[Log, ...]
  left_out: tuple[str, ...]


def find(root: Path, workload: str, framework: str | None, *, apart: Path) -> Logs:
  """Finds the logs of a workload at or below a folder of runs.

  Args:
    framework: framework of the logs; None accepts any single one.
    apart: a folder to leave out.

  Raises:
    UserError: there are none, or they are of several frameworks.
  """
  root = root.expanduser().resolve()
  if not root.is_dir():
    raise errors.UserError(f'--against must be a folder of runs; {root} is not.')
  folders = [file.parent for file in sorted(root.rglob(measurements.EVAL_FILE))]
  folders = [
    folder
    for folder in folders
    if not folder.name.startswith('.')  # a trial that was backed up
    and not folder.is_relative_to(apart.expanduser().resolve())
  ]
  names = sorted({folder.parent.name for folder in folders})
  mine = [name for name in names if name.rpartition('_')[0] == workload]
  if framework is not None:
    mine = [name for name in mine if name == f'{workload}_{framework}']
  if len(mine) > 1:
    raise errors.UserError(
      f'A run is held against logs of its framework; {root} has {" and ".join(mine)}. Choose with '
      '--framework.'
    )
  if not mine:
    asked = workload if framework is None else f'{workload}_{framework}'
    raise errors.UserError(
      f'{root} has no log of {asked}; it has: {", ".join(names) or "no log at all"}. Logs lie in '
      f'<workload>_<framework>/trial_<i>/{measurements.EVAL_FILE}.'
    )
  found, left_out = [], []
  for folder in folders:
    if folder.parent.name == mine[0]:
      try:
        found.append(read(folder))
      except _UnusableError as error:
        left_out.append(f'{folder}: {error}')
  return Logs(
    root=root,
    workload=workload,
    framework=mine[0].rpartition('_')[2],
    found=tuple(found),
    left_out=tuple(left_out),
  )


class _UnusableError(Exception):
  """A log that cannot be used; the message says why."""


def read(folder: Path) -> Log:
  """Reads the log of a trial folder.

  Raises:
    _UnusableError: the log is damaged, or its numbers are meaningless.
  """
  try:
    record = trial_record.read_trial(folder)
    point = trial_record.read_point(folder)
  except errors.UserError as error:
    raise _UnusableError(str(error)) from None
  if record is not None and record.smoke:
    raise _UnusableError('a smoke run')
  if record is not None and record.status == 'invalid':
    raise _UnusableError('an invalid trial')
  steps, curves = _rows(folder / measurements.EVAL_FILE)
  return Log(
    folder=folder,
    point=point,
    suite=None if record is None else record.suite,
    steps=steps,
    curves=curves,
  )


def _rows(file: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  try:
    table = csv_table.parse(files.read_bytes(file))
  except OSError as error:
    raise _UnusableError(f'{file.name} cannot be read: {error.strerror}') from None
  except ValueError as error:
    raise _UnusableError(f'{file.name}: {error}') from None
  if table.cut:
    raise _UnusableError(f'{file.name}: {table.cut}')
  header, rows = table.header, table.rows
  if 'global_step' not in header or not rows:
    raise _UnusableError('no rows')
  wanted = [name for name in header if name.startswith(_SPLITS) and not name.endswith(_COUNT)]
  try:
    columns = {
      name: np.array([float(row[header.index(name)] or 'nan') for row in rows])
      for name in ('global_step', *wanted)
    }
  except ValueError as error:
    raise _UnusableError(f'a value of {file.name} is no number ({error})') from None
  steps = columns.pop('global_step')
  if not (np.isfinite(steps).all() and (np.diff(steps) > 0).all()):
    raise _UnusableError('its steps do not increase')
  return steps.astype(np.int64), columns


def by_point(logs: Sequence[Log]) -> list[list[Log]]:
  """Groups the logs by point, in the order of each point's first log."""
  groups: dict[str, list[Log]] = {}
  for log in logs:
    groups.setdefault(json.dumps(log.point, sort_keys=True), []).append(log)
  return list(groups.values())
