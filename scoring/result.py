"""A scored set of runs: what was scored, by which rules, and what came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scoring import profiles
from scoring.notes import Note
from scoring.profiles import Columns
from scoring.rules import ScoringRules
from scoring.runs import Runs
from scoring.time_to_target import Cells

if TYPE_CHECKING:
  import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Result:
  """A scored set of runs.

  Attributes:
    published: the submissions that came with --against.
    outcomes: a row a trial, see `time_to_target.outcomes` and `axis.add_times`.
    times: [submission, workload], medians on the axis before any filter; inf for a miss, NaN
      without runs.
    ratios: [submission, base workload], after the filters; inf for a miss.
    scores: [submission], from 0 to 1.
    reference: the submission that ratios are taken against; None for the fastest of each workload.
    runs: None for a table of evaluations that was not loaded from files.
  """

  rules: ScoringRules
  submissions: tuple[str, ...]
  workloads: tuple[str, ...]
  published: tuple[str, ...]
  outcomes: pd.DataFrame
  cells: Cells
  columns: Columns
  times: np.ndarray
  ratios: np.ndarray
  scores: np.ndarray
  reference: str | None
  notes: tuple[Note, ...]
  runs: Runs | None

  @property
  def base(self) -> tuple[str, ...]:
    return tuple(self.workloads[index] for index in self.columns.base)

  @property
  def ranking(self) -> list[int]:
    """Positions of the submissions by falling score; equal scores by name."""
    return sorted(
      range(len(self.submissions)), key=lambda s: (-self.scores[s], self.submissions[s])
    )

  def rank(self, submission: int) -> int:
    """The place of a submission, from 1; submissions with equal scores share it."""
    return 1 + int(np.sum(self.scores > self.scores[submission]))

  def score_options(self) -> dict[str, Any]:
    """Returns the keyword arguments with which `profiles.scores` gives these scores."""
    reference = None if self.reference is None else self.submissions.index(self.reference)
    return {
      'max_ratio': self.rules.suite.max_ratio,
      'integral': self.rules.integral,
      'reference': reference,
    }

  def profile(self) -> np.ndarray:
    """[submission, point] on `profiles.NUM_POINTS` points from 1 to the cut-off."""
    return profiles.profile(self.ratios, self.columns.num_counted, self.rules.suite.max_ratio)

  def time_table(self) -> pd.DataFrame:
    """Time to target: a row a submission, a column a workload, inf for a miss."""
    import pandas as pd

    values = np.where(np.isnan(self.times), np.inf, self.times)
    index = pd.Index(self.submissions, name='submission')
    return pd.DataFrame(values, index=index, columns=list(self.workloads))
