"""What a submission is handed besides its workload: the input queue, and the metrics logger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import Any

from algorithmic_efficiency import trust


class InputQueue:
  """An iterator over placed batches that counts how many were drawn.

  No batch is placed ahead. Copies to a device are asynchronous in both frameworks, and the host is
  up to `step_timer.MAX_IN_FLIGHT` steps ahead of it. So a batch is on its way while earlier steps
  compute. Placing ahead could only hide what the host does itself. In PyTorch that is a copy into
  pinned memory: a measurement on a GPU should compare its time with that of a step.

  Args:
    stream: the batches of the training split, as `streams.train_stream` returns them.
    place: puts a batch onto the devices.

  Attributes:
    num_drawn: batches drawn, of the training split and of single sources.
    wait_sec: seconds for which training waited for a batch that was not ready. Without workers, it
      is the time in which the batches were made.
  """

  def __init__(self, stream: Any, place: Callable[[Any], Any]):
    self._stream = stream
    self._place = place
    self.num_drawn = 0
    self.wait_sec = 0.0

  def __iter__(self) -> Iterator[Any]:
    return self

  def __next__(self) -> Any:
    return self._draw(self._stream.__next__)

  def source(self, name: str) -> Iterator[Any]:
    """Returns an iterator over batches of one source of a mixture.

    They have the size of the other batches, count as drawn like them, and come in shuffled epochs
    of their own. The position of each source is saved and restored.

    Raises:
      UserError: the workload has no such source.
    """
    with trust.harness():
      self._stream.open_source(name)
    return iter(lambda: self._draw(lambda: self._stream.next_of(name)), None)

  def _draw(self, take: Callable[[], Any]) -> Any:
    with trust.harness():
      begin = perf_counter()
      batch = take()
      self.wait_sec += perf_counter() - begin
      batch = self._place(batch)
    self.num_drawn += 1
    return batch

  def pause(self) -> None:
    """Drops batches made ahead, and waits until no data worker runs; the position stays."""
    self._stream.pause()

  def state(self) -> dict[str, Any]:
    """The position behind the last batch drawn, and what was waited until then."""
    return {**self._stream.state(), 'wait_sec': self.wait_sec}

  def restore(self, state: dict[str, Any]) -> None:
    """Continues from what `state` returned, also in an older version."""
    self._stream.restore(state)
    self.wait_sec = state.get('wait_sec', 0.0)


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
