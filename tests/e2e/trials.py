"""Runs real trials for the end-to-end tests and reads what they leave."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from algorithmic_efficiency import measurements
from algorithmic_efficiency.measurements import Rows, TrialRecord


def algoeff(
  *arguments: object, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
  """`algoeff` in a process of its own, as a user starts it."""
  return subprocess.run(
    [sys.executable, '-m', 'algorithmic_efficiency', *map(str, arguments)],
    cwd=cwd,
    env={**os.environ, **(env or {})},
    capture_output=True,
    text=True,
    timeout=timeout,
    stdin=subprocess.DEVNULL,
    check=False,
  )


def trial_folder(root: Path) -> Path:
  """The only trial folder below `root`."""
  [path] = root.rglob(measurements.TRIAL_FILE)
  return path.parent


def record(folder: Path) -> TrialRecord:
  found = measurements.read_trial(folder)
  assert found is not None
  return found


def rows(folder: Path) -> Rows:
  found = measurements.read(folder)
  assert found.problems == []
  return found


def holders(path: Path) -> list[str]:
  """Other processes that hold a file at or below `path` open."""
  found = []
  for entry in Path('/proc').iterdir():
    if entry.name.isdigit() and entry.name != str(os.getpid()):
      try:
        targets = [os.readlink(link) for link in (entry / 'fd').iterdir()]
      except OSError:
        continue
      if any(target.startswith(str(path)) for target in targets):
        found.append(entry.name)
  return found
