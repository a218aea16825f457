"""Writes and reads the zip file of an entry.

Writing gives the same bytes for the same files. Reading trusts nothing: the list of files is
checked before any is unpacked, and each file while it is.
"""

from __future__ import annotations

import hashlib
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from algorithmic_efficiency import errors
from algorithmic_efficiency.entries.verdict import RefusedError
from algorithmic_efficiency.results import files

MAX_PACKED_BYTES = 512 * 2**20
MAX_TOTAL_BYTES = 2 * 2**30  # of all files, unpacked
MAX_FILE_BYTES = 128 * 2**20
MAX_FILES = 50_000
MAX_RATIO = 200  # of the size unpacked to the size packed; tables of numbers stay below 30
_RATIO_FREE_BYTES = 2**20  # small files may be as regular as they like
_MAX_NAME_BYTES = 500
_MAX_PART_BYTES = 200

_FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can state
_MODE = stat.S_IFREG | 0o644
_UNIX = 3
_ENCRYPTED, _UTF8 = 0x1, 0x800
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_BLOCK = 1 << 20
_MAX_DIRECTORY_BYTES = 160 * MAX_FILES  # of the list of files
_END, _END_64 = b'PK\x05\x06', b'PK\x06\x07'
_END_BYTES, _END_64_BYTES = 22, 20


@dataclass(frozen=True, kw_only=True)
class FileHash:
  """What a package states of one of its files."""

  sha256: str
  size: int


