"""The records of a trial: the log that all else is derived from.

`measurements.jsonl` is append-only, one JSON record a line, the first of them a header. The CSV
files that AlgoPerf's tools read are views of it, written along with it and rebuilt from it on
resume. What a resume undid stays in the log; the reader leaves it out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.results import csv_table, files, schema
from algorithmic_efficiency.results.csv_table import CsvTable
from algorithmic_efficiency.results.schema import Count

SCHEMA_VERSION = 1
LOG_FILE = 'measurements.jsonl'
EVAL_FILE = 'eval_measurements.csv'
ALL_FILE = 'measurements.csv'

Row = dict[str, float | int]

_ROW_KINDS = ('eval', 'metrics', 'end')


class RunLog:
  """Writes the records of one trial. Every `append_*` returns the line that it wrote.

  Appending takes the same time for the first record and the millionth. A row with a column that no
  row had before is an exception: the CSV file is rewritten.

  Attributes:
    restored_steps: the steps of the evaluations that the log had lost.
    num_lost: records before the checkpoint that the log had lost, evaluations among them.
  """

  restored_steps: Sequence[int | float] = ()
  num_lost: int = 0

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
    known: Sequence[Row] = (),
  ) -> RunLog:
    """Starts a log, or, with `resumed_at`, goes on with one that was interrupted.

    Args:
      folder: the trial folder; created if need be.
      header: what the first line holds besides the schema version; unused if there is one already.
      resumed_at: the steps done in the checkpoint that the trial resumes from; 0 starts anew. A
        last line that a killed process left unfinished is cut off.
      preemption_count: how often the trial was resumed; a column of every row.
      position: `position` at the time of the checkpoint; later records are undone. Without it,
        records of a larger step are undone. One logged row may then appear twice, as such a row
        carries the number of steps done *before* the step that logs it.
      known: the evaluations that the checkpoint has. Those that the log has lost, or has otherwise,
        are written again, and stand in `restored_steps`.

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
    num_lost = rows.num_lost(position)
    if resumed_at is not None:
      rows.undo(resumed_at, position)
    restored = rows.restore(known)
    log = cls(folder, preemption_count, rows)
    log.num_lost, log.restored_steps = num_lost, [row['global_step'] for row in restored]
    if not rows.header:
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
    for row in restored:
      log._write({}, kind='eval', row=row, restored=True)
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
    damaged: those that are damaged, by index from 0.
  """

  header: dict[str, Any] = field(default_factory=dict)
  problems: list[str] = field(default_factory=list)
  num_lines: int = 0
  damaged: list[int] = field(default_factory=list)
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

  @property
  def resumed_at(self) -> int | None:
    """The step at which the trial was resumed last; None if it never was."""
    steps = [one['global_step'] for one in self.events if one['kind'] == 'resumed_at']
    return steps[-1] if steps else None

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

  def undo_last_process(self) -> None:
    """Leaves out what was appended since the log was opened last."""
    resumes = [index for index, record in self._records if record['kind'] == 'resumed_at']
    opened = resumes[-1] if resumes else 0
    self._records = [
      entry for entry in self._records if entry[0] <= opened or entry[1].get('restored') is True
    ]

  def add(self, index: int, record: dict[str, Any]) -> None:
    """Takes the record of line `index`, from 0."""
    if record['kind'] == 'resumed_at':
      position = record.get('position')
      self.undo(record['global_step'], position if isinstance(position, int) else None)
    if record['kind'] == 'eval' and record.get('restored') is True:
      self._insert(index, record)
    else:
      self._records.append((index, record))

  def restore(self, known: Sequence[Row]) -> list[Row]:
    """Takes the evaluations of `known` that are missing here or differ; returns those."""
    found = {row['global_step']: _sorted(row) for row in self.evals}
    lost = [row for row in known if found.get(row['global_step']) != _sorted(row)]
    for row in lost:
      self._insert(self.num_lines, {'kind': 'eval', 'row': row})
    return lost

  def _insert(self, index: int, record: dict[str, Any]) -> None:
    """Puts an evaluation where it belongs, instead of another after the same step."""
    step = record['row']['global_step']
    kept = [
      entry
      for entry in self._records
      if entry[1]['kind'] != 'eval' or entry[1]['row']['global_step'] != step
    ]
    later = (
      place
      for place, (_, other) in enumerate(kept)
      if other['kind'] == 'eval' and other['row']['global_step'] > step
    )
    kept.insert(next(later, len(kept)), (index, record))
    self._records = kept

  def num_lost(self, position: int | None) -> int:
    """How many of the first `position` records are damaged or cut off; 0 once that was resumed."""
    resumes = [entry for entry in self._records if entry[1]['kind'] == 'resumed_at']
    if position is None or any(record.get('position') == position for _, record in resumes):
      return 0
    begin = resumes[-1][0] if resumes else 0
    damaged = sum(begin <= index < position for index in self.damaged)
    return damaged + max(0, position - self.num_lines)

  def _of(self, *kinds: str) -> Iterator[Row]:
    return (record['row'] for _, record in self._records if record['kind'] in kinds)


def _sorted(row: Row) -> str:
  """A row as text, by which rows are equal if they have the same numbers, NaN among them."""
  return files.encode(dict(sorted(row.items())))


def read(folder: Path) -> Rows:
  """Reads the log of a trial folder. Damaged lines are reported in `problems` and left out.

  Raises:
    UserError: there is no log, or it was written by a newer version.
  """
  path = folder / LOG_FILE
  try:
    lines = files.read_bytes(path).split(b'\n')
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
      rows.damaged.append(index)
      continue
    if record['kind'] == 'header':
      _require_known_schema(path, record)
      rows.header = record
    else:
      rows.add(index, record)
  if rows.num_lines and not rows.header:
    rows.problems.append(f'{path}:1: there is no header.')
  return rows


def read_before(folder: Path) -> Rows:
  """Reads what the log of a trial held when the last process of the trial opened it.

  Raises:
    UserError: as `read`.
  """
  rows = read(folder)
  rows.undo_last_process()
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
    return files.read_bytes(path)
  except OSError:
    return None


@dataclass(frozen=True, kw_only=True)
class _RowRecord:
  row: dict[str, int | float]

  def __post_init__(self) -> None:
    if not isinstance(self.row.get('global_step'), int):
      raise ValueError('Expected int at row.global_step')


@dataclass(frozen=True, kw_only=True)
class _Header:
  schema: Count
  workload: str = ''
  framework: str = ''
  seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class _Event:
  event: str


@dataclass(frozen=True, kw_only=True)
class _ResumedAt:
  global_step: Count


_TYPES: Mapping[str, type] = {
  **dict.fromkeys(_ROW_KINDS, _RowRecord),
  'header': _Header,
  'event': _Event,
  'resumed_at': _ResumedAt,
}


def _checked(record: Any) -> dict[str, Any]:
  kind = record.get('kind') if isinstance(record, dict) else None
  if not isinstance(kind, str) or kind not in _TYPES:
    raise ValueError(f'there is no kind of record {kind!r}')
  schema.convert(record, _TYPES[kind])
  return record


def _require_known_schema(path: Path, header: Mapping[str, Any]) -> None:
  if header['schema'] > SCHEMA_VERSION:
    raise errors.UserError(
      f'{path} was written by a newer version (schema {header["schema"]}; this one reads up to '
      f'{SCHEMA_VERSION}); update to read it.'
    )
