"""Checks what a file holds against the record type that says what it should hold.

Every record that comes from a file is read here: JSON in, a checked value out, or one sentence
about what is wrong. The types are dataclasses whose fields have the types below.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from algorithmic_efficiency.results import files

_LONGEST_SEC = 1e10  # three centuries: what is longer was never measured
_SHORTEST_SEC = 1e-9  # what a clock can tell apart
_MOST = 2**53  # beyond it floats, which counts meet in tables, are no longer exact

Seconds = Annotated[float, msgspec.Meta(ge=0, le=_LONGEST_SEC)]
StepSeconds = Annotated[float, msgspec.Meta(ge=_SHORTEST_SEC, le=_LONGEST_SEC)]
Count = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]

_CHECKSUM = 'checksum'

T = TypeVar('T')


class DamagedRecordError(ValueError):
  """A record does not hold what its type says; the message says what was found, and where."""


def convert(value: Any, kind: type[T]) -> T:
  """A decoded JSON value as a record of `kind`; fields that `kind` does not have are left out.

  Raises:
    DamagedRecordError: the value does not fit.
  """
  try:
    return msgspec.convert(value, kind)
  except (msgspec.ValidationError, RecursionError) as error:
    found, _, place = str(error).replace('`', '').partition(' - at $')
    raise DamagedRecordError(f'{place.lstrip(".")}: {found}' if place else found) from None


def with_checksum(fields: Mapping[str, Any]) -> dict[str, Any]:
  """A record with a checksum of its fields, by which a later change of the file is noticed."""
  return {**fields, _CHECKSUM: _checksum(fields)}


def require_unchanged(value: Any) -> None:
  """Checks the checksum of a decoded record, if it has one; older records have none.

  Raises:
    DamagedRecordError: the record is not as it was written.
  """
  if isinstance(value, dict) and _CHECKSUM in value:
    fields = {name: one for name, one in value.items() if name != _CHECKSUM}
    if value[_CHECKSUM] != _checksum(fields):
      raise DamagedRecordError('it is not as it was written: its checksum differs')


def _checksum(fields: Mapping[str, Any]) -> str:
  return hashlib.sha256(files.encode(fields).encode()).hexdigest()[:16]


def read_json(path: Path) -> Any:
  """The JSON value in a file, as `files.decode` gives it.

  Raises:
    FileNotFoundError: there is no such file.
    DamagedRecordError: it cannot be read, or is not JSON.
  """
  try:
    return files.decode(files.read_bytes(path))
  except FileNotFoundError:
    raise
  except OSError as error:
    raise DamagedRecordError(f'it cannot be read: {error.strerror}') from None
  except ValueError as error:
    raise DamagedRecordError(f'it is not JSON: {error}') from None
