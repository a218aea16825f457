"""Packs a submission and the logs of its runs into one file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.backends import FRAMEWORKS
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.registry import SubmissionFolder
from algorithmic_efficiency.benchmark.suites import Ruleset
from algorithmic_efficiency.entries import archive, contents, manifest, trials
from algorithmic_efficiency.entries.manifest import CODE, RUNS, Manifest
from algorithmic_efficiency.entries.trials import EntryTrial
from algorithmic_efficiency.entries.verdict import RefusedError
from algorithmic_efficiency.experiments.check import submission_info
from algorithmic_efficiency.results import files, race_files
from algorithmic_efficiency.results.submission_info import FILE as INFO_FILE
from algorithmic_efficiency.trial import submission as submissions
from scoring.layout import FoundTrial
from scoring.load import race_of
from scoring.rules import resolve

_NUM_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class Packing:
  """The flags of `algoeff pack`, as a record.

  Attributes:
    entry: name or folder of the submission.
    runs: a folder of runs, ours or AlgoPerf's.
    name: the name that the submission ran under; None takes that of its folder.
    suite, ruleset: None takes those that the runs state.
    partial: whether trials may be missing or failed.
  """

  entry: str
  runs: Path
  output: Path
  name: str | None = None
  suite: str | None = None
  ruleset: Ruleset | None = None
  partial: bool = False


@dataclass(frozen=True, kw_only=True)
class Packed:
  """What was packed.

  Attributes:
    sha256: hash of the package.
    size: bytes of the package.
    left_out: files and folders that stayed at home.
    shortcomings: trials that are missing or are no complete results, with the reason.
  """

  path: Path
  manifest: Manifest
  sha256: str
  size: int
  num_trials: int
  left_out: tuple[Path, ...]
  shortcomings: tuple[str, ...]


def pack(asked: Packing) -> Packed:
  """Packs an entry; the same files give the same bytes.

  Trials on workloads that the suite does not score stay at home.

  Raises:
    UserError: something is missing, does not fit together, or must not travel.
  """
  everything = trials.found_in(asked.runs, asked.name or _folder_name(asked.entry))
  suite, ruleset = _stated(asked, [trials.read(one) for one in everything])
  folder = _code(asked.entry, ruleset)
  _check_info(folder)
  rules = trials.Rules(
    scoring=resolve(suite, ruleset=ruleset), space=trials.space_of(ruleset, folder.folder)
  )
  found = [one for one in everything if one.workload in rules.definitions]
  present = [trials.read(one) for one in found]
  shortcomings = _shortcomings(rules, present)
  if shortcomings and not asked.partial:
    raise errors.UserError(_incomplete(suite, shortcomings))
  apart = (asked.runs.resolve(), asked.output.resolve())
  code = contents.of_submission(folder.folder, CODE, apart)
  _check_code(folder, present, code)
  name = asked.name or folder.name
  parts = [code, *(_trial(one, asked.runs, name) for one in found)]
  stated = Manifest(
    submission=name,
    suite=rules.scoring.suite.name,
    ruleset=ruleset,
    is_partial=bool(shortcomings),
  )
  read = _read_all({path: file for part in parts for path, file in part.files.items()})
  stated = _write(asked.output, stated, read | _race_files(race_of(everything[0].path), name))
  return Packed(
    path=asked.output,
    manifest=stated,
    sha256=archive.hash_of_file(asked.output),
    size=asked.output.stat().st_size,
    num_trials=len(present),
    left_out=(
      *(path for part in parts for path in part.left_out),
      *(Path(one.path) for one in everything if one not in found),
    ),
    shortcomings=shortcomings,
  )


def _read_all(paths: Mapping[str, Path]) -> dict[str, bytes]:
  """Reads files, once it is known that they may be packed together."""
  try:
    archive.check_sizes({name: file.stat().st_size for name, file in paths.items()})
  except RefusedError as error:
    raise errors.UserError(f'A package must stay within its limits; {error}') from None
  return {name: _read(file) for name, file in paths.items()}


def _read(file: Path) -> bytes:
  try:
    return files.read_bytes(file)
  except OSError as error:
    raise errors.UserError(f'{file} could not be read: {error.strerror}.') from None


def _write(path: Path, stated: Manifest, read: Mapping[str, bytes]) -> Manifest:
  """Writes a package and returns its manifest, with the hash of each file."""
  hashes = {name: archive.hash_of(read[name]) for name in sorted(read)}
  stated = dataclasses.replace(stated, files=hashes)
  files.make_folder(path.parent)
  archive.write(path, {**read, manifest.FILE: stated.encoded()})
  size = path.stat().st_size
  if size > archive.MAX_PACKED_BYTES:
    files.remove(path)
    raise errors.UserError(
      f'A package has at most {archive.MAX_PACKED_BYTES:,} bytes; this one has {size:,}.'
    )
  return stated


# The submission.


def _folder_name(entry: str) -> str:
  return Path(entry).expanduser().resolve().name if '/' in entry or entry in '..' else entry


def _code(entry: str, ruleset: Ruleset) -> SubmissionFolder:
  """Locates the folder of a submission by its name or path."""
  path = Path(entry).expanduser()
  if not path.exists():
    return registry.submission(entry, ruleset)
  folder = SubmissionFolder(path.resolve().name, ruleset, path.resolve())
  if not path.is_dir() or not folder.frameworks:
    names = ', '.join(dict.fromkeys((*registry.SUBMISSION_FILES.values(), 'submission.py')))
    raise errors.UserError(
      f'An entry is a folder with one of {names}; {path} is none. Trials of an optimizer that was '
      'named on the command line hold such a folder.'
    )
  return folder


def _check_info(folder: SubmissionFolder) -> None:
  path = folder.folder / INFO_FILE
  if not path.is_file():
    raise errors.UserError(
      f'An entry needs {INFO_FILE}, which says who made it; {folder.folder} has none. '
      '`algoeff new submission NAME` writes one to fill in.'
    )
  for finding in submission_info.findings(path):
    raise errors.UserError(f'{path} is incomplete. {finding.text}')


def _check_code(
  folder: SubmissionFolder, present: Sequence[EntryTrial], code: contents.Contents
) -> None:
  """Makes sure that the code is the one that ran, and that all of it travels."""
  hashes = {}
  for framework in FRAMEWORKS:
    file = folder.file(framework)
    if file is not None:
      hashes[framework] = submissions.source_hash(file)
  for trial in present:
    own = hashes.get(trial.place[2])
    if own is None:
      raise errors.UserError(f'{folder.folder} has no code for {trial.name}.')
    if trial.record is not None and trial.record.submission_hash not in ('', own):
      raise errors.UserError(
        f'An entry is packed with the code that ran; the files of {folder.folder} have been '
        f'changed since {trial.folder} was run. Restore them, or run the trials again.'
      )
  travels = set(code.files.values())
  for path in sorted(folder.folder.rglob('*.py')):
    if path not in travels and '__pycache__' not in path.parts:
      raise errors.UserError(
        f'All code of an entry travels; {path} would be left out because of its name. Rename or '
        'remove it, and run the trials again.'
      )


# The runs.


def _stated(asked: Packing, present: Sequence[EntryTrial]) -> tuple[str, Ruleset]:
  """Suite and ruleset of an entry. A user's own suite is known by its file."""
  records = [one.record for one in present if one.record]
  suite = _only('suite', asked.suite, {one.suite_file or one.suite for one in records})
  return suite, _only('ruleset', asked.ruleset, {one.ruleset for one in records})


