"""Trackers: other places that the rows of a trial are shown in while it runs.

A tracker is a module with a function `start(folder, *, resumed_at=None) -> Tracker`. Those in this
folder are known by their file's name; any other is given as `package.module`. The log of record is
`measurements.jsonl`, with or without a tracker.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from algorithmic_efficiency import errors


class Tracker(Protocol):
  """Takes rows of numbers while a trial runs.

  A tracker that keeps rows in memory has a method `flush()`, called after each evaluation.
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


def open_tracker(name: str, folder: Path, *, resumed_at: int | None = None) -> Tracker:
  """Starts a tracker.

  Args:
    name: one of `names()`, or the import path of a module that follows the contract above.
    folder: the trial folder.
    resumed_at: the step that a resumed trial continues from; rows of a larger step are undone. The
      log of the folder holds the rows before it.

  Raises:
    UserError: there is no such tracker, or what it needs is not installed.
  """
  path = f'{__name__}.{name}' if name in names() else name
  if path == name and ('.' not in name or not _exists(name)):
    raise errors.unknown('tracker', name, names())
  module = importlib.import_module(path)
  if not callable(getattr(module, 'start', None)):
    raise errors.UserError(f'A tracker module has a function start(folder); {name} has none.')
  return module.start(folder, resumed_at=resumed_at)


def _exists(path: str) -> bool:
  try:
    return importlib.util.find_spec(path) is not None
  except ModuleNotFoundError:
    return False
