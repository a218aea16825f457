"""Finds the trials under a folder of runs; knows names of folders and opens no measurement.

`<root>/<submission>[-timestamp]/<study>/<workload>_<framework>/<trial>/`, the folder of one
submission itself, a folder around exactly one such root, and submissions without study folders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from algorithmic_efficiency import errors
from scoring.notes import Note

_TIMESTAMP = re.compile(r'-\d{4}(-\d{2}){5}$')
_WORKLOAD = re.compile(r'^(?P<workload>.+)_(?P<framework>jax|pytorch)$')
_TRIAL = re.compile(r'^trial_\d+$')
_NUMBER = re.compile(r'(\d+)')


@dataclass(frozen=True, kw_only=True)
class FoundTrial:
  """Where a trial lies and what its folders say about it."""

  path: str
  submission: str
  study: str
  workload: str
  framework: str
  trial: str


def natural(text: str) -> tuple:
  """A sort key under which trial_10 comes after trial_9."""
  return tuple(int(part) if part.isdigit() else part for part in _NUMBER.split(text))


def find_trials(
  root: Path, only: Collection[str] | None = None
) -> tuple[list[FoundTrial], list[Note]]:
  """Every trial folder under `root`, in a fixed order, and what did not fit the layout.

  `only` are the real paths of those that count; None takes all.
  """
  if not root.exists():
    raise errors.UserError(f'A folder of runs must exist; {root} does not.')
  if not root.is_dir():
    raise errors.UserError(f'Runs are read from a folder; {root} is a file.')
  notes: list[Note] = []
  trials: list[FoundTrial] = []
  for folder in _submissions(root):
    trials += _in_submission(folder, notes)
  if only is not None:
    trials = [trial for trial in trials if os.path.realpath(trial.path) in only]
  trials = _merge_timestamps(trials, notes)
  trials = _split_frameworks(trials, notes)
  trials.sort(
    key=lambda one: (
      one.submission,
      natural(one.study),
      one.workload,
      one.framework,
      natural(one.trial),
    )
  )
  return trials, notes


def _folders(parent: str | os.PathLike[str]) -> list[os.DirEntry]:
  try:
    with os.scandir(parent) as entries:
      found = [entry for entry in entries if entry.is_dir() and not entry.name.startswith('.')]
  except OSError as error:
    raise errors.UserError(f'{parent} cannot be read: {error.strerror}.') from None
  for entry in found:
    if not entry.name.isprintable():  # which no table could show, and no file in UTF-8 hold
      raise errors.UserError(
        f'The name of a folder of runs must be printable text; {entry.name!r} in {parent} is not. '
        'Rename it.'
      )
  return sorted(found, key=lambda entry: natural(entry.name))


def _is_submission(folder: str | os.PathLike[str]) -> bool:
  """Whether workload folders lie in it, directly or one level down."""
  children = _folders(folder)
  if any(_WORKLOAD.match(child.name) for child in children):
    return True
  return any(_WORKLOAD.match(grand.name) for child in children for grand in _folders(child.path))


def _submissions(root: Path) -> list[Path]:
  if _is_submission(root):
    return [root]
  for parents in ([root], [Path(child.path) for child in _folders(root)]):
    holders = {
      parent: found
      for parent in parents
      if (found := [Path(one.path) for one in _folders(parent) if _is_submission(one.path)])
    }
    if len(holders) == 1:
      return next(iter(holders.values()))
    if holders:
      listed = ', '.join(parent.name for parent in holders)
      raise errors.UserError(
        f'{root} holds several sets of runs ({listed}); they are scored apart, give one of them.'
      )
  raise errors.UserError(
    f'{root} holds no runs; they lie in <submission>/study_<k>/<workload>_<framework>/trial_<i>/.'
  )


def _in_submission(folder: Path, notes: list[Note]) -> Iterator[FoundTrial]:
  submission = folder.resolve().name
  for child in _folders(folder):
    if _WORKLOAD.match(child.name):  # submission_runner without a study folder
      yield from _in_workload(child, submission, 'study_1', notes)
      continue
    for entry in _folders(child.path):
      if _WORKLOAD.match(entry.name):
        yield from _in_workload(entry, submission, child.name, notes)
      elif _TRIAL.match(entry.name):
        notes.append(Note('stray_trial', entry.path))
      else:
        notes.append(Note('stray_file', entry.path))


def _in_workload(
  entry: os.DirEntry, submission: str, study: str, notes: list[Note]
) -> Iterator[FoundTrial]:
  match = _WORKLOAD.match(entry.name)
  assert match is not None
  found = False
  for trial in _folders(entry.path):
    if not _TRIAL.match(trial.name):
      notes.append(Note('stray_file', trial.path))
      continue
    found = True
    yield FoundTrial(
      path=trial.path,
      submission=submission,
      study=study,
      workload=match['workload'],
      framework=match['framework'],
      trial=trial.name,
    )
  if not found:
    notes.append(Note('no_data', entry.path, 'a workload folder without trials'))


def _merge_timestamps(trials: list[FoundTrial], notes: list[Note]) -> list[FoundTrial]:
  """Folders that differ by a time stamp are one submission; a trial found twice keeps both."""
  folders: dict[str, set[str]] = {}
  merged = []
  for trial in trials:
    plain = _TIMESTAMP.sub('', trial.submission)
    folders.setdefault(plain, set()).add(trial.submission)
    merged.append(replace(trial, submission=plain))
  for plain, names in folders.items():
    if len(names) > 1:
      notes.append(Note('merged', plain, ', '.join(sorted(names))))
  seen: dict[tuple, int] = {}
  for index, trial in enumerate(merged):
    key = (trial.submission, trial.study, trial.workload, trial.framework, trial.trial)
    seen[key] = seen.get(key, 0) + 1
    if seen[key] > 1:
      merged[index] = replace(trial, trial=f'{trial.trial}.{seen[key]}')
  return merged


def _split_frameworks(trials: list[FoundTrial], notes: list[Note]) -> list[FoundTrial]:
  """A submission that ran in both frameworks is two competitors: they are different programs."""
  frameworks: dict[str, set[str]] = {}
  for trial in trials:
    frameworks.setdefault(trial.submission, set()).add(trial.framework)
  both = {name for name, found in frameworks.items() if len(found) > 1}
  notes += [Note('two_frameworks', name) for name in sorted(both)]
  return [
    replace(trial, submission=f'{trial.submission}_{trial.framework}')
    if trial.submission in both
    else trial
    for trial in trials
  ]
