"""The folder of a site: what may be replaced, and how nothing is lost when it is."""

from __future__ import annotations

import datetime
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from algorithmic_efficiency import errors
from algorithmic_efficiency.results import files, schema
from scoring.site.history import History

MARK = 'data/site.json'  # the history of a site, and the names of its files
_MAX_NAMES = 3  # of files in the way


def read(output: Path) -> History | None:
  """The history of the site in a folder; None if the folder is empty or absent.

  Raises:
    UserError: something else is there, or the history is damaged.
  """
  try:
    found = sorted(_files(output))
  except OSError as error:
    raise errors.UserError(f'{output} cannot be read: {error.strerror}.') from None
  if not found:
    return None
  if MARK not in found:
    raise errors.UserError(
      f'A site is written to a folder that is empty, or holds an earlier site. {output} holds '
      f'other files, such as {found[0]}; give another folder with --output.'
    )
  try:
    history = schema.convert(schema.read_json(output / MARK), History)
    if not history.publications:
      raise schema.DamagedRecordError('it has no publication')
    for one in history.publications:
      datetime.datetime.fromisoformat(one.date)
  except (OSError, ValueError) as error:
    raise errors.UserError(
      f'{output / MARK}, which holds the history of the site, is damaged ({error}). Restore it, or '
      'give another folder with --output.'
    ) from None
  others = sorted(set(found) - {*history.files, MARK})
  if others:
    more = f' and {len(others) - _MAX_NAMES} more' if len(others) > _MAX_NAMES else ''
    raise errors.UserError(
      f'A new site replaces the whole folder {output}, and these files in it are no part of the '
      f'earlier site: {", ".join(others[:_MAX_NAMES])}{more}. Move them away.'
    )
  return history


def write(output: Path, contents: Mapping[str, bytes], history: History) -> None:
  """Writes a site beside the folder, and then puts it in the place of what was there.

  Raises:
    UserError: it cannot be written; the folder is as it was.
  """
  output = output.resolve()
  new = output.with_name(f'.{output.name}.{os.getpid()}.new')
  old = output.with_name(f'.{output.name}.{os.getpid()}.old')
  kept = asdict(history) | {'files': sorted(contents)}
  try:
    try:
      for path, content in {**contents, MARK: json.dumps(kept, indent=1).encode()}.items():
        (new / path).parent.mkdir(parents=True, exist_ok=True)
        (new / path).write_bytes(content)
      _swap(new, output, old)
    finally:
      shutil.rmtree(new, ignore_errors=True)
  except OSError as error:
    raise files.storage_error(output, error, then='make the site again') from error


def _swap(new: Path, output: Path, old: Path) -> None:
  if not output.exists():
    new.rename(output)
    return
  output.rename(old)
  try:
    new.rename(output)
  except OSError:
    old.rename(output)
    raise
  shutil.rmtree(old, ignore_errors=True)


def _files(folder: Path) -> list[str]:
  """The paths of all files below a folder; a folder in it that is empty counts, too."""
  if not folder.exists():
    return []
  found = []
  for place, folders, names in os.walk(folder, onerror=_fail):
    below = Path(place).relative_to(folder)
    links = [name for name in folders if (Path(place) / name).is_symlink()]
    found += [(below / name).as_posix() for name in (*names, *links)]
    if not folders and not names and place != str(folder):
      found.append(below.as_posix())
  return found


def _fail(error: OSError) -> None:
  raise error
