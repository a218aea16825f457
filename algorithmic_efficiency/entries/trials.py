"""The trials of an entry, and those that its suite asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import search_space
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.benchmark.search_space import ListedSpace, SearchSpace
from algorithmic_efficiency.benchmark.suites import Ruleset
from algorithmic_efficiency.results import csv_table, files, measurements, trial_record
from algorithmic_efficiency.results.trial_record import Point, TrialRecord
from scoring import layout
from scoring.layout import FoundTrial
from scoring.rules import ScoringRules

SPACE_FILE = 'tuning_search_space.json'

Place = tuple[str, str, str, str]
"""Where a trial belongs: study, workload, framework and trial, as its folders are called."""


@dataclass(frozen=True, kw_only=True)
class EntryTrial:
  """A trial of an entry.

  Attributes:
    folder: the trial folder.
    record: its record; None for a trial of AlgoPerf.
    point: hyperparameters; None for self tuning.
    rows: its evaluations, by column; empty if its table cannot be read.
  """

  place: Place
  folder: Path
  record: TrialRecord | None
  point: Point | None
  rows: Sequence[Mapping[str, float]]

  @property
  def name(self) -> str:
    return name_of(self.place)

  @property
  def workload(self) -> str:
    return self.place[1]

  @property
  def num_processes(self) -> int:
    """Processes of the trial, each with a clock of its own."""
    environment: Mapping[str, Any] = self.record.environment if self.record else {}
    return environment.get('devices', {}).get('world_size') or 1


def name_of(place: Place) -> str:
  """The path of a trial folder below the folder of its submission."""
  study, workload, framework, trial = place
  return f'{study}/{workload}_{framework}/{trial}'


def found_in(runs: Path, submission: str) -> list[FoundTrial]:
  """Finds the trials of a submission in a folder of runs, by the names of folders alone.

  Raises:
    UserError: there are none, or a trial is there twice.
  """
  found, _ = layout.find_trials(runs)
  mine = [one for one in found if submission in _names(one)]
  if not mine:
    raise errors.unknown(f'submission in {runs}', submission, {_names(one)[-1] for one in found})
  for one in mine:
    if '.' in one.trial:
      raise errors.UserError(
        f'A trial is packed once; {one.path} is the second {one.trial.partition(".")[0]} of its '
        'workload. Remove one of the folders that differ in their time stamps.'
      )
  return mine


def _names(one: FoundTrial) -> tuple[str, ...]:
  """The names that a trial's submission goes by; the last is without the framework."""
  plain = one.submission.removesuffix(f'_{one.framework}').removesuffix(f' ({one.framework})')
  return one.submission, plain


def place_of(one: FoundTrial) -> Place:
  return one.study, one.workload, one.framework, one.trial


def read(one: FoundTrial) -> EntryTrial:
  """Reads a trial. What cannot be read of its point and its table is missing.

  Raises:
    UserError: its record is damaged.
  """
  folder = Path(one.path)
  record = trial_record.read_trial(folder)
  try:
    point = trial_record.read_point(folder)
  except errors.UserError:
    point = None
  return EntryTrial(
    place=place_of(one), folder=folder, record=record, point=point, rows=_rows(folder)
  )


def _rows(folder: Path) -> list[dict[str, float]]:
  try:
    table = csv_table.parse(files.read_bytes(folder / measurements.EVAL_FILE))
    rows = [
      {name: float(text) for name, text in zip(table.header, row, strict=True) if text.strip()}
      for row in table.rows
    ]
  except (OSError, ValueError):
    return []
  return rows if all(math.isfinite(row.get('global_step', math.nan)) for row in rows) else []


# What a suite asks for.


@dataclass(frozen=True, kw_only=True)
class Rules:
  """The rules that an entry is held against.

  Attributes:
    scoring: suite, ruleset and the workloads that it scores.
    space: search space of the entry; None under self tuning.
  """

  scoring: ScoringRules
  space: SearchSpace | None

  @property
  def definitions(self) -> Mapping[str, WorkloadDefinition]:
    return self.scoring.members

  @property
  def num_trials(self) -> int:
    """Trials of a study: those of the ruleset, or the points of a shorter list."""
    number = self.scoring.tuning.num_trials
    return min(number, len(self.space.listed)) if isinstance(self.space, ListedSpace) else number

  def points(self, order: int, num_trials: int) -> list[Point]:
    """The points of a study, in the order that a seed gives; none under self tuning."""
    if self.space is None:
      return []
    if isinstance(self.space, ListedSpace):
      return list(self.space.listed[:num_trials])
    return list(search_space.points(self.space, num_trials, order))


def space_of(ruleset: Ruleset, code: Path) -> SearchSpace | None:
  """Reads the search space of a submission; None under self tuning.

  Raises:
    UserError: it is missing or invalid.
  """
  return search_space.load(code / SPACE_FILE) if ruleset == 'external' else None


def expected(rules: Rules, present: Sequence[EntryTrial]) -> list[Place]:
  """Returns every trial that a suite asks for, in each of the frameworks that are present.

  Studies are numbered from 1. AlgoPerf numbers them from 0.
  """
  frameworks = dict.fromkeys(one.place[2] for one in present)
  first = 0 if any(one.record is None and one.place[0] == 'study_0' for one in present) else 1
  return [
    (f'study_{study}', workload, framework, f'trial_{trial}')
    for framework in frameworks
    for workload in rules.definitions
    for study in range(first, first + rules.scoring.tuning.num_studies)
    for trial in range(1, rules.num_trials + 1)
  ]


def shortcoming(trial: EntryTrial) -> str | None:
  """Why a trial is no complete result, in words; None if it is one."""
  record = trial.record
  if record is None or record.status == 'finished':
    if not trial.rows:
      return 'has no evaluations'
    return 'was ended by a step limit' if record and record.stop_reason == 'step_limit' else None
  if record.status == 'running' or record.stop_reason == 'interrupted':
    return 'is not finished'
  reason = record.reason or record.stop_reason or 'no reason is recorded'
  return f'{"is invalid" if record.status == "invalid" else "failed"}: {reason}'
