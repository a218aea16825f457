"""The records of a race, beside its runs: what it was planned to take, and what a step costs.

`plan.json` is written when the race begins. `costs.jsonl` is append-only, one measurement a line.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.results import files, former_names

COSTS_FILE = 'costs.jsonl'
PLAN_FILE = 'plan.json'

Round = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class StepCost:
  """What a step of a submission costs in units of the baseline's, found in one study.

  Attributes:
    submission: as it is scored; where it is the baseline itself, a second process of the baseline
      was measured, and what its cost differs from 1 by is noise.
    host: the hash of what both ran on.
    rounds: seconds of a step of the baseline before, of the submission, of the baseline after.
    hashes: of the files of both, by name; empty in a record that does not say.
  """

  submission: str
  baseline: str
  workload: str
  framework: str
  study: int
  host: str
  rounds: tuple[Round, ...]
  hashes: Mapping[str, str] = field(default_factory=dict)

  @property
  def log_cost(self) -> float:
    """The median over the rounds of the logarithm of the ratio; drift within a turn cancels."""
    return statistics.median(
      math.log(own) - (math.log(before) + math.log(after)) / 2 for before, own, after in self.rounds
    )

  @property
  def is_floor(self) -> bool:
    return self.submission == self.baseline

  def is_of(self, hashes: Mapping[str, str]) -> bool:
    """Whether both were measured as they are now: with these files, as far as both know them."""
    return all(hashes.get(name, measured) == measured for name, measured in self.hashes.items())


def append_costs(folder: Path, costs: Iterable[StepCost]) -> None:
  """
  Raises:
    UserError: the file could not be written.
  """
  files.make_folder(folder)
  files.cut_unfinished_line(folder / COSTS_FILE)
  log = files.AppendFile(folder / COSTS_FILE)
  for cost in costs:
    log.append(files.encode(dataclasses.asdict(cost)).encode() + b'\n')
  log.close()


def read_costs(folder: Path) -> tuple[StepCost, ...]:
  """All costs that were measured for the runs in a folder; a line that was cut off counts not.

  Raises:
    UserError: the file cannot be read, or something else is in it.
  """
  path = folder / COSTS_FILE
  try:
    *lines, _ = path.read_text().split('\n')
    return tuple(_cost(files.decode(line)) for line in lines)
  except FileNotFoundError:
    return ()
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise errors.UserError(
      f'{path} is damaged ({error}); remove it, and step times of the runs take its place.'
    ) from None


def _cost(record: dict[str, Any]) -> StepCost:
  fields = former_names.renamed(record, former_names.STEP_COST)
  fields['rounds'] = tuple(tuple(one) for one in fields['rounds'])
  cost = StepCost(**fields)
  if not all(0 < sec < math.inf for turn in cost.rounds for sec in turn) or not cost.rounds:
    raise ValueError('a step that takes no time')
  return cost


@dataclass(frozen=True, kw_only=True)
class PlannedTrials:
  """What the trials of a submission on a workload are expected to take.

  Attributes:
    num_trials: of all studies together.
    at_most_sec: wall seconds of a trial that spends its budget.
    expected_sec: of a trial that stops where trials before it stopped.
    off_clock_sec: the part of both that is on no trial's clock: until its process has imported the
      core, and after its record was written.
    basis: how it is known where trials stop.
  """

  submission: str
  workload: str
  framework: str
  num_trials: int
  at_most_sec: float
  expected_sec: float
  off_clock_sec: float
  basis: str


def write_plan(folder: Path, trials: Iterable[PlannedTrials]) -> None:
  """
  Raises:
    UserError: the file could not be written.
  """
  files.make_folder(folder)
  files.write_json_atomic(
    folder / PLAN_FILE, {'trials': [dataclasses.asdict(one) for one in trials]}
  )


def read_plan(folder: Path) -> tuple[PlannedTrials, ...]:
  """What the runs in a folder were planned to take; empty if nobody has planned them.

  Raises:
    UserError: the file cannot be read, or something else is in it.
  """
  path = folder / PLAN_FILE
  try:
    return tuple(PlannedTrials(**one) for one in files.decode(path.read_text())['trials'])
  except FileNotFoundError:
    return ()
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise errors.UserError(
      f'{path} is damaged ({error}); remove it, and the estimate of these runs with it.'
    ) from None
