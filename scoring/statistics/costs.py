"""What the runs took, in accelerator-hours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from scoring.leaderboard import Result


@dataclass(frozen=True, kw_only=True)
class Cost:
  """Hours times accelerators: inside the submission, in evaluations, and all with the logging.

  What trials spent after their last evaluation, and on setting up, is in no log and not counted.
  """

  submission: str
  submission_hours: float
  eval_hours: float
  total_hours: float
  num_accelerators: int


def of(result: Result) -> tuple[Cost, ...]:
  """In the order of the ranking."""
  count = result.rules.suite.num_accelerators
  table = result.outcomes
  found = []
  for s in result.ranking:
    rows = table[table.submission == result.submissions[s]]
    seconds = [float(rows[name].sum()) for name in ('total_sec', 'eval_sec', 'logging_sec')]
    hours = [value * count / 3600 for value in seconds]
    found.append(
      Cost(
        submission=result.submissions[s],
        submission_hours=hours[0],
        eval_hours=hours[1],
        total_hours=sum(hours),
        num_accelerators=count,
      )
    )
  return tuple(found)
