"""Event files for TensorBoard, beside the log of the trial."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from algorithmic_efficiency.results import trackers

_NOT_SHOWN = ('global_step', 'preemption_count')


def check() -> None:
  """
  Raises:
    UserError: tensorboardX is not installed.
  """
  trackers.require('tensorboard', 'tensorboardX', 'monitor')


def start(folder: Path, *, resumed_at: int | None = None) -> TensorBoard:
  """Starts a new event file in the trial folder; that of a resumed trial hides all earlier ones."""
  with _without_torch():
    from tensorboardX import event_file_writer
  tracker = TensorBoard(event_file_writer.EventsWriter(str(folder / 'events')))
  if resumed_at is not None:
    tracker.hide_earlier()
  tracker.flush()
  return tracker


class TensorBoard:
  """Writes every number of a row as a scalar of its own, tagged by its column.

  Events are written by the calling thread: `SummaryWriter.flush` does not wait for those that its
  own thread has not yet taken.
  """

  def __init__(self, writer: Any):
    self._writer = writer

  def scalars(self, step: int, values: Mapping[str, float | int]) -> None:
    from tensorboardX.summary import scalar

    for name, value in values.items():
      if name not in _NOT_SHOWN:
        self._write(step=step, summary=scalar(name, value))

  def hide_earlier(self) -> None:
    """Makes TensorBoard drop the events of earlier files."""
    from tensorboardX.proto.event_pb2 import SessionLog

    self._write(step=0, session_log=SessionLog(status=SessionLog.START))

  def flush(self) -> None:
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()

  def _write(self, **fields: Any) -> None:
    from tensorboardX.proto.event_pb2 import Event

    self._writer.write_event(Event(wall_time=time.time(), **fields))


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
  """tensorboardX imports torch where it finds it, for seconds and for nothing that we use."""
  if 'torch' in sys.modules:
    yield
    return
  sys.modules['torch'] = None  # type: ignore[assignment]  # the import system's word for absent
  try:
    yield
  finally:
    del sys.modules['torch']
