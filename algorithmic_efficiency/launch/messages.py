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


class LineBuffer:
  """The receiving end: bytes go in as they come, whole messages come out."""

  def __init__(self) -> None:
    self._rest = b''

  def feed(self, data: bytes) -> list[dict[str, Any]]:
    *lines, self._rest = (self._rest + data).split(b'\n')
    return [json.loads(line) for line in lines]