def _only(what: str, given: str | None, stated: set[str]) -> Any:
  """What was given, else the only one that the runs state."""
  if given is not None:
    return given
  if len(stated) != 1:
    found = f'state {" and ".join(sorted(stated))}' if stated else 'state none'
    raise errors.UserError(f'An entry has one {what}; the runs {found}. Give --{what}.')
  return next(iter(stated))


def _shortcomings(rules: trials.Rules, present: Sequence[EntryTrial]) -> tuple[str, ...]:
  there = {one.place: one for one in present}
  found = []
  for place in trials.expected(rules, present):
    text = trials.shortcoming(there[place]) if place in there else 'is missing'
    if text is not None:
      found.append(f'{trials.name_of(place)} {text}')
  return tuple(found)


def _incomplete(suite: str, shortcomings: Sequence[str]) -> str:
  listed = '\n'.join(f'  {text}' for text in shortcomings[:_NUM_LISTED])
  more = len(shortcomings) - _NUM_LISTED
  rest = f'\n  and {more} more' if more > 0 else ''
  return (
    f'An entry has every trial of the suite {suite}; {len(shortcomings)} of them are missing or '
    f'incomplete:\n{listed}{rest}\n--partial packs the others; what is missing counts as a miss.'
  )


def _trial(one: FoundTrial, runs: Path, name: str) -> contents.Contents:
  folder = Path(one.path)
  for parent in (folder, *folder.parents):
    if parent == runs:
      break
    if parent.is_symlink():
      raise errors.UserError(
        f'Only files travel with an entry; {parent} is a symbolic link. Copy what it points to.'
      )
  return contents.of_trial(folder, f'{RUNS}/{name}/{trials.name_of(trials.place_of(one))}')


def _race_files(race: Path, name: str) -> dict[str, bytes]:
  """The records of a race beside its runs: its workloads, and the step costs of this entry."""
  found = {}
  selection = race / race_files.SELECTION_FILE
  if selection.is_file() and race_files.read_selection(race) is not None:
    found[f'{RUNS}/{selection.name}'] = _read(selection)
  costs = race_files.read_costs(race)
  if costs:
    lines = _read(race / race_files.COSTS_FILE).split(b'\n')
    pairs = zip(costs, lines, strict=False)
    mine = [line for cost, line in pairs if cost.submission == name or cost.is_floor]
    found[f'{RUNS}/{race_files.COSTS_FILE}'] = b''.join(line + b'\n' for line in mine)
  return found
