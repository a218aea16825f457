"""Locks the folder of a trial while it runs, and makes folders for trials that leave nothing.

A trial that replaces another keeps a backup of it until it has rows of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

from algorithmic_efficiency import errors
from algorithmic_efficiency.results import measurements

_LOCK_FILE = '.lock'
_BACKUP = '.replaced'
_SCRATCH = 'algoeff-'
_SCRATCH_LOCK = '.scratch'  # which no folder of results has


def backup_of(path: Path) -> Path:
  """Gives the hidden folder beside `path` that holds its trial while another replaces it."""
  return path.with_name(f'.{path.name}{_BACKUP}')


def lock(folder: Path, taken: str, name: str = _LOCK_FILE) -> IO[str]:
  """Locks a folder until the file that it returns is closed, or this process has ended.

  Args:
    taken: the message if another process holds the lock.
    name: of the lock's file in the folder.

  Raises:
    UserError: another process holds the lock.
    OSError: the folder cannot be written.
  """
  lock = open(folder / name, 'w')  # noqa: SIM115 - held while the caller needs it
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # Its holder may have moved the file with its folder, after it was opened here.
    if os.path.samestat(os.fstat(lock.fileno()), os.stat(folder / name)):
      return lock
  except OSError:
    pass
  lock.close()
  raise errors.UserError(taken)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
  """Makes a temporary folder for the block, and removes those that killed processes have left.

  The folder is locked before it has the name by which such leftovers are found.
  """
  _remove_abandoned(Path(tempfile.gettempdir()))
  hidden = Path(tempfile.mkdtemp(prefix=f'.{_SCRATCH}')).resolve()
  with lock(hidden, f'{hidden} is in use.', _SCRATCH_LOCK):
    path = hidden.rename(hidden.with_name(hidden.name.removeprefix('.')))
    try:
      yield path
    finally:
      shutil.rmtree(path, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
  for path in parent.glob(f'{_SCRATCH}*'):
    with contextlib.suppress(OSError, errors.UserError):  # in use, gone meanwhile, or not ours
      if path.lstat().st_uid == os.getuid() and (path / _SCRATCH_LOCK).is_file():
        with lock(path, f'{path} is in use.', _SCRATCH_LOCK):
          shutil.rmtree(path, ignore_errors=True)


def recover(parent: Path) -> None:
  """Restores or removes the backups that killed launchers have left in `parent`."""
  for backup in sorted(parent.glob(f'.*{_BACKUP}')):
    path = parent / backup.name.removeprefix('.').removesuffix(_BACKUP)
    with contextlib.suppress(errors.UserError), TrialFolder(path):
      pass  # a trial that is in use has recovered its backup by itself


class TrialFolder:
  """Locks a trial's folder against a second writer.

  With `replace` it backs up an earlier trial, which stays locked. The backup is removed once the
  new trial has a row beyond step 0, or is over. A backup that a killed launcher has left is
  restored or removed by the same rule.

  Raises:
    UserError: the folder cannot be written, or another process holds it.
  """

  def __init__(self, path: Path, *, replace: bool = False):
    self._path = path
    self._replace = replace
    self._backup = backup_of(path)
    self._made: list[Path] = []  # parents that were missing before, the innermost first
    self._lock: IO[str] | None = None
    self._backup_lock: IO[str] | None = None
    self._taken = f'Another process is running a trial in {path}; wait for it or end it first.'

  def __enter__(self) -> Self:
    try:
      self._made = [folder for folder in self._path.parents if not folder.exists()]
      self._path.mkdir(parents=True, exist_ok=True)
      self._lock = lock(self._path, self._taken)
      if self._backup.exists():
        self._backup_lock = lock(self._backup, self._taken)
        if self._has_rows():
          self.forget_replaced()
        else:
          self._restore()
      if self._replace and any(entry.name != _LOCK_FILE for entry in self._path.iterdir()):
        self._back_up()
    except OSError as error:
      self._unlock()
      raise errors.UserError(
        f'The trial folder must be writable; {self._path}: {error.strerror}.'
      ) from None
    except BaseException:
      self._unlock()
      raise
    return self

  def __exit__(self, *exception: object) -> None:
    self._unlock()

  def is_replacing(self) -> bool:
    """Tells whether there is a backup of an earlier trial."""
    return self._backup_lock is not None

  def forget_replaced(self) -> None:
    """Removes the backup of an earlier trial, if there is one."""
    if self._backup_lock is not None:
      shutil.rmtree(self._backup)
      self._backup_lock.close()
      self._backup_lock = None

  def discard_if_empty(self) -> bool:
    """Removes what a trial without any row beyond step 0 has left, and restores its backup.

    Returns:
      False if the trial has such rows: then everything stays.
    """
    if self._has_rows():
      self.forget_replaced()
      return False
    if self.is_replacing():
      self._restore()
      return True
    shutil.rmtree(self._path)
    for folder in self._made:
      try:
        folder.rmdir()
      except OSError:
        break
    return True

  def _has_rows(self) -> bool:
    if not (self._path / measurements.LOG_FILE).exists():
      return False
    return any(row['global_step'] > 0 for row in measurements.read(self._path).in_order)

  def _back_up(self) -> None:
    self._path.rename(self._backup)  # with its lock
    self._lock, self._backup_lock = None, self._lock
    self._path.mkdir(exist_ok=True)
    self._lock = lock(self._path, self._taken)

  def _restore(self) -> None:
    shutil.rmtree(self._path)
    self._backup.rename(self._path)
    if self._lock is not None:
      self._lock.close()
    self._lock, self._backup_lock = self._backup_lock, None

  def _unlock(self) -> None:
    for lock in (self._lock, self._backup_lock):
      if lock is not None:
        lock.close()
    self._lock = self._backup_lock = None
