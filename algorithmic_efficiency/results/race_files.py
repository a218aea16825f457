"""The records of a race, beside its runs: its workloads, the cost estimate, and what a step costs.

`race.json` and `cost_estimate.json` are written when the race begins. `costs.jsonl` is append-only,
one measurement a line.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from algorithmic_efficiency import errors
from algorithmic_efficiency.results import files, former_names, schema
from algorithmic_efficiency.results.schema import Count, Seconds, StepSeconds

COSTS_FILE = 'costs.jsonl'
ESTIMATE_FILE = 'cost_estimate.json'
SELECTION_FILE = 'race.json'
SCORES_FOLDER = 'scores'  # of tables and report, unless another one is given
OWN_NAMES = (SCORES_FOLDER, SELECTION_FILE, ESTIMATE_FILE, COSTS_FILE)  # not those of submissions

Round = tuple[StepSeconds, StepSeconds, StepSeconds]


@dataclass(frozen=True, kw_only=True)
class StepCost:
  """What a step of a submission costs in units of the baseline's, measured in one study.

  Attributes:
    submission: the name that the submission ran under. If it is the baseline itself, a second
      process of the baseline was timed, and the difference of its cost from 1 is noise.
    host: the hash of the machine and software that both ran on.
    rounds: seconds of a step: the baseline before, the submission, the baseline after.
    period: number of steps after which the work of the submission repeats; None if not known.
    hashes: hashes of the files of both, by name; empty in a record that does not say.
    machine: hash of the host without its devices; empty in a record that does not say.
  """

  submission: str
  baseline: str
  workload: str
  framework: str
  study: Count
  host: str
  rounds: Annotated[tuple[Round, ...], msgspec.Meta(min_length=1)]
  period: Annotated[int, msgspec.Meta(ge=1)] | None = None
  hashes: Mapping[str, str] = field(default_factory=dict)
  machine: str = ''

  @property
  def step_sec(self) -> float:
    """The mean seconds of a step of the submission."""
    return statistics.fmean(own for _, own, _ in self.rounds)

  @property
  def log_cost(self) -> float:
    """The logarithm of the ratio of total seconds over total steps.

    All bursts of a submission have equally many steps. A linear drift cancels, as each of its
    bursts counts against those of the baseline before and after it.
    """
    unit = statistics.fmean((before + after) / 2 for before, _, after in self.rounds)
    return math.log(self.step_sec / unit)

  @property
  def is_floor(self) -> bool:
    return self.submission == self.baseline

  def is_of(self, hashes: Mapping[str, str]) -> bool:
    """Whether both were measured as they are now: with these files, as far as both know them."""
    return all(hashes.get(name, measured) == measured for name, measured in self.hashes.items())


@dataclass(frozen=True, kw_only=True)
class Selection:
  """What is raced, and by which steps.

  Attributes:
    suite: the name of the suite.
    workloads: None for all that can be scored.
    plain_steps: whether a step counts as one, whatever it costs.
  """

  suite: str
  workloads: tuple[str, ...] | None
  plain_steps: bool = False

  def extended(self, other: Selection | None) -> Selection:
    """The workloads of this race and of another one in its folder together."""
    if other is None or self.workloads is None:
      return self
    if other.workloads is None:
      return dataclasses.replace(self, workloads=None)
    both = tuple(dict.fromkeys((*other.workloads, *self.workloads)))
    return dataclasses.replace(self, workloads=both)


def write_selection(folder: Path, selection: Selection) -> None:
  """Writes `race.json`, all or nothing.

  Raises:
    UserError: the file could not be written.
  """
  files.make_folder(folder)
  files.write_json_atomic(folder / SELECTION_FILE, dataclasses.asdict(selection))


def read_selection(folder: Path) -> Selection | None:
  """Reads what is raced in a folder of runs; None if no race has said so.

  Raises:
    UserError: the file cannot be read, or something else is in it.
  """
  path = folder / SELECTION_FILE
  try:
    return schema.convert(schema.read_json(path), Selection)
  except FileNotFoundError:
    return None
  except schema.DamagedRecordError as error:
    raise errors.UserError(
      f'{path} is damaged ({error}); remove it, and all workloads of the suite are scored.'
    ) from None


def append_costs(folder: Path, costs: Iterable[StepCost]) -> None:
  """Appends costs to `costs.jsonl`; an unfinished line before them is cut off.

  Processes of several hosts may do so at the same time.

  Raises:
    UserError: the file could not be written.
  """
  files.make_folder(folder)
  with files.alone(folder / f'.{COSTS_FILE}.lock'):
    files.cut_unfinished_line(folder / COSTS_FILE)
    log = files.AppendFile(folder / COSTS_FILE)
    for cost in costs:
      log.append(files.encode(schema.with_checksum(dataclasses.asdict(cost))).encode() + b'\n')
    log.close()


def read_costs(folder: Path) -> tuple[StepCost, ...]:
  """Reads all costs that were measured for the runs in a folder; an unfinished line is left out.

  Raises:
    UserError: the file cannot be read, or something else is in it.
  """
  path = folder / COSTS_FILE
  try:
    *lines, _ = files.read_bytes(path).split(b'\n')
    return tuple(_cost(files.decode(line)) for line in lines)
  except FileNotFoundError:
    return ()
  except (OSError, ValueError) as error:
    raise errors.UserError(
      f'{path} is damaged ({error}); remove it, and step times of the runs take its place.'
    ) from None


def _cost(value: Any) -> StepCost:
  schema.require_unchanged(value)
  return schema.convert(former_names.renamed(value, former_names.STEP_COST), StepCost)


@dataclass(frozen=True, kw_only=True)
class PlannedTrials:
  """What the trials of a submission on a workload are expected to take.

  Attributes:
    num_trials: the number in all studies together.
    at_most_sec: wall seconds of a trial that spends its budget.
    expected_sec: wall seconds of a trial that stops where trials before it stopped.
    off_clock_sec: the part of both that no trial's clock measures: until its process has imported
      the core, and after its record was written.
    basis: how it is known where trials stop.
  """

  submission: str
  workload: str
  framework: str
  num_trials: Count
  at_most_sec: Seconds
  expected_sec: Seconds
  off_clock_sec: Seconds
  basis: str


@dataclass(frozen=True, kw_only=True)
class _CostEstimate:
  trials: tuple[PlannedTrials, ...]


def write_estimate(folder: Path, trials: Iterable[PlannedTrials]) -> None:
  """Writes `cost_estimate.json`, all or nothing.

  Raises:
    UserError: the file could not be written.
  """
  files.make_folder(folder)
  files.write_json_atomic(
    folder / ESTIMATE_FILE, {'trials': [dataclasses.asdict(one) for one in trials]}
  )


def read_estimate(folder: Path) -> tuple[PlannedTrials, ...]:
  """Reads what the runs in a folder were estimated to take; empty without an estimate.

  Raises:
    UserError: the file cannot be read, or something else is in it.
  """
  for name in (ESTIMATE_FILE, former_names.ESTIMATE_FILE):
    path = folder / name
    try:
      return schema.convert(schema.read_json(path), _CostEstimate).trials
    except FileNotFoundError:
      continue
    except schema.DamagedRecordError as error:
      raise errors.UserError(
        f'{path} is damaged ({error}); remove it, and the estimate of these runs with it.'
      ) from None
  return ()
