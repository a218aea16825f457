"""Reads TFRecord files without TensorFlow.

A record is its length (uint64), a checksum of that (uint32), the content, and a checksum of the
content (uint32), all little-endian. The checksums are not compared: lengths must add up, and who
reads compares the number of records.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from algorithmic_efficiency import errors

_HEAD = struct.Struct('<QI')
_TAIL_BYTES = 4


def contents(path: Path) -> Iterator[bytes]:
  """Yields the content of each record of a file.

  Raises:
    UserError: the file is missing or damaged.
  """
  try:
    left = path.stat().st_size
    with path.open('rb') as file:
      while left:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
          raise _damaged(path, 'a record begins too late')
        size, _ = _HEAD.unpack(head)
        left -= _HEAD.size + size + _TAIL_BYTES
        if left < 0:
          raise _damaged(path, f'a record of {size} bytes ends behind it')
        content = file.read(size)
        file.read(_TAIL_BYTES)
        yield content
  except OSError as error:
    raise _damaged(path, str(error)) from None


def _damaged(path: Path, what: str) -> errors.UserError:
  return errors.UserError(
    f'{path} is truncated, damaged or no TFRecord file ({what}); fetch or copy it again.'
  )
