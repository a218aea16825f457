"""What is known of a set of runs besides the rows of its evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from algorithmic_efficiency.results.race_files import PlannedTrials, Selection, StepCost
from scoring.notes import Note

KEYS = ('submission', 'study', 'workload', 'framework', 'trial')


@dataclass(frozen=True, kw_only=True)
class TrialFiles:
  """What is known of a trial besides its evaluations; unknown values are empty or None.

  Attributes:
    submission: the name that the trial is scored under.
    path: the trial folder.
    status: 'ok', or the kind of the note that says why the trial is not scored as it is.
    num_rows: evaluations that were read.
    recorded: whether the trial has a trial record of ours.
    logged: whether the trial has a log of ours.
    entry: the name that the submission ran under.
    own_study: the folder of its study, by its record.
    host, machine: hashes of hardware and software, and of hardware alone.
    root_seed, seed, trial_seed: the seeds of the race, of the study and of the trial.
    step_sec: the mean seconds of a step, for each batch drawn.
    wall_sec: what a finished trial took, with all that is not scored.
    buckets: the same by bucket of its clock.
    data_wait_sec: for how long its training waited for data.
    hyperparameters: canonical JSON.
    submission_info: what the submission's `submission_info.yml` said, by field.
  """

  submission: str
  study: str
  workload: str
  framework: str
  trial: str
  path: str
  status: str = 'ok'
  num_rows: int = 0
  recorded: bool = False
  logged: bool = False
  entry: str = ''
  own_study: str = ''
  suite: str = ''
  ruleset: str = ''
  batch_size: int | None = None
  stop_reason: str = ''
  reason: str = ''
  host: str = ''
  machine: str = ''
  root_seed: int | None = None
  seed: int | None = None
  trial_seed: int | None = None
  step_sec: float | None = None
  wall_sec: float | None = None
  buckets: Mapping[str, float] = field(default_factory=dict)
  data_wait_sec: float | None = None
  hyperparameters: str = ''
  smoke: bool = False
  definition_hash: str = ''
  suite_hash: str = ''
  suite_file: str = ''
  submission_hash: str = ''
  submission_info: Mapping[str, str] = field(default_factory=dict)
  environment: Mapping[str, Any] | None = None

  @property
  def key(self) -> tuple[str, ...]:
    return (self.submission, self.study, self.workload, self.framework, self.trial)


@dataclass(frozen=True, kw_only=True)
class Runs:
  """All that `load` found besides the rows; hangs on the table as `frame.attrs['runs']`.

  `costs`, `planned` and `selections` are the records of the races that the runs belong to. A
  selection is None where a race has not said which workloads are raced.
  """

  root: str
  trials: tuple[TrialFiles, ...]
  notes: tuple[Note, ...]
  costs: tuple[StepCost, ...] = ()
  planned: tuple[PlannedTrials, ...] = ()
  selections: tuple[Selection | None, ...] = ()

  def __deepcopy__(self, memo: dict) -> Runs:
    return self  # immutable; pandas copies attrs at every step
