"""Finds the trials under a folder of runs by where they lie; opens no file.

`<root>/<submission>[-timestamp]/<study>/<workload>_<framework>/<trial>/`, the folder of one
submission itself, a folder around exactly one such root, and submissions without study folders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from scoring.notes import Note

_TIMESTAMP = re.compile(r'-\d{4}(-\d{2}){5}$')
_WORKLOAD = re.compile(r'^(?P<workload>.+)_(?P<framework>jax|pytorch)$')
_TRIAL = re.compile(r'^trial_[0-9]+$')
STUDY = re.compile(r'^study_?[0-9]+$')
_NUMBER = re.compile(r'([0-9]+)')


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
  parts = _NUMBER.split(text)  # every second one is a number
  return tuple(int(part) if place % 2 else part for place, part in enumerate(parts))


def find_trials(root: Path) -> tuple[list[FoundTrial], list[Note]]:
  """Every trial folder under `root`, in a fixed order, and what did not fit the layout."""
  if not root.exists():
    raise errors.UserError(f'A folder of runs must exist; {root} does not.')
  if not root.is_dir():
    raise errors.UserError(f'Runs are read from a folder; {root} is a file.')
  notes: list[Note] = []
  trials: list[FoundTrial] = []
  tree = _Tree()
  for folder in _submissions(tree, root):
    trials += _in_submission(tree, folder, notes)
  trials = _merge_timestamps(trials, notes)
  trials = _split_frameworks(trials, notes)
  notes += tree.notes
  notes += _odd_study_names(trials)
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


class _Tree:
  """The folders below a root, each read once. What they are is told by what lies in them."""

  def __init__(self) -> None:
    self._read: dict[str, list[os.DirEntry]] = {}
    self.notes: list[Note] = []
    self._known = registry.workloads()

  def folders(self, parent: str | os.PathLike[str]) -> list[os.DirEntry]:
    """The folders in a folder, in their natural order.

    Raises:
      UserError: it cannot be read, or a name in it is not printable.
    """
    path = os.fspath(parent)
    if path not in self._read:
      self._read[path] = _folders(path, self.notes)
    return self._read[path]

  def workload(self, folder: os.DirEntry) -> re.Match[str] | None:
    """The parts of the name of a workload folder; None for any other folder.

    It holds trials; without a trial it is one if its name is that of a known workload, and it is no
    submission.
    """
    match = _WORKLOAD.match(folder.name)
    if match is None or any(_TRIAL.match(child.name) for child in self.folders(folder.path)):
      return match
    is_empty = match['workload'] in self._known and not self.is_submission(folder.path)
    return match if is_empty else None

  def is_submission(self, folder: str | os.PathLike[str]) -> bool:
    """Whether workload folders lie in it, directly or one level down."""
    children = self.folders(folder)
    return any(self.workload(child) for child in children) or any(
      self.workload(grandchild) for child in children for grandchild in self.folders(child.path)
    )


def _folders(parent: str, notes: list[Note]) -> list[os.DirEntry]:
  try:
    with os.scandir(parent) as entries:
      visible = [entry for entry in entries if not entry.name.startswith('.')]
  except OSError as error:
    raise errors.UserError(f'{parent} cannot be read: {error.strerror}.') from None
  found = [entry for entry in visible if entry.is_dir()]
  dangling = [one.path for one in visible if one.is_symlink() and not os.path.exists(one.path)]
  notes += [Note('dangling_link', path, f'to {os.readlink(path)}') for path in dangling]
  for entry in found:
    if not entry.name.isprintable():  # which no table could show, and no file in UTF-8 hold
      raise errors.UserError(
        f'The name of a folder of runs must be printable text; {entry.name!r} in {parent} is not. '
        'Rename it.'
      )
  return sorted(found, key=lambda entry: natural(entry.name))


def _submissions(tree: _Tree, root: Path) -> list[Path]:
  if tree.is_submission(root):
    return [root]
  for parents in ([root], [Path(child.path) for child in tree.folders(root)]):
    holders = {
      parent: found
      for parent in parents
      if (found := [Path(one.path) for one in tree.folders(parent) if tree.is_submission(one.path)])
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


def _in_submission(tree: _Tree, folder: Path, notes: list[Note]) -> Iterator[FoundTrial]:
  submission = os.path.basename(os.path.abspath(folder))  # a link is called as it was given
  for child in tree.folders(folder):
    if match := tree.workload(child):  # submission_runner without a study folder
      yield from _in_workload(tree, child, match, submission, 'study_1', notes)
      continue
    for entry in tree.folders(child.path):
      if match := tree.workload(entry):
        yield from _in_workload(tree, entry, match, submission, child.name, notes)
      elif _TRIAL.match(entry.name):
        notes.append(Note('stray_trial', entry.path))
      else:
        notes.append(Note('stray_file', entry.path))


def _in_workload(
  tree: _Tree,
  entry: os.DirEntry,
  match: re.Match[str],
  submission: str,
  study: str,
  notes: list[Note],
) -> Iterator[FoundTrial]:
  found = False
  for trial in tree.folders(entry.path):
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


def _odd_study_names(trials: list[FoundTrial]) -> list[Note]:
  """Says which folders count as studies though they may have been meant as submissions."""
  found: dict[str, set[str]] = {}
  for trial in trials:
    if not STUDY.match(trial.study):
      found.setdefault(trial.submission, set()).add(trial.study)
  return [Note('study_names', name, ', '.join(sorted(odd))) for name, odd in found.items()]


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
  taken = frameworks.keys() - both

  def apart(trial: FoundTrial) -> str:
    name = f'{trial.submission}_{trial.framework}'
    return f'{trial.submission} ({trial.framework})' if name in taken else name

  return [
    replace(trial, submission=apart(trial)) if trial.submission in both else trial
    for trial in trials
  ]
