"""Runs the jobs of a race on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.launch import pool
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.launch.pool import OnEvent
from algorithmic_efficiency.launch.slots import Slot, slots
from algorithmic_efficiency.launchers.launcher import RaceJob, Tell


@dataclass(frozen=True, kw_only=True)
class LocalLauncher:
  """Runs one job at a time in each slot of this machine; none outlives the launcher.

  Attributes:
    asked: the devices of one trial.
    num_workers: the number of slots; None takes one, or one for each group of GPUs.
  """

  asked: Devices
  num_workers: int | None = None

  def _slots(self) -> tuple[Slot, ...]:
    return slots(self.asked, self.num_workers)

  def devices(self, asked: Devices, framework: str) -> Devices:
    return self._slots()[0].devices(asked, framework)  # they are all alike

  def num_parallel(self, num_jobs: int) -> int:
    return len(self._slots())

  def left_running(self, folder: Path) -> tuple[str, ...]:
    return ()

  def run(
    self, jobs: Sequence[RaceJob], folder: Path, *, on_event: OnEvent, tell: Tell
  ) -> list[Outcome | None]:
    return [*pool.run([one.job for one in jobs], slots=self._slots(), on_event=on_event)]
