"""The files that travel with an entry, and those that stay at home.

Of a submission's folder all files travel but hidden ones, caches, weights and what looks like a
secret. Of a trial's folder the files travel that the harness writes for readers.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from algorithmic_efficiency import errors

LEFT_OUT = (
  *('.*', '*~', '*.tmp', '*.swp', '*.pyc', '*.pyo', '__pycache__', '*.egg-info', 'node_modules'),
  *('checkpoint*', 'params_[0-9]*', '*.ckpt', '*.pt', '*.pth', '*.safetensors', '*.msgpack'),
  *('*.pem', '*.key', '*.p12', '*.pfx', '*.kdbx', '*.env', 'id_rsa*', 'id_ed25519*', 'id_ecdsa*'),
  *('*secret*', '*credential*', '*password*', '*.zip', '*.tar', '*.tar.*', '*.tgz'),
)
"""Patterns of names, in lower case, of files and folders of a submission that stay at home."""

OF_A_TRIAL = (
  *('trial.json', 'hparams.json', 'measurements.jsonl', 'measurements.csv'),
  *('eval_measurements.csv', 'flags_[0-9]*.json', 'meta_data_[0-9]*.json'),
  *('output*.txt', 'traceback*.txt'),
)
"""Patterns of names of the files of a trial that travel."""


@dataclass(frozen=True, kw_only=True)
class Contents:
  """Files by their path in the package, and what was left out."""

  files: dict[str, Path]
  left_out: tuple[Path, ...]


def of_submission(folder: Path, prefix: str, apart: tuple[Path, ...]) -> Contents:
  """Finds the files of a submission.

  Args:
    prefix: the folder that they get in the package.
    apart: files and folders to leave out, such as runs that lie within.

  Raises:
    UserError: one of them is a link or no regular file, or cannot be listed.
  """
  taken: dict[str, Path] = {}
  left_out: list[Path] = []
  for path in _walk(folder, apart, left_out):
    taken[f'{prefix}/{path.relative_to(folder).as_posix()}'] = path
  return Contents(files=taken, left_out=tuple(left_out))


def of_trial(folder: Path, prefix: str) -> Contents:
  """Finds the files of a trial; its other files are left out.

  Raises:
    UserError: one of them is a link or no regular file, or cannot be listed.
  """
  taken: dict[str, Path] = {}
  left_out: list[Path] = []
  for entry in _entries(folder):
    path = folder / entry.name
    if not any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in OF_A_TRIAL):
      left_out.append(path)
      continue
    _check_regular(entry)
    taken[f'{prefix}/{entry.name}'] = path
  return Contents(files=taken, left_out=tuple(left_out))


def _walk(folder: Path, apart: tuple[Path, ...], left_out: list[Path]) -> Iterator[Path]:
  for entry in _entries(folder):
    path = folder / entry.name
    is_named = any(fnmatch.fnmatchcase(entry.name.lower(), pattern) for pattern in LEFT_OUT)
    if is_named or path.resolve() in apart:
      left_out.append(path)
    elif entry.is_dir(follow_symlinks=False):
      yield from _walk(path, apart, left_out)
    else:
      _check_regular(entry)
      yield path


def _check_regular(entry: os.DirEntry) -> None:
  if entry.is_symlink():
    raise errors.UserError(
      f'Only files travel with an entry; {entry.path} is a symbolic link. Replace it by what it '
      'points to.'
    )
  if not entry.is_file(follow_symlinks=False):
    raise errors.UserError(f'Only files travel with an entry; {entry.path} is no regular file.')


def _entries(folder: Path) -> list[os.DirEntry]:
  try:
    with os.scandir(folder) as entries:
      return sorted(entries, key=lambda entry: entry.name)
  except OSError as error:
    raise errors.UserError(f'{folder} could not be read: {error.strerror}.') from None
