"""Downloads files, continues partial downloads, and verifies checksums."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.results import files

_BLOCK_BYTES = 1 << 18
_TIMEOUT_SEC = 30.0
_NUM_TRIES = 4  # consecutive tries without a new byte
_PAUSE_SEC = 1.0  # after the first such try; doubles with each further one
_PARTIAL_SUFFIX = '.part'
_CONTENT_RANGE = re.compile(r'bytes (\d+)-')

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class Download:
  """A file to download.

  Attributes:
    name: file name on this disk.
    urls: addresses to try in order, the official one first.
    sha256: SHA-256 of the content, in hexadecimal.
    num_bytes: size of the content.
  """

  name: str
  urls: tuple[str, ...]
  sha256: str
  num_bytes: int


class _Unusable(Exception):
  """This URL failed; another may work."""


def fetch(
  download: Download,
  folder: Path,
  progress: Progress,
  *,
  pause_sec: float = _PAUSE_SEC,
  timeout_sec: float = _TIMEOUT_SEC,
) -> Path:
  """Downloads a file into a folder and returns its path.

  The URLs are tried in order until one yields the file with the right checksum. A partial download
  is kept, and the next call continues it. The file gets its own name only when its checksum is
  right.

  Args:
    download: the file.
    folder: where to put it.
    progress: called with the name of the file, the bytes so far, and the bytes in total.
    pause_sec: pause in seconds after a failed try; doubles with each further try without a new
      byte.
    timeout_sec: seconds to wait for a silent server.

  Raises:
    UserError: no URL yielded the file, or writing failed.
  """
  target = folder / download.name
  if target.is_file() and _sha256(target) == download.sha256:
    return target
  reasons = []
  for url in download.urls:
    try:
      _fetch_from(url, download, target, progress, pause_sec, timeout_sec)
      return target
    except _Unusable as error:
      reasons.append(f'{url}: {error}')
  raise errors.UserError(
    f'{download.name} could not be fetched ({"; ".join(reasons)}). Repeat the command to continue '
    'the download, or fetch the files in another way and name their folder with --source.'
  )


def _fetch_from(
  url: str,
  download: Download,
  target: Path,
  progress: Progress,
  pause_sec: float,
  timeout_sec: float,
) -> None:
  partial = target.with_name(target.name + _PARTIAL_SUFFIX)
  reason = ''
  num_failures = 0
  while num_failures < _NUM_TRIES:
    if reason:
      time.sleep(pause_sec * 2 ** max(0, num_failures - 1))
    before = _size(partial)
    num_failures += 1
    try:
      _continue(url, download, partial, progress, timeout_sec)
    except urllib.error.HTTPError as error:
      reason = f'the server answers {error.code} {error.reason}'
      if error.code < 500 and error.code not in (408, 416, 429):
        break
    except (OSError, http.client.HTTPException) as error:
      reason = f'the connection failed ({_describe(error)})'
      if _size(partial) > before:
        num_failures = 0
    else:
      size, found = _size(partial), _sha256(partial)
      if found == download.sha256:
        os.replace(partial, target)
        return
      _remove(partial)
      reason = (
        f'its content is not the expected one: {size} bytes with SHA-256 {found}, not '
        f'{download.num_bytes} bytes with {download.sha256}'
      )
  raise _Unusable(reason)


def _continue(
  url: str, download: Download, partial: Path, progress: Progress, timeout_sec: float
) -> None:
  """Downloads the missing bytes of a file, or all of it if the server cannot continue.

  Raises:
    OSError, HTTPException: the connection failed or ended too early.
    UserError: writing failed.
  """
  start = _size(partial)
  progress(download.name, start, download.num_bytes)
  if start == download.num_bytes:
    return
  if start > download.num_bytes:
    _remove(partial)
    start = 0
  # Ask for plain bytes: a compressed answer could be neither continued nor verified.
  headers = {'Accept-Encoding': 'identity'}
  if start:
    headers['Range'] = f'bytes={start}-'
  request = urllib.request.Request(url, headers=headers)
  with urllib.request.urlopen(request, timeout=timeout_sec) as response:
    if not (response.status == 206 and _first_byte(response) == start):
      start = 0
    _write(response, partial, start, download, progress)
  missing = download.num_bytes - _size(partial)
  if missing > 0:
    raise http.client.IncompleteRead(b'', missing)


def _write(
  response: Any, partial: Path, start: int, download: Download, progress: Progress
) -> None:
  done = start
  with _opened(partial, 'ab' if start else 'wb') as file:
    # One byte more than expected shows that it is another file.
    while done <= download.num_bytes and (block := response.read(_BLOCK_BYTES)):
      _write_all(file, block, partial)
      done += len(block)
      progress(download.name, done, download.num_bytes)


def _write_all(file: Any, block: bytes, path: Path) -> None:
  view = memoryview(block)
  try:
    while view:
      view = view[file.write(view) :]
  except OSError as error:
    raise _storage_error(path, error) from error


def _opened(path: Path, mode: str) -> Any:
  try:
    return open(path, mode, buffering=0)
  except OSError as error:
    raise _storage_error(path, error) from error


def _remove(path: Path) -> None:
  try:
    path.unlink()
  except OSError as error:
    raise _storage_error(path, error) from error


def _storage_error(path: Path, error: OSError) -> errors.UserError:
  return files.storage_error(path, error, then='repeat the command')


def _first_byte(response: Any) -> int | None:
  match = _CONTENT_RANGE.match(response.headers.get('Content-Range', ''))
  return int(match.group(1)) if match else None


def _describe(error: Exception) -> str:
  if isinstance(error, http.client.IncompleteRead):
    return f'it ended {error.expected} bytes early'
  return str(getattr(error, 'reason', None) or error) or type(error).__name__


def _size(path: Path) -> int:
  return path.stat().st_size if path.is_file() else 0


def _sha256(path: Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
