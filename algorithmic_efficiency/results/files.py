"""Writing records so that a killed process or a full disk never leaves half a file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from algorithmic_efficiency import errors

_TMP_SUFFIX = '.tmp'
_FLOAT = '$float'
_NON_FINITE = ('nan', 'inf', '-inf')
_ADVICE = {
  errno.ENOSPC: 'free some space',
  errno.EDQUOT: 'free some of your quota',
  errno.EFBIG: 'raise the limit on the size of files (ulimit -f), or choose another file system',
  errno.EROFS: 'choose a folder that can be written',
  errno.EACCES: 'choose a folder that you may write to',
  errno.EPERM: 'choose a folder that you may write to',
}


_THEN = 'continue with --resume'


def storage_error(path: Path, error: OSError, *, then: str = _THEN) -> errors.UserError:
  """The message for a file that could not be written: what, where, why, and what to do.

  `then` is how to go on once there is room.
  """
  advice = _ADVICE.get(error.errno or 0, 'look at the disk')
  return errors.UserError(
    f'{path} could not be written: {os.strerror(error.errno or 0)}. What was complete before is '
    f'kept; {advice}, then {then}.'
  )


def make_folder(folder: Path) -> None:
  """Creates a folder and its parents.

  Raises:
    UserError: it cannot be created.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise storage_error(folder, error) from error


def remove(path: Path) -> None:
  """Removes a file, if there is one.

  Raises:
    UserError: it cannot be removed.
  """
  try:
    path.unlink(missing_ok=True)
  except OSError as error:
    raise storage_error(path, error) from error


def sync_folder(folder: Path) -> None:
  """Waits until the names in a folder are on the disk."""
  handle = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
  """Keeps other processes out of the block, which waits until they have left it.

  Args:
    path: of a file that is made for this, and stays.

  Raises:
    UserError: it cannot be made.
  """
  try:
    lock = open(path, 'w')  # noqa: SIM115 - closed below
  except OSError as error:
    raise storage_error(path, error) from error
  with lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True, then: str = _THEN) -> Iterator[BinaryIO]:
  """Opens a file that takes the place of `path` when the block ends without an error.

  Until then `path` is as it was; after an error the new file is removed. `durable` waits until the
  content and the name are on the disk, so that a power failure cannot undo only one of them.

  Raises:
    UserError: the file could not be written.
  """
  temporary = path.with_name(path.name + _TMP_SUFFIX)
  try:
    try:
      with open(temporary, 'wb') as file:
        yield file
        file.flush()
        if durable:
          os.fsync(file.fileno())
      os.replace(temporary, path)
    except BaseException:
      temporary.unlink(missing_ok=True)
      raise
    if durable:
      sync_folder(path.parent)
  except OSError as error:
    raise storage_error(path, error, then=then) from error


def is_leftover(path: Path) -> bool:
  """Whether a killed process left this file behind while it wrote another."""
  return path.name.endswith(_TMP_SUFFIX)


class AppendFile:
  """A file that only grows, by whole pieces, each handed to the operating system at once.

  A process that is killed loses nothing that `append` returned from; a power failure loses nothing
  that `sync` returned from.

  Raises:
    UserError: the file could not be opened.
  """

  def __init__(self, path: Path):
    self._path = path
    try:
      self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
      raise storage_error(path, error) from error

  def append(self, data: bytes) -> None:
    """Appends all of `data`, or nothing.

    Raises:
      UserError: it could not be written.
    """
    written = 0
    try:
      while written < len(data):
        written += os.write(self._handle, data[written:])
    except OSError as error:
      if written:
        os.ftruncate(self._handle, os.fstat(self._handle).st_size - written)
      raise storage_error(self._path, error) from error

  def sync(self) -> None:
    """Waits until everything is on the disk.

    Raises:
      UserError: the disk refuses.
    """
    try:
      os.fsync(self._handle)
    except OSError as error:
      raise storage_error(self._path, error) from error

  def close(self) -> None:
    if self._handle >= 0:
      os.close(self._handle)
      self._handle = -1


def read_bytes(path: str | os.PathLike[str]) -> bytes:
  """The content of a regular file.

  Raises:
    OSError: it cannot be read, or is a folder, a pipe or a device, which might never end.
  """
  handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
  if not stat.S_ISREG(os.fstat(handle).st_mode):
    os.close(handle)
    raise OSError(errno.EINVAL, 'it is not a regular file', str(path))
  with open(handle, 'rb') as file:
    return file.read()


def cut_unfinished_line(path: Path) -> None:
  """Removes what a killed process left of the last line of a file, if there is one.

  Raises:
    UserError: it could not be.
  """
  if not path.exists():
    return
  try:
    with path.open('rb+') as file:
      end = file.seek(0, os.SEEK_END)
      keep = _end_of_last_line(file, end)
      if keep < end:
        file.truncate(keep)
  except OSError as error:
    raise storage_error(path, error) from error


def _end_of_last_line(file: Any, end: int, block: int = 1 << 16) -> int:
  while end > 0:
    start = max(0, end - block)
    file.seek(start)
    found = file.read(end - start).rfind(b'\n')
    if found >= 0:
      return start + found + 1
    end = start
  return 0


def write_json_atomic(path: Path, obj: Any) -> None:
  """Writes `obj` as indented JSON, all or nothing; `encode` says what becomes of odd values.

  Raises:
    UserError: the file could not be written.
  """
  with replacing(path) as file:
    file.write((encode(obj, indent=2) + '\n').encode())


def encode(obj: Any, *, indent: int | None = None) -> str:
  """JSON in which every float comes back exactly from `decode`.

  Numbers that are not finite, for which JSON has no word, become `{"$float": "nan"}`, "inf" and
  "-inf". Scalars and arrays of numpy become numbers and lists, other objects their text.
  """
  try:
    return json.dumps(obj, indent=indent, allow_nan=False)
  except (TypeError, ValueError):
    return json.dumps(_plain(obj), indent=indent, allow_nan=False)


def decode(text: str | bytes) -> Any:
  """The inverse of `encode`.

  Raises:
    ValueError: the text is not JSON, or is nested too deeply.
  """
  if isinstance(text, bytes):
    text = text.decode()
  try:
    return json.loads(text, object_hook=_float_back if _FLOAT in text else None)
  except RecursionError:
    raise ValueError('it is nested too deeply') from None


def _plain(obj: Any) -> Any:
  if obj is None or isinstance(obj, (bool, int, str)):
    return obj
  if isinstance(obj, float):
    return float(obj) if math.isfinite(obj) else {_FLOAT: repr(float(obj))}
  if isinstance(obj, Mapping):
    return {str(key): _plain(value) for key, value in obj.items()}
  if isinstance(obj, (list, tuple, set, frozenset)):
    return [_plain(value) for value in obj]
  import numpy as np

  return _plain(obj.tolist()) if isinstance(obj, (np.generic, np.ndarray)) else str(obj)


def _float_back(obj: dict[str, Any]) -> Any:
  value = obj.get(_FLOAT)
  return float(value) if len(obj) == 1 and value in _NON_FINITE else obj
