"""Gives the rows of a trial to its trackers, in a thread of the process that started the trial.

A row is sent by the trial as soon as it is written. The thread has a low priority and may use all
CPUs. So a trial waits for no tracker, and shares its CPUs with none where there are others.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from algorithmic_efficiency import errors
from algorithmic_efficiency.results import files, measurements, trackers
from algorithmic_efficiency.results.trackers import Tracker
from algorithmic_efficiency.trial import messages
from algorithmic_efficiency.trial.messages import Message

_NICE = 10


class Relay:
  """Follows a trial during a `with` block, at whose end the trackers have all rows.

  A tracker that fails is told of on standard error, and left out from then on; the log has all
  rows.

  Args:
    folder: the trial folder.
    names: of the trackers; without any, nothing is done.
  """

  def __init__(self, folder: Path, names: Sequence[str]):
    self._folder = folder
    self._names = names
    self._heard: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
    self._thread = threading.Thread(target=self._work)
    self._open: dict[str, Tracker] = {}

  def __enter__(self) -> Self:
    if self._names:
      self._thread.start()
    return self

  def __exit__(self, *exception: object) -> None:
    self._heard.put(None)
    if self._names:
      self._thread.join()

  def take(self, message: Message) -> None:
    """Takes a message of the first process of the trial, and does not wait."""
    if self._names and isinstance(message, (messages.Begin, messages.Row)):
      self._heard.put(message)

  def _work(self) -> None:
    _yield_to_others()
    while (message := self._heard.get()) is not None:
      if isinstance(message, messages.Begin):
        self._start()
      elif isinstance(message, messages.Row):
        record = files.decode(message.line)
        if 'row' in record:
          self._give([record['row']])
      if self._heard.empty():
        self._flush()
    self._flush()
    for name in list(self._open):
      with self._failure(name):
        self._open[name].close()

  def _start(self) -> None:
    """Starts the trackers and gives them the rows from before the process of the trial began."""
    before = measurements.read_before(self._folder)
    resumed_at = before.resumed_at
    for name in self._names:
      with self._failure(name):
        self._open[name] = trackers.open_tracker(name, self._folder, resumed_at=resumed_at)
    self._give(before.in_order)

  def _give(self, rows: Sequence[measurements.Row]) -> None:
    for name in list(self._open):
      with self._failure(name):
        for row in rows:
          self._open[name].scalars(int(row['global_step']), row)

  def _flush(self) -> None:
    for name in list(self._open):
      with self._failure(name):
        trackers.flush(self._open[name])

  @contextlib.contextmanager
  def _failure(self, name: str) -> Iterator[None]:
    """Leaves a tracker out that raises an error in the block: a trial does not end by it."""
    try:
      yield
    except Exception as error:  # trackers are others' code and may raise any
      self._open.pop(name, None)
      text = f'--log {name} ended ({type(error).__name__}: {error}); the log of the trial goes on.'
      print(errors.printable(f'algoeff: {text}'), file=sys.stderr, flush=True)


def _yield_to_others() -> None:
  """Lets the calling thread, and processes that it starts, run on any CPU, at a low priority."""
  if hasattr(os, 'sched_setaffinity'):  # else a thread has no priority of its own
    os.sched_setaffinity(0, os.sched_getaffinity(os.getpid()))
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
