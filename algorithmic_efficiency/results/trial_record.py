"""The record of a trial, `trial.json`: what was run, how it ended and what it took."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.results import files, former_names

SCHEMA_VERSION = 1
TRIAL_FILE = 'trial.json'

STATUSES = ('running', 'finished', 'failed', 'invalid')
STOP_REASONS = (
  'targets_reached',
  'validation_target_reached',
  'budget_spent',
  'training_complete',
  'step_limit',
  'diverged',
  'failed',
  'out_of_memory',
  'heartbeat_timeout',
  'interrupted',
)


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
  """What became of a trial: `trial.json`.

  Attributes:
    status, stop_reason: closed sets; a trial that runs has no stop reason.
    reason: why it failed or is invalid, in words.
    charged_steps: as in `trial.loop.Position`.
    step_time_sec: the median time of a step, with its share of the preparations for evaluation.
    wall_sec, parent_wall_sec: the wall time of the last process of the trial by its own clock (its
      part of the sum of the buckets) and by its parent's.
    num_out_of_memory: how many times in a row, on this host, its memory ended it.
    seeds: named seeds, among them the trial's and its study's.
    buckets: seconds by bucket; they sum to the wall time.
    options: what the trial was spared or not, by the names of the command's flags.
    peak_memory_bytes: high-water marks by place ('host', 'device').
    notes: what a reader of the result should know.
    environment: what `environment.collect` says.
  """

  workload: str
  framework: str
  submission: str
  suite: str
  ruleset: str
  study: int
  trial: int
  smoke: bool = False
  status: str = 'running'
  stop_reason: str | None = None
  reason: str = ''
  hyperparameters: Mapping[str, Any] | None = None
  options: Mapping[str, Any] = field(default_factory=dict)
  batch_size: int = 0
  global_step: int = 0
  charged_steps: int = 0
  submission_time_sec: float = 0.0
  step_time_sec: float | None = None
  wall_sec: float = 0.0
  parent_wall_sec: float | None = None
  num_out_of_memory: int = 0
  seeds: Mapping[str, int] = field(default_factory=dict)
  buckets: Mapping[str, float] = field(default_factory=dict)
  peak_memory_bytes: Mapping[str, int] = field(default_factory=dict)
  definition_hash: str = ''
  suite_hash: str = ''
  submission_hash: str = ''
  notes: tuple[str, ...] = ()
  environment: Mapping[str, Any] = field(default_factory=dict)
  versions: Mapping[str, str] = field(default_factory=dict)
  schema: int = SCHEMA_VERSION

  def __post_init__(self) -> None:
    if self.status not in STATUSES:
      raise ValueError(f'status is one of {STATUSES}; it is {self.status!r}.')
    if self.stop_reason is not None and self.stop_reason not in STOP_REASONS:
      raise ValueError(f'stop_reason is one of {STOP_REASONS}; it is {self.stop_reason!r}.')
    object.__setattr__(self, 'notes', tuple(self.notes))

  def to_json(self) -> dict[str, Any]:
    return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> TrialRecord:
    """Fields that this version does not know are left out.

    Raises:
      ValueError, TypeError: a field is missing or not in its closed set.
    """
    known = {f.name for f in dataclasses.fields(cls)}
    current = former_names.renamed_trial(fields)
    return cls(**{name: value for name, value in current.items() if name in known})

  def write(self, folder: Path) -> None:
    """Writes `trial.json`, all or nothing.

    Raises:
      UserError: the file could not be written.
    """
    files.write_json_atomic(folder / TRIAL_FILE, self.to_json())


def read_trial(folder: Path) -> TrialRecord | None:
  """The trial record of a folder; None if there is none.

  Raises:
    UserError: it is damaged.
  """
  path = folder / TRIAL_FILE
  try:
    return TrialRecord.from_json(files.decode(path.read_bytes()))
  except FileNotFoundError:
    return None
  except (ValueError, TypeError, AttributeError) as error:
    raise errors.UserError(
      f'{path} is damaged ({error}); run the trial again with --overwrite.'
    ) from error