def hash_of(content: bytes) -> FileHash:
  """Hashes the content of a file."""
  return FileHash(sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def hash_of_file(path: Path) -> str:
  """Returns the SHA-256 of a file of any size.

  Raises:
    OSError: it cannot be read.
  """
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def write(path: Path, contents: Mapping[str, bytes]) -> None:
  """Writes a zip file, all or nothing. The bytes depend on names and contents alone.

  Raises:
    UserError: the file could not be written.
  """
  with files.replacing(path, then='pack again') as file, zipfile.ZipFile(file, 'w') as archive:
    for name in sorted(contents):
      info = zipfile.ZipInfo(name, _FIXED_TIME)
      info.create_system = _UNIX
      info.external_attr = _MODE << 16
      info.compress_type = zipfile.ZIP_DEFLATED
      archive.writestr(info, contents[name], compresslevel=9)


def check_sizes(sizes: Mapping[str, int]) -> None:
  """Makes sure that files may be packed together.

  Raises:
    RefusedError: they are too many or too large, or a name cannot be unpacked everywhere.
  """
  if len(sizes) > MAX_FILES:
    raise RefusedError('archive', 'package', f'It has {len(sizes)} files, at most {MAX_FILES}.')
  _check_names(list(sizes))
  for name, size in sizes.items():
    if size > MAX_FILE_BYTES:
      raise RefusedError('archive', name, f'It has {_mib(size)}, at most {_mib(MAX_FILE_BYTES)}.')
  total = sum(sizes.values())
  if total > MAX_TOTAL_BYTES:
    text = f'Its files have {_mib(total)}, at most {_mib(MAX_TOTAL_BYTES)}.'
    raise RefusedError('archive', 'package', text)


def unpack(path: Path, folder: Path) -> dict[str, FileHash]:
  """Unpacks a zip file into an empty folder, once its list of files has been checked.

  Returns:
    The hash of each file, by name.

  Raises:
    UserError: there is no such file, or it is no zip file.
    RefusedError: it is not one that `write` makes, or is damaged.
  """
  try:
    with path.open('rb') as file:
      size = file.seek(0, 2)
      if size > MAX_PACKED_BYTES:
        text = f'It has {_mib(size)}, at most {_mib(MAX_PACKED_BYTES)}.'
        raise RefusedError('archive', 'package', text)
      _check_directory(file, size)
      return _unpacked(file, folder)
  except OSError as error:
    raise errors.UserError(f'{path} could not be read: {error.strerror}.') from None
  except UnicodeDecodeError:
    raise RefusedError('archive', 'package', 'A name in it is not valid UTF-8.') from None
  except (zipfile.BadZipFile, NotImplementedError) as error:
    raise errors.UserError(f'An entry is a zip file; {path} is none ({error}).') from None


def _check_directory(file: IO[bytes], size: int) -> None:
  """Makes sure, before it is read, that the list of files is short and all else is files.

  Raises:
    RefusedError: it is not.
  """
  file.seek(max(0, size - _END_BYTES - _END_64_BYTES))
  tail = file.read()
  end = tail[-_END_BYTES:]
  if not end.startswith(_END):
    raise zipfile.BadZipFile('it does not end as one')
  num_bytes, start = struct.unpack('<II', end[12:20])
  if tail.startswith(_END_64) or num_bytes > _MAX_DIRECTORY_BYTES:
    raise RefusedError('archive', 'package', f'It lists too many files, at most {MAX_FILES}.')
  if start + num_bytes != size - _END_BYTES:
    raise RefusedError('archive', 'package', 'It holds data that belong to none of its files.')


def _unpacked(file: IO[bytes], folder: Path) -> dict[str, FileHash]:
  with zipfile.ZipFile(file) as archive:
    infos = archive.infolist()
    for info in infos[:MAX_FILES]:
      _check_kind(info)
    check_sizes(_sizes(infos))
    return {info.filename: _extracted(archive, info, folder) for info in infos}


def _sizes(infos: list[zipfile.ZipInfo]) -> dict[str, int]:
  found: dict[str, int] = {}
  for info in infos:
    if info.filename in found:
      raise RefusedError('archive', info.filename, 'The name stands twice.')
    found[info.filename] = info.file_size
  return found


def _check_kind(info: zipfile.ZipInfo) -> None:
  """Makes sure that a member is a regular file, packed in a plain way.

  Raises:
    RefusedError: it is not.
  """
  name, mode = info.filename, info.external_attr >> 16
  if stat.S_ISLNK(mode):
    raise RefusedError('archive', name, 'It is a symbolic link; a package holds files alone.')
  if info.is_dir() or stat.S_IFMT(mode) not in (0, stat.S_IFREG):
    raise RefusedError('archive', name, 'It is no regular file.')
  if info.orig_filename != name or (not name.isascii() and not info.flag_bits & _UTF8):
    raise RefusedError('archive', name, 'Its name is not plain UTF-8.')
  if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS:
    raise RefusedError('archive', name, 'It is encrypted, or packed by a rare method.')
  large = info.file_size > _RATIO_FREE_BYTES
  if large and info.file_size > MAX_RATIO * max(1, info.compress_size):
    text = f'It grows {info.file_size // max(1, info.compress_size)} times when it is unpacked.'
    raise RefusedError('archive', name, f'{text} At most {MAX_RATIO} times is accepted.')


def _check_names(names: list[str]) -> None:
  """Makes sure that every name is a relative path of its own on every file system.

  Raises:
    RefusedError: one is not.
  """
  seen: dict[str, str] = {}
  for name in names:
    fault = _fault(name)
    if fault:
      raise RefusedError('archive', name, fault)
    other = seen.setdefault(name.casefold(), name)
    if other != name:
      raise RefusedError('archive', name, f'It differs from {other} in upper and lower case alone.')
  for name in names:
    for parent in PurePosixPath(name).parents:
      if str(parent).casefold() in seen:
        raise RefusedError('archive', name, f'{parent} is both a file and a folder.')


def _fault(name: str) -> str:
  """What is wrong with the name of a file; '' if nothing is."""
  parts = name.split('/')
  if name.startswith('/') or (len(name) > 1 and name[1] == ':'):
    return 'Its path is absolute.'
  if '..' in parts:
    return 'Its path climbs out of the package.'
  if '' in parts or '.' in parts or '\\' in name:
    return 'Its path is not in its plain form.'
  if not name.isprintable() or unicodedata.normalize('NFC', name) != name:
    return 'Its name has characters that are not printable, or not in their plain form.'
  try:
    size = len(name.encode())
  except UnicodeEncodeError:
    return 'Its name is not valid text.'
  if size > _MAX_NAME_BYTES or any(len(part.encode()) > _MAX_PART_BYTES for part in parts):
    return 'Its name is too long.'
  return ''


def _extracted(archive: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path) -> FileHash:
  """Writes one file below a folder and returns its hash."""
  target = folder / info.filename
  target.parent.mkdir(parents=True, exist_ok=True)
  digest, size = hashlib.sha256(), 0
  try:
    with archive.open(info) as source, target.open('xb') as file:
      while block := source.read(_BLOCK):
        size += len(block)
        if size > info.file_size:
          raise RefusedError('archive', info.filename, 'It holds more than it states.')
        digest.update(block)
        file.write(block)
  except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
    raise RefusedError('archive', info.filename, f'It is damaged ({error}).') from None
  if size != info.file_size:
    raise RefusedError('archive', info.filename, 'It holds less than it states.')
  return FileHash(sha256=digest.hexdigest(), size=size)


def _mib(size: int) -> str:
  return f'{size / 2**20:.1f} MiB'
