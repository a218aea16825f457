"""What a trial's process tells its parent: one JSON object a line, through a pipe of its own."""

from __future__ import annotations

import json
import os
from typing import Any


class Reporter:
  """The sending end, in the trial's process.

  A parent that has gone is not an error here: the process is about to be ended with it.
  """

  def __init__(self, descriptor: int | None):
    self._descriptor = descriptor

  def send(self, kind: str, **fields: Any) -> None:
    if self._descriptor is None:
      return
    data = (json.dumps({'kind': kind, **fields}) + '\n').encode()
    try:
      while data:
        data = data[os.write(self._descriptor, data) :]
    except OSError:
      self._descriptor = None


class GarbledError(Exception):
  """Something else than the trial has written into its pipe."""

  def __init__(self, line: bytes):
    super().__init__(f'what comes through its pipe is no message of the trial: {line[:60]!r}')


class LineBuffer:
  """The receiving end: bytes go in as they come, whole messages come out."""

  def __init__(self) -> None:
    self._rest = b''

  def feed(self, data: bytes) -> list[dict[str, Any]]:
    """
    Raises:
      GarbledError: a line is no message.
    """
    *lines, self._rest = (self._rest + data).split(b'\n')
    return [_message(line) for line in lines]


def _message(line: bytes) -> dict[str, Any]:
  try:
    message = json.loads(line)
  except ValueError:
    raise GarbledError(line) from None
  if not isinstance(message, dict) or 'kind' not in message:
    raise GarbledError(line)
  return message
