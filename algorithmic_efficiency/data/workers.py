"""Worker processes that make batches, in order, without shared state.

A worker receives the number of a batch and sends its arrays, as raw bytes into newly allocated
memory. Workers are spawned, find the same task folders as the parent, and end with it.
"""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import parent_process
from typing import Any

import numpy as np

from algorithmic_efficiency import trust
from algorithmic_efficiency.benchmark import registry

_IN_FLIGHT = 2  # for each worker: one in progress and one queued
_EXIT_SEC = 5.0


class WorkerError(RuntimeError):
  """A worker process ended before it had sent its batches."""


class Workers:
  """A pool of worker processes that call `make(k)`.

  Args:
    make: picklable function of the batch number, also from a task folder outside the tree.
    num_workers: number of processes.
  """

  def __init__(self, make: Callable[[int], Any], num_workers: int):
    context = multiprocessing.get_context('spawn')
    payload = pickle.dumps(make)
    self._processes: list[Any] = []
    self._connections: list[Connection] = []
    self._outstanding: collections.deque[int] = collections.deque()
    for number in range(num_workers):
      ours, theirs = context.Pipe()
      process = context.Process(
        target=_work,
        args=(theirs, registry.roots()),
        name=f'algoeff-data-{number}',
        daemon=True,
      )
      process.start()
      assert process.pid is not None
      trust.trust_process(process.pid)
      theirs.close()
      self._processes.append(process)
      self._connections.append(ours)
    # Not passed as an argument: if the process dies at once, a payload larger than the pipe blocks.
    for connection in self._connections:
      _tell(connection.send_bytes, payload)

  def results(self, first: int, stop: int | None) -> Iterator[Any]:
    """Yields `make(first)`, `make(first + 1)` and so on, up to but without `stop`.

    An exception of `make` is raised here.

    Raises:
      WorkerError: a worker has died.
    """
    while self._outstanding:  # results of an earlier call that was abandoned
      self._receive(raises=False)
    asked = first
    while True:
      while len(self._outstanding) < _IN_FLIGHT * len(self._processes) and asked != stop:
        self._ask(asked)
        asked += 1
      if not self._outstanding:
        return
      yield self._receive()

  def close(self) -> None:
    """Ends the processes. Idempotent."""
    for process in self._processes:
      process.terminate()
    for process in self._processes:
      process.join(_EXIT_SEC)
      if process.is_alive():
        process.kill()
        process.join()

  def _ask(self, number: int) -> None:
    worker = number % len(self._processes)
    _tell(self._connections[worker].send, number)
    self._outstanding.append(worker)

  def _receive(self, *, raises: bool = True) -> Any:
    worker = self._outstanding.popleft()
    try:
      result, error = _receive(self._connections[worker])
    except (EOFError, OSError) as lost:
      raise self._death(worker) from lost
    if error is not None and raises:
      raise error
    return result

  def _death(self, worker: int) -> WorkerError:
    process = self._processes[worker]
    process.join(_EXIT_SEC)
    return WorkerError(f'The data worker {process.name} ended with exit code {process.exitcode}.')


def _tell(send: Callable[[Any], None], message: Any) -> None:
  # A dead worker is noticed later, when its result is received.
  with contextlib.suppress(OSError):
    send(message)


def _work(connection: Connection, roots: tuple[list[str], list[str]]) -> None:
  """Runs a worker: receives `make`, then numbers, and sends results until the parent closes."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles interrupts
  threading.Thread(target=_end_with_parent, name='algoeff-parent', daemon=True).start()
  _find_tasks(*roots)
  payload = None
  make = None
  answer: tuple[Any, Exception | None]
  while True:
    try:
      payload = connection.recv_bytes() if payload is None else payload
      number = connection.recv()
    except EOFError:
      return
    try:
      make = pickle.loads(payload) if make is None else make
      answer = (make(number), None)
    except Exception as error:  # the parent raises it again
      answer = (None, _portable(error))
    try:
      _send(connection, answer)
    except BrokenPipeError:
      return


def _end_with_parent() -> None:
  parent = parent_process()
  assert parent is not None
  wait([parent.sentinel])
  os._exit(1)


def _find_tasks(roots: list[str], folders: list[str]) -> None:
  registry.pin_own_packages()
  for root in roots:
    registry.add_root(root)
  for folder in folders:
    registry.add_task(folder)
  if roots or folders:
    registry.workloads()  # imports the packages, under whose names functions are pickled


def _portable(error: Exception) -> Exception:
  """Returns the exception with its traceback as a note, or its text if it cannot be pickled."""
  text = ''.join(traceback.format_exception(error))
  try:
    error.add_note(text)
    pickle.loads(pickle.dumps(error))
  except Exception:  # pickling may fail with any error
    return RuntimeError(text)
  return error


def _send(connection: Connection, value: Any) -> None:
  buffers: list[pickle.PickleBuffer] = []
  head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
  views = [buffer.raw() for buffer in buffers]
  connection.send((head, [view.nbytes for view in views]))
  for view in views:
    sent = 0
    while sent < view.nbytes:
      sent += os.write(connection.fileno(), view[sent:])


def _receive(connection: Connection) -> Any:
  head, sizes = connection.recv()
  arrays = [np.empty(size, np.uint8) for size in sizes]
  for array in arrays:
    view = array.data
    filled = 0
    while filled < len(array):
      count = os.readv(connection.fileno(), [view[filled:]])
      if not count:
        raise EOFError
      filled += count
  return pickle.loads(head, buffers=arrays)
