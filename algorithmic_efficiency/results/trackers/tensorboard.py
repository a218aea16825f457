"""Event files for TensorBoard, beside the log of the trial."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors

_FLUSH_SEC = 10


def start(folder: Path, *, resumed_at: int | None = None) -> TensorBoard:
  """Starts a new event file in the trial folder.

  Raises:
    UserError: tensorboardX is not installed.
  """
  try:
    with _without_torch():
      from tensorboardX import SummaryWriter
  except ImportError:
    raise errors.UserError(
      '--log tensorboard needs tensorboardX, which is not installed: '
      "pip install 'algorithmic-efficiency[monitor]'."
    ) from None
  purge = None if resumed_at is None else resumed_at + 1
  return TensorBoard(SummaryWriter(str(folder), flush_secs=_FLUSH_SEC, purge_step=purge))


class TensorBoard:
  """Writes every number of a row as a scalar of its own, tagged by its column."""

  def __init__(self, writer: Any):
    self._writer = writer

  def scalars(self, step: int, values: Mapping[str, float | int]) -> None:
    for name, value in values.items():
      if name != 'global_step':
        self._writer.add_scalar(name, value, step)

  def close(self) -> None:
    self._writer.close()


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
