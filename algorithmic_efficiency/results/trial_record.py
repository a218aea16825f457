"""The record of a trial, `trial.json`: what was run, how it ended and what it took."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import msgspec

from algorithmic_efficiency import errors
from algorithmic_efficiency.results import files, former_names, schema
from algorithmic_efficiency.results.schema import Count, Seconds

SCHEMA_VERSION = 1
TRIAL_FILE = 'trial.json'
POINT_FILE = 'hparams.json'

Status = Literal['running', 'finished', 'failed', 'invalid']
StopReason = Literal[
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
]


OptionValue = bool | int | float | str | list[int | str] | None

_Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Point = Mapping[str, _Integer | float | str | bool | list[Any] | dict[str, Any] | None]


class _Devices(TypedDict, total=False):
  num_devices: Count | None
  device_kind: str
  num_threads: Count | None
  versions: dict[str, str]


class _Environment(TypedDict, total=False):
  """The part of an environment that readers take apart; the rest is shown as it is."""

  host_hash: str
  machine_hash: str
  cpu_model: str | None
  devices: _Devices


class KeptParams(TypedDict):
  """Where the parameters of an evaluation are kept: a file of the trial folder, and its size."""

  file: str
  global_step: Count
  num_bytes: Count


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
  """What became of a trial: `trial.json`.

  Attributes:
    status, stop_reason: closed sets; a trial that runs has no stop reason.
    reason: why it failed or is invalid, in words.
    charged_steps: as in `trial.position.Position`.
    step_time_sec: the mean time of a step, with its share of the preparations for evaluation. The
      steps before the second evaluation are left out, if there are others.
    wall_sec, parent_wall_sec: the wall time of the last process of the trial by its own clock (its
      part of the sum of the buckets) and by its parent's.
    num_out_of_memory: how many times in a row, on this host, its memory ended it.
    seeds: named seeds, among them the trial's and its study's.
    buckets: seconds by bucket; they sum to the wall time.
    num_data_workers: processes that made batches, for each process of the trial; None in records of
      former versions.
    data_wait_sec: for how long training waited for batches that were not ready, in the first
      process of the trial. It is part of the buckets, mostly of `data`; None in former records.
    options: evaluation and stopping flags of the command, by flag name; they tell deviations from
      the official rules.
    submission_info: what the submission's `submission_info.yml` says, see `submission_info.facts`.
    suite_file: the file of a user's own suite; '' for a suite of ours.
    peak_memory_bytes: high-water marks by place ('host', 'device').
    kept_params: the parameters that `--keep_params` has kept; None if it has kept none.
    notes: what a reader of the result should know.
    environment: what `environment.collect` says.
  """

  workload: str
  framework: str
  submission: str
  suite: str
  ruleset: str
  study: Count
  trial: Count
  smoke: bool = False
  status: Status = 'running'
  stop_reason: StopReason | None = None
  reason: str = ''
  hyperparameters: Point | None = None
  options: Mapping[str, OptionValue] = field(default_factory=dict)
  batch_size: Count = 0
  global_step: Count = 0
  charged_steps: Count = 0
  submission_time_sec: Seconds = 0.0
  step_time_sec: Seconds | None = None
  wall_sec: Seconds = 0.0
  parent_wall_sec: Seconds | None = None
  num_out_of_memory: Count = 0
  seeds: Mapping[str, int] = field(default_factory=dict)
  buckets: Mapping[str, Seconds] = field(default_factory=dict)
  num_data_workers: Count | None = None
  data_wait_sec: Seconds | None = None
  peak_memory_bytes: Mapping[str, Count] = field(default_factory=dict)
  kept_params: KeptParams | None = None
  definition_hash: str = ''
  suite_hash: str = ''
  suite_file: str = ''
  submission_hash: str = ''
  submission_info: Mapping[str, str] = field(default_factory=dict)
  notes: tuple[str, ...] = ()
  environment: Mapping[str, Any] = field(default_factory=dict)
  versions: Mapping[str, str] = field(default_factory=dict)
  schema: int = SCHEMA_VERSION

  def to_json(self) -> dict[str, Any]:
    return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

  @classmethod
  def from_json(cls, value: Any) -> TrialRecord:
    """Checks a decoded `trial.json`. Fields that this version does not know are left out.

    Raises:
      DamagedRecordError: a field is missing, of another type, or not in its closed set.
    """
    record = schema.convert(former_names.renamed_trial(value), cls)
    schema.convert(record.environment, _Environment)
    return record

  def write(self, folder: Path) -> None:
    """Writes `trial.json`, all or nothing.

    Raises:
      UserError: the file could not be written.
    """
    files.write_json_atomic(folder / TRIAL_FILE, schema.with_checksum(self.to_json()))


def read_trial(folder: Path) -> TrialRecord | None:
  """Reads the trial record of a folder; None if there is none.

  Raises:
    UserError: it is damaged.
  """
  path = folder / TRIAL_FILE
  try:
    value = schema.read_json(path)
    schema.require_unchanged(value)
    return TrialRecord.from_json(value)
  except FileNotFoundError:
    return None
  except schema.DamagedRecordError as error:
    raise errors.UserError(
      f'{path} is damaged ({error}); run the trial again with --overwrite.'
    ) from error


def read_point(folder: Path) -> Point | None:
  """Reads the hyperparameters of a trial folder, ours or AlgoPerf's; None for self tuning.

  Raises:
    UserError: the file is damaged.
  """
  path = folder / POINT_FILE
  try:
    value = schema.read_json(path)
    return None if value is None else schema.convert(value, Point)  # type: ignore[type-abstract]
  except FileNotFoundError:
    return None
  except schema.DamagedRecordError as error:
    raise errors.UserError(f'{path} is damaged ({error}); copy it again from the runs.') from error
