"""What a race asks of a launcher.

The folder of runs is the only state: a launcher that was killed is started again, and finds there
and in its queue what is left to do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.launch import pool
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.launch.pool import OnEvent

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class RaceJob:
  """A job of a race: a trial, or the timing of steps of all submissions of a study.

  Attributes:
    name: what it is called in every process that works in the folder of runs.
    job: what it does. Other hosts get it as a pickle.
    framework: the framework of its trials.
    is_trial: False for the timing of steps.
    at_most_sec: wall seconds that it is allowed on a cluster; None if that is not known.
  """

  name: str
  job: pool.Job
  framework: str
  is_trial: bool = True
  at_most_sec: float | None = None


class Launcher(Protocol):
  """Runs the jobs of a race, and hears how they end."""

  def devices(self, asked: Devices, framework: str) -> Devices:
    """Gives the devices that were asked for, with the processes and host threads of a trial.

    Raises:
      UserError: a trial cannot have them here.
    """
    ...

  def num_parallel(self, num_jobs: int) -> int:
    """Gives the number of jobs that run at a time."""
    ...

  def left_running(self, folder: Path) -> Collection[str]:
    """Names the jobs that earlier launchers have left running for a folder of runs.

    Raises:
      UserError: nobody says which they are.
    """
    ...

  def run(
    self, jobs: Sequence[RaceJob], folder: Path, *, on_event: OnEvent, tell: Tell
  ) -> list[Outcome | None]:
    """Runs all jobs, in about their order, and returns their outcomes.

    Jobs that were left running are not started again. An interrupt ends the jobs, and is raised
    once they have ended.

    Args:
      on_event: called in the calling thread.
      tell: called with notices for the user.

    Returns:
      The outcomes in the order of the jobs; None for those that are left running.

    Raises:
      UserError: the jobs cannot be started.
    """
    ...
