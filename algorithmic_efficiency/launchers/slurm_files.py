"""What a launcher and its jobs tell each other: files in the folder `.slurm` of the runs.

`arrays.jsonl` says which array runs which jobs. It is written before SLURM gets the array, so that
a launcher killed in between submits nothing twice. A task of an array keeps a journal of the jobs
that it has begun and ended. A task that runs again goes on after the journal's last line. Nobody
needs these files once the array is over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from algorithmic_efficiency import errors
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.results import files
from algorithmic_efficiency.results.trial_record import Status, StopReason

_Line = TypeVar('_Line')

FOLDER = '.slurm'


class Array(msgspec.Struct, frozen=True, kw_only=True):
  """An array of SLURM.

  Attributes:
    name: the name of its tasks in the queue, which no other array has.
    tasks: the names of the jobs that each task runs.
  """

  name: str
  tasks: tuple[tuple[str, ...], ...]


class Ending(msgspec.Struct, frozen=True, kw_only=True):
  """The outcome of a job, but for its folder."""

  folder: str
  status: Status
  stop_reason: StopReason | Literal['']
  reason: str
  parent_wall_sec: float | None = None

  @classmethod
  def of(cls, outcome: Outcome) -> Ending:
    return cls(**{**vars(outcome), 'folder': str(outcome.folder)})

  def outcome(self) -> Outcome:
    return Outcome(**{**msgspec.structs.asdict(self), 'folder': Path(self.folder)})


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
  """A line of a journal.

  Attributes:
    event: what has happened. After 'replaced' the trial has rows of its own, and is continued. A
      task is 'stopped' when SLURM ends it before its jobs are done.
    job: the index of the job in the task.
    has_advanced: whether a task that was stopped has come any further.
  """

  event: Literal['started', 'replaced', 'ended', 'stopped']
  job: int = 0
  ending: Ending | None = None
  has_advanced: bool = False


@dataclass(frozen=True, kw_only=True)
class Journal:
  """What a task of an array has done so far."""

  entries: tuple[Entry, ...]

  def has(self, event: str, job: int) -> bool:
    return any(one.event == event and one.job == job for one in self.entries)

  def ending(self, job: int) -> Outcome | None:
    """Gives the outcome of a job; None while it has none."""
    found = (one.ending for one in self.entries if one.job == job and one.ending is not None)
    ending = next(found, None)
    return None if ending is None else ending.outcome()

  @property
  def num_idle_stops(self) -> int:
    """How many times in a row the task was stopped before it had come any further."""
    stops = [one.has_advanced for one in self.entries if one.event == 'stopped']
    return next((number for number, one in enumerate(reversed(stops)) if one), len(stops))


def folder_of(runs: Path) -> Path:
  return runs.resolve() / FOLDER


def journal_file(folder: Path, array: str, index: int) -> Path:
  return folder / f'{array}_{index}.jsonl'


def read_journal(path: Path) -> Journal:
  """Reads a journal; it is empty before the task has begun."""
  return Journal(entries=_read(path, Entry))


class JournalWriter:
  """Appends to a journal.

  Raises:
    UserError: the file cannot be written.
  """

  def __init__(self, path: Path):
    files.cut_unfinished_line(path)
    self._file = files.AppendFile(path)

  def add(self, entry: Entry) -> None:
    self._file.append(msgspec.json.encode(entry) + b'\n')
    self._file.sync()


def append_array(folder: Path, array: Array) -> None:
  """Writes down an array before SLURM gets it.

  Raises:
    UserError: the file cannot be written.
  """
  files.make_folder(folder)
  path = folder / 'arrays.jsonl'
  files.cut_unfinished_line(path)
  log = files.AppendFile(path)
  log.append(msgspec.json.encode(array) + b'\n')
  log.sync()
  log.close()


def read_arrays(folder: Path) -> tuple[Array, ...]:
  """Reads all arrays that were submitted for a folder of runs.

  Raises:
    UserError: the file cannot be read, or something else is in it.
  """
  return _read(folder / 'arrays.jsonl', Array)


def write_failure(journal: Path, restart: str, rank: int, outcome: Outcome) -> None:
  """Leaves word for the first process of a trial why this one has failed."""
  failure = dataclasses.replace(outcome, reason=_by_rank(rank, outcome.reason))
  with files.replacing(_failure_file(journal, restart, rank), durable=False) as file:
    file.write(msgspec.json.encode(Ending.of(failure)))


def read_failure(journal: Path, restart: str, ranks: Iterable[int]) -> Outcome | None:
  """Reads why another process of a trial has failed; None if none has said so."""
  for rank in ranks:
    try:
      text = files.read_bytes(_failure_file(journal, restart, rank))
    except FileNotFoundError:
      continue
    return msgspec.json.decode(text, type=Ending).outcome()
  return None


def _failure_file(journal: Path, restart: str, rank: int) -> Path:
  return journal.with_name(f'{journal.stem}.{restart or 0}.rank{rank}.json')


def _by_rank(rank: int, reason: str) -> str:
  return reason if reason.startswith(f'rank {rank} ') else f'rank {rank}: {reason}'


def _read(path: Path, kind: type[_Line]) -> tuple[_Line, ...]:
  try:
    *lines, _ = files.read_bytes(path).split(b'\n')
    return tuple(msgspec.json.decode(line, type=kind) for line in lines)
  except FileNotFoundError:
    return ()
  except (OSError, msgspec.DecodeError) as error:
    raise errors.UserError(
      f'{path} is damaged ({error}). Wait until no job of these runs is in the queue, remove it, '
      'and give the command again.'
    ) from None
