"""How long the jobs of a race may run on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from algorithmic_efficiency.experiments.race.trial_estimate import rules_of
from algorithmic_efficiency.results import race_files
from algorithmic_efficiency.trial.config import TrialConfig

TIMING_SEC = 3600.0
"""For the timing of steps of all submissions of a study, which takes minutes."""

_FACTOR = 2.0  # another node may be slower, and evaluations take time besides the budget
_START_SEC = 600.0  # for a container and a file system that are cold


@dataclass(frozen=True, kw_only=True)
class TimeLimits:
  """The limits that follow from the cost estimate of a race, or from its budgets.

  Attributes:
    estimates: the most seconds of a trial by submission, workload and framework.
  """

  estimates: Mapping[tuple[str, str, str], float]

  def of_trial(self, config: TrialConfig) -> float | None:
    """Gives the seconds that a trial may take; None if neither estimate nor budget says it."""
    at_most = self.estimates.get((config.submission, config.workload, config.framework))
    if at_most is None:
      at_most = rules_of(config).max_sec
    return None if at_most is None else _FACTOR * at_most + _START_SEC


def time_limits(runs: Path) -> TimeLimits:
  """Reads the cost estimate of the runs in a folder, if there is one.

  Raises:
    UserError: it is damaged.
  """
  return TimeLimits(
    estimates={
      (one.submission, one.workload, one.framework): one.at_most_sec
      for one in race_files.read_estimate(runs)
    }
  )
