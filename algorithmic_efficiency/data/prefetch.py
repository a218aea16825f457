"""Prefetches a bounded number of batches in a background thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

from algorithmic_efficiency import trust

_END = object()


class Ahead:
  """Runs an iterator in a thread, at most `depth` items ahead of the consumer.

  `take` raises an exception of the iterator after all items that preceded it.

  Args:
    items: the iterator to run.
    depth: largest number of items ahead.
  """

  def __init__(self, items: Iterator[Any], depth: int):
    self._items = items
    self._free = threading.Semaphore(depth)
    self._ready: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
    self._stop = threading.Event()
    self._thread = threading.Thread(target=self._run, name='algoeff-data', daemon=True)
    self._thread.start()

  def take(self) -> Any:
    """Returns the next item.

    Raises:
      StopIteration: there are no more items.
    """
    item, error = self._ready.get()
    if error is not None:
      raise error
    if item is _END:
      raise StopIteration
    self._free.release()
    return item

  def close(self) -> None:
    """Ends the thread after its current item."""
    self._stop.set()
    self._free.release()
    self._thread.join()

  def _run(self) -> None:
    trust.trust_this_thread()
    while True:
      self._free.acquire()
      if self._stop.is_set():
        return
      try:
        item = next(self._items, _END)
      except BaseException as error:  # `take` raises it in the thread that asked
        self._ready.put((None, error))
        return
      self._ready.put((item, None))
      if item is _END:
        return
