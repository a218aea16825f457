"""The records of a trial: the log that all else is derived from, and the trial's own record.

`measurements.jsonl` is append-only, one JSON record a line, the first of them a header. The CSV
files that AlgoPerf's tools read are views of it, written along with it and rebuilt from it on
resume. What a resume undid stays in the log; the reader leaves it out.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from algorithmic_efficiency import csv_table, errors, files
from algorithmic_efficiency.csv_table import CsvTable
from algorithmic_efficiency.files import write_json_atomic

__all__ = ['Row', 'Rows', 'RunLog', 'TrialRecord', 'read', 'read_trial', 'write_json_atomic']

SCHEMA_VERSION = 1
LOG_FILE = 'measurements.jsonl'
EVAL_FILE = 'eval_measurements.csv'
ALL_FILE = 'measurements.csv'
TRIAL_FILE = 'trial.json'

Row = dict[str, float | int]

_ROW_KINDS = ('eval', 'metrics', 'end')

STATUSES = ('running', 'finished', 'failed', 'invalid')
STOP_REASONS = (
  'goals_reached',
  'validation_goal_reached',
  'budget_spent',
  'training_complete',
  'step_limit',
  'diverged',
  'failed',
  'out_of_memory',
  'hard_limit',
  'interrupted',
)


class RunLog:
  """Writes the records of one trial. Every `append_*` returns the line that it wrote.

  Appending takes the same time for the first record and the millionth, unless a row brings a column
  that no row had before: then the CSV file is rewritten.
  """

  def __init__(self, folder: Path, preemption_count: int, rows: Rows):
    self._preemption_count = preemption_count
    self._position = rows.num_lines
    self._log = files.AppendFile(folder / LOG_FILE)
    self._evals = CsvTable(folder / EVAL_FILE, rows.evals)
    self._all = CsvTable(folder / ALL_FILE, rows.in_order)

  @classmethod
  def open(
    cls,
    folder: Path,
    *,
    header: Mapping[str, Any],
    resumed_at: int | None = None,
    preemption_count: int = 0,
    position: int | None = None,
  ) -> RunLog:
    """Starts a log, or, with `resumed_at`, goes on with one that was interrupted.

    Args:
      folder: the trial folder; created if need be.
      header: what the first line holds besides the schema version; unused if there is one already.
      resumed_at: the steps done in the checkpoint that the trial resumes from; 0 starts anew. A
        last line that a killed process left unfinished is cut off.
      preemption_count: how often the trial was resumed; a column of every row.
      position: `position` at the time of the checkpoint: records behind it are undone. Without it,
        those of a larger step are; rows that a submission logs carry the number of steps done
        *before* the step that logs them, so that one of them may then appear twice.

    Raises:
      UserError: there is a log already and `resumed_at` is None, or the folder cannot be written.
    """
    path = folder / LOG_FILE
    files.make_folder(folder)
    if resumed_at is None and path.exists():
      raise errors.UserError(
        f'A trial starts in a folder without a log, and {path} exists; continue it with --resume '
        'or replace it with --overwrite.'
      )
    files.cut_unfinished_line(path)
    if resumed_at == 0 and position is None:
      position = 1
    rows = read(folder) if path.exists() and path.stat().st_size else Rows()
    if resumed_at is not None:
      rows.undo(resumed_at, position)
    log = cls(folder, preemption_count, rows)
    if not rows.num_lines:
      log._write(header, kind='header', schema=SCHEMA_VERSION, time=time.time())
    if resumed_at is not None:
      log._write(
        {},
        kind='resumed_at',
        global_step=resumed_at,
        position=position,
        preemption_count=preemption_count,
        time=time.time(),
      )
    return log

  @property
  def position(self) -> int:
    """The number of records so far: what a checkpoint keeps, to say which rows it knows of."""
    return self._position

  def append_eval(self, row: Mapping[str, float | int], global_step: int) -> str:
    """Writes the result of an evaluation.

    Raises:
      TypeError: a value is not a number.
      UserError: the file could not be written; so it is for the other methods.
    """
    full, line = self._row('eval', row, global_step)
    self._evals.append(full)
    self._all.append(full)
    return line

  def append_metrics(self, row: Mapping[str, float | int], global_step: int) -> str:
    """Writes what the submission logged.

    Raises:
      TypeError: a value is not a number.
    """
    full, line = self._row('metrics', row, global_step)
    self._all.append(full)
    return line

  def append_end(self, row: Mapping[str, float | int], global_step: int) -> str:
    """Writes the final row, AlgoPerf's `score` among it.

    Raises:
      TypeError: a value is not a number.
    """
    full, line = self._row('end', row, global_step)
    self._all.append(full)
    return line

  def append_event(self, kind: str, **fields: Any) -> str:
    """Writes something that happened, such as a note or an error; a `global_step` dates it."""
    return self._write(fields, kind='event', event=kind, time=time.time())

  def flush(self) -> None:
    """Waits until every record is on the disk; called before a checkpoint that counts on it."""
    self._log.sync()

  def close(self) -> None:
    self._log.close()
    self._evals.close()
    self._all.close()

  def _row(self, kind: str, row: Mapping[str, Any], global_step: int) -> tuple[Row, str]:
    values = {name: _number(name, value) for name, value in row.items()}
    values['global_step'] = int(global_step)
    values['preemption_count'] = self._preemption_count
    return values, self._write({}, kind=kind, row=values)

  def _write(self, fields: Mapping[str, Any], **own: Any) -> str:
    line = files.encode({**own, **fields, **own})
    self._log.append(line.encode() + b'\n')
    self._position += 1
    return line


def _number(name: str, value: Any) -> float | int:
  if type(value) is float or type(value) is int:
    return value
  if hasattr(value, 'item'):  # scalars of numpy and of the frameworks
    value = value.item()
  if isinstance(value, (bool, int)):
    return int(value)
  if isinstance(value, float):
    return float(value)
  raise TypeError(f'A row holds numbers; {name!r} is {type(value).__name__} ({value!r:.60}).')


@dataclass
class Rows:
  """What a log holds, in the order in which it happened and without what a resume undid.

  Rows are flat: the values with `global_step` and `preemption_count`.

  Attributes:
    header: the first record; empty if it is damaged.
    problems: what could not be read: path, line and reason.
    num_lines: complete lines in the file, damaged ones among them.
  """

  header: dict[str, Any] = field(default_factory=dict)
  problems: list[str] = field(default_factory=list)
  num_lines: int = 0
  _records: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

  @property
  def evals(self) -> list[Row]:
    return list(self._of('eval'))

  @property
  def metrics(self) -> list[Row]:
    return list(self._of('metrics'))

  @property
  def in_order(self) -> list[Row]:
    """The rows of all kinds, as `measurements.csv` has them."""
    return list(self._of(*_ROW_KINDS))

  @property
  def end(self) -> Row | None:
    """The final row; None if the trial was interrupted."""
    return next(self._of('end'), None)

  @property
  def events(self) -> list[dict[str, Any]]:
    """What happened, resumptions (`resumed_at`) among it."""
    return [record for _, record in self._records if record['kind'] not in _ROW_KINDS]

  def undo(self, resumed_at: int, position: int | None) -> None:
    """Leaves out what a resume at a step, or at a position in the log, undoes."""

    def stays(index: int, record: dict[str, Any]) -> bool:
      if record['kind'] in ('resumed_at', 'end'):
        return record['kind'] == 'resumed_at'
      step = (record['row'] if record['kind'] in _ROW_KINDS else record).get('global_step')
      if isinstance(step, int) and step > resumed_at:
        return False
      return position is None or index < position or record['kind'] == 'event'

    self._records = [entry for entry in self._records if stays(*entry)]

  def add(self, index: int, record: dict[str, Any]) -> None:
    """Takes the record of line `index`, from 0."""
    if record['kind'] == 'resumed_at':
      position = record.get('position')
      self.undo(record['global_step'], position if isinstance(position, int) else None)
    self._records.append((index, record))

  def _of(self, *kinds: str) -> Iterator[Row]:
    return (record['row'] for _, record in self._records if record['kind'] in kinds)


def read(folder: Path) -> Rows:
  """Reads the log of a trial folder. Damaged lines are reported in `problems` and left out.

  Raises:
    UserError: there is no log, or it was written by a newer version.
  """
  path = folder / LOG_FILE
  try:
    lines = path.read_bytes().split(b'\n')
  except FileNotFoundError:
    raise errors.UserError(f'A trial folder holds {LOG_FILE}; {folder} does not.') from None
  except OSError as error:
    raise errors.UserError(f'{path} could not be read: {error.strerror}.') from error
  rows = Rows(num_lines=len(lines) - 1)
  if lines[-1]:
    rows.problems.append(f'{path}:{len(lines)}: the last line is unfinished; it was left out.')
  for index, line in enumerate(lines[:-1]):
    try:
      record = _checked(files.decode(line))
    except ValueError as error:
      rows.problems.append(f'{path}:{index + 1}: the line is damaged ({error}); it was left out.')
      continue
    if record['kind'] == 'header':
      _require_known_schema(path, record)
      rows.header = record
    else:
      rows.add(index, record)
  if rows.num_lines and not rows.header:
    rows.problems.append(f'{path}:1: there is no header.')
  return rows


def altered_views(folder: Path) -> list[str]:
  """The names of the CSV files that do not hold what the log says; one may also be missing.

  Raises:
    UserError: there is no log.
  """
  rows = read(folder)
  views = ((EVAL_FILE, rows.evals), (ALL_FILE, rows.in_order))
  return [name for name, own in views if _content(folder / name) != csv_table.content(own)]


def _content(path: Path) -> bytes | None:
  try:
    return path.read_bytes()
  except OSError:
    return None


_REQUIRED = {'header': ('schema', int), 'event': ('event', str), 'resumed_at': ('global_step', int)}


def _checked(record: Any) -> dict[str, Any]:
  kind = record.get('kind') if isinstance(record, dict) else None
  if kind in _ROW_KINDS:
    row = record.get('row')
    sound = isinstance(row, dict) and isinstance(row.get('global_step'), int)
  elif isinstance(kind, str) and kind in _REQUIRED:
    name, wanted = _REQUIRED[kind]
    sound = isinstance(record.get(name), wanted)
  else:
    raise ValueError(f'there is no kind of record {kind!r}')
  if not sound:
    raise ValueError(f'a record of kind {kind!r} lacks what it needs')
  return record


def _require_known_schema(path: Path, header: Mapping[str, Any]) -> None:
  if header['schema'] > SCHEMA_VERSION:
    raise errors.UserError(
      f'{path} was written by a newer version (schema {header["schema"]}; this one reads up to '
      f'{SCHEMA_VERSION}); update to read it.'
    )


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
  """What became of a trial: `trial.json`.

  Attributes:
    status, stop_reason: closed sets; a trial that runs has no stop reason.
    reason: why it failed or is invalid, in words.
    charged_steps: as in `runner.Position`.
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
    return cls(**{name: value for name, value in fields.items() if name in known})

  def write(self, folder: Path) -> None:
    """Writes `trial.json`, all or nothing.

    Raises:
      UserError: the file could not be written.
    """
    write_json_atomic(folder / TRIAL_FILE, self.to_json())


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
