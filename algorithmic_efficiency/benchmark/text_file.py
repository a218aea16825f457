"""Reads text files that users write."""

from __future__ import annotations

from pathlib import Path

from algorithmic_efficiency import errors

_MAX_BYTES = 2**24


def read(path: Path, what: str, maker: str = '') -> str:
  """Returns the text of a file, without the byte order mark that some editors put first.

  Args:
    what: what the file is to be, for messages.
    maker: a command that writes such a file, for messages.

  Raises:
    UserError: the path is no file, or the file cannot be read, is no UTF-8 or is far too large.
  """
  try:
    if path.exists() and not path.is_dir() and not path.is_file():
      raise errors.UserError(f'{what} must be a file; {path} is a pipe or a device.')
    with path.open('rb') as file:
      content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
      raise errors.UserError(f'{what} must be smaller than {_MAX_BYTES:,} bytes; {path} is not.')
    return content.decode('utf-8-sig')
  except OSError as error:
    reason = error.strerror
  except UnicodeDecodeError:
    reason = 'it is not text in UTF-8'
  except ValueError:  # a path with a null character
    reason = 'its name is no path'
  remedy = f' `{maker}` writes one.' if maker else ''
  raise errors.UserError(f'{what} {path} cannot be read: {reason}.{remedy}')
