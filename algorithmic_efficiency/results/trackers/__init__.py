"""Trackers: other places that show the rows of a trial while it runs.

A tracker is a module. Those in this folder are known by their file's name; any other is given as
`package.module`. The log of record is `measurements.jsonl`, with or without a tracker. The process
that starts a trial keeps its trackers, so that none takes time of the trial.

A tracker module has:

- `start(folder, *, resumed_at=None) -> Tracker` for the folder of a trial, which has its
  `trial.json` by then. `resumed_at` is the step that a resumed trial continues from, else None.
  A new tracker shows nothing, and takes the place of an earlier one of the same folder: all rows
  are given to it, those before the resume first.
- `check()`, if it needs anything: raises a UserError with the remedy. Called before any trial.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from algorithmic_efficiency import errors
from algorithmic_efficiency.results import trial_record


class Tracker(Protocol):
  """Takes rows of numbers while a trial runs.

  A tracker that keeps rows in memory has a method `flush()`, called when no row is waiting.
  """

  def scalars(self, step: int, values: Mapping[str, float | int]) -> None:
    """Takes one row, by column; a tracker may leave columns out."""
    ...

  def close(self) -> None: ...


def flush(tracker: Tracker) -> None:
  """Makes what a tracker has taken visible; a tracker without a method `flush` needs none."""
  method = getattr(tracker, 'flush', None)
  if method is not None:
    method()


def names() -> list[str]:
  """The trackers that are shipped."""
  return sorted(module.name for module in pkgutil.iter_modules(__path__))


def check(name: str) -> None:
  """Checks that a tracker can be started.

  Args:
    name: one of `names()`, or the import path of a module that follows the contract above.

  Raises:
    UserError: there is no such tracker, or something that it needs is missing.
  """
  own = getattr(_module(name), 'check', None)
  if own is not None:
    own()


def open_tracker(name: str, folder: Path, *, resumed_at: int | None = None) -> Tracker:
  """Starts a tracker; the arguments are those of `check` and `start`.

  Raises:
    UserError: there is no such tracker, or something that it needs is missing.
  """
  check(name)
  return _module(name).start(folder, resumed_at=resumed_at)


def described(folder: Path) -> tuple[str, dict[str, Any]]:
  """What a trial is called, and what it is, by name: for a tracker that shows many trials."""
  record = trial_record.read_trial(folder)
  assert record is not None  # it is written before a tracker is started
  where = f'{record.workload} ({record.framework})'
  title = f'{record.submission} on {where}, study {record.study}, trial {record.trial}'
  names = ('submission', 'workload', 'framework', 'suite', 'ruleset', 'study', 'trial')
  facts = {name: getattr(record, name) for name in names}
  return title, {**facts, **(record.hyperparameters or {})}


def require(name: str, package: str, extra: str) -> None:
  """Checks that the package of a tracker is installed.

  Raises:
    UserError: it is not.
  """
  if not _exists(package):
    raise errors.UserError(
      f'--log {name} needs {package}, which is not installed: '
      f"pip install 'algorithmic-efficiency[{extra}]'."
    )


def _module(name: str) -> ModuleType:
  path = f'{__name__}.{name}' if name in names() else name
  if path == name and ('.' not in name or not _exists(name)):
    raise errors.unknown('tracker', name, names())
  module = importlib.import_module(path)
  if not callable(getattr(module, 'start', None)):
    raise errors.UserError(f'A tracker module has a function start(folder); {name} has none.')
  return module


def _exists(path: str) -> bool:
  try:
    return importlib.util.find_spec(path) is not None
  except (ModuleNotFoundError, ValueError):  # ValueError: it was made unimportable
    return False
