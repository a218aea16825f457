"""What a submission is handed besides its workload: the input queue, and the metrics logger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from algorithmic_efficiency import trust


class InputQueue:
  """An iterator over placed batches that counts how many were drawn.

  Args:
    stream: gives numpy batches, and its own position with `state()`.
    place: puts a batch onto the devices.
  """

  def __init__(self, stream: Any, place: Callable[[Any], Any]):
    self._stream = stream
    self._place = place
    self.num_drawn = 0

  def __iter__(self) -> Iterator[Any]:
    return self

  def __next__(self) -> Any:
    with trust.harness():
      batch = self._place(next(self._stream))
    self.num_drawn += 1
    return batch

  def state(self) -> Any:
    """The position behind the last batch drawn, as the stream restores it."""
    return self._stream.state()


class MetricsLogger:
  """Keeps what a submission logs; device scalars stay on the device until they are written.

  Attributes:
    rows: global step, and number or device scalar by name.
  """

  def __init__(self) -> None:
    self.rows: list[tuple[int, Mapping[str, Any]]] = []

  def append_scalar_metrics(
    self,
    metrics: Mapping[str, Any],
    global_step: int,
    preemption_count: int | None = None,
    is_eval: bool = False,
  ) -> None:
    """Adds one row. AlgoPerf's last two arguments are accepted and not used."""
    self.rows.append((int(global_step), dict(metrics)))

  def finish(self) -> None:
    """Does nothing: the harness writes the rows."""
