"""The folder of a trial: locked while the trial runs, and what it replaces is kept until it has
rows of its own. And folders for trials that leave nothing behind."""

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
_ASIDE = '.replaced'
_SCRATCH = 'algoeff-'
_SCRATCH_LOCK = '.scratch'  # which no folder of results has


def aside_of(path: Path) -> Path:
  """Where the trial in `path` lies while another replaces it: a hidden folder beside it."""
  return path.with_name(f'.{path.name}{_ASIDE}')


def lock(folder: Path, taken: str, name: str = _LOCK_FILE) -> IO[str]:
  """Locks a folder until what is returned is closed, or this process has ended.

  Raises:
    UserError: another process holds it; the message is `taken`.
    OSError: it cannot be written.
  """
  lock = open(folder / name, 'w')  # noqa: SIM115 - held while the caller needs it
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # Between opening and locking it, its holder may have moved it away with its folder.
    if os.path.samestat(os.fstat(lock.fileno()), os.stat(folder / name)):
      return lock
  except OSError:
    pass
  lock.close()
  raise errors.UserError(taken)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
  """A temporary folder, for as long as the block lasts; those that killed processes have left are
  taken away. It is locked before it has the name by which it is looked for."""
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
  """Puts back, or takes away, what launchers that were killed have left aside in `parent`."""
  for aside in sorted(parent.glob(f'.*{_ASIDE}')):
    path = parent / aside.name.removeprefix('.').removesuffix(_ASIDE)
    with contextlib.suppress(errors.UserError), TrialFolder(path):
      pass  # or it is in use, and so as it should be


class TrialFolder:
  """The trial's folder, locked against a second writer.

  With `replace` an earlier trial is put aside, still locked, and is gone for good once the new one
  has a row beyond step 0, or is over. What a launcher that was killed has left aside is put back,
  or taken away, by the same rule.

  Raises:
    UserError: it cannot be written, or another process holds it.
  """

  def __init__(self, path: Path, *, replace: bool = False):
    self._path = path
    self._replace = replace
    self._aside = aside_of(path)
    self._made: list[Path] = []  # parents that were not there before, the innermost first
    self._lock: IO[str] | None = None
    self._lock_aside: IO[str] | None = None
    self._taken = f'Another process is running a trial in {path}; wait for it or end it first.'

  def __enter__(self) -> Self:
    try:
      self._made = [folder for folder in self._path.parents if not folder.exists()]
      self._path.mkdir(parents=True, exist_ok=True)
      self._lock = lock(self._path, self._taken)
      if self._aside.exists():
        self._lock_aside = lock(self._aside, self._taken)
        if self._has_rows():
          self.forget_replaced()
        else:
          self._put_back()
      if self._replace and any(entry.name != _LOCK_FILE for entry in self._path.iterdir()):
        self._put_aside()
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
    """Whether an earlier trial lies aside."""
    return self._lock_aside is not None

  def forget_replaced(self) -> None:
    """Takes away the earlier trial, if there is one."""
    if self._lock_aside is not None:
      shutil.rmtree(self._aside)
      self._lock_aside.close()
      self._lock_aside = None

  def discard_if_empty(self) -> bool:
    """Takes away what a trial that never got beyond its first step has left, so that the next
    attempt finds nothing in its way, or what it was to replace; False if it got further."""
    if self._has_rows():
      self.forget_replaced()
      return False
    if self.is_replacing():
      self._put_back()
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

  def _put_aside(self) -> None:
    self._path.rename(self._aside)  # with its lock
    self._lock, self._lock_aside = None, self._lock
    self._path.mkdir(exist_ok=True)
    self._lock = lock(self._path, self._taken)

  def _put_back(self) -> None:
    shutil.rmtree(self._path)
    self._aside.rename(self._path)
    if self._lock is not None:
      self._lock.close()
    self._lock, self._lock_aside = self._lock_aside, None

  def _unlock(self) -> None:
    for lock in (self._lock, self._lock_aside):
      if lock is not None:
        lock.close()
    self._lock = self._lock_aside = None
