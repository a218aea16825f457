"""Reads runs: a table with a row an evaluation, a record a trial, notes on what was found."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.results import race_files
from scoring import missing_studies, trial_files
from scoring.layout import find_trials
from scoring.measurement_file import NOTHING, NUMERIC, Evaluations
from scoring.notes import Note
from scoring.runs import KEYS, Runs, TrialFiles

if TYPE_CHECKING:
  import pandas as pd


def load(path: str | os.PathLike[str]) -> pd.DataFrame:
  """The evaluations under a folder of runs, one row each.

  Columns: submission, study, workload, framework, trial, row (index in its file), global_step,
  submission_time_sec, charged_steps (our runs), eval_sec, logging_sec, and the target's metric on
  train, validation and test. Trials without a row, and everything that did not fit, are in
  `frame.attrs['runs']`.

  Raises:
    UserError: there is no such folder, or no runs are in it.
  """
  root = Path(path).expanduser()
  folders, notes = find_trials(root)
  known = registry.workloads()
  trials: list[TrialFiles] = []
  parts: list[Evaluations] = []
  unknown: dict[str, int] = {}
  for folder in folders:
    if folder.workload not in known:
      unknown[folder.workload] = unknown.get(folder.workload, 0) + 1
      continue
    trial, evaluations = trial_files.read(folder, known[folder.workload], notes)
    trials.append(trial)
    parts.append(evaluations.packed())
  notes += [Note('unknown_workload', name, f'{count} trials') for name, count in unknown.items()]
  if not trials:
    names = ', '.join(sorted(unknown)) or 'none'
    raise errors.UserError(f'{root} holds no run of a known workload; found: {names}.')
  trials = _without_record(trials, notes)
  again = _look_at_identities(trials, notes)
  parts = [part for trial, part in zip(trials, parts, strict=True) if trial.path not in again]
  trials = [trial for trial in trials if trial.path not in again]
  missing = missing_studies.find(trials, race_of, notes)
  trials += missing
  parts += [NOTHING] * len(missing)
  frame = _frame(trials, parts)
  races = sorted({race_of(trial.path) for trial in trials})
  frame.attrs['runs'] = Runs(
    root=str(root),
    trials=tuple(trials),
    notes=tuple(sorted(notes)),
    costs=tuple(cost for race in races for cost in race_files.read_costs(race)),
    planned=tuple(one for race in races for one in race_files.read_estimate(race)),
    selections=tuple(map(race_files.read_selection, races)),
  )
  return frame


def keep_studies(frame: pd.DataFrame, studies: Collection[tuple[str, str]]) -> pd.DataFrame:
  """Leaves out all but some studies, as long as others of the same race are not there yet.

  Args:
    studies: workload and study.
  """
  runs = frame.attrs['runs']
  trials = tuple(one for one in runs.trials if (one.workload, one.study) in studies)
  others = {one.path for one in runs.trials}.difference(one.path for one in trials)
  notes = (one for one in runs.notes if one.where not in others and one.kind != 'missing_study')
  names = zip(frame['workload'], frame['study'], strict=True)
  kept = frame[[name in studies for name in names]].reset_index(drop=True)
  kept.attrs['runs'] = replace(runs, trials=trials, notes=tuple(notes))
  return kept


def race_of(folder: str) -> Path:
  """The folder that a race would have put a trial in: <race>/<name>/<study>/<workload>/<trial>."""
  parents = Path(folder).absolute().parents
  return parents[min(3, len(parents) - 1)]


def _without_record(trials: list[TrialFiles], notes: list[Note]) -> list[TrialFiles]:
  """Says which trials have no record where others do, and keeps those that have lost it from the
  score: it may have said that they are invalid."""
  recorded = {trial.submission for trial in trials if trial.recorded}
  found = []
  for trial in trials:
    if not trial.recorded and (trial.logged or trial.submission in recorded):
      notes.append(Note('lost_record', trial.path))
      trial = replace(trial, status='lost_record' if trial.status == 'ok' else trial.status)
    elif not trial.recorded and recorded:
      notes.append(Note('no_record', trial.path))
    found.append(trial)
  return found


def _look_at_identities(trials: list[TrialFiles], notes: list[Note]) -> set[str]:
  """Notes trials of several or other submissions, and trials that are there twice.

  Returns:
    The folders to leave out: of a trial that is there twice, all but the one in its own study.
  """
  entries: dict[str, set[str]] = {}
  copies: dict[tuple, list[TrialFiles]] = {}
  for trial in trials:
    if trial.entry:
      entries.setdefault(trial.submission, set()).add(trial.entry)
    if trial.trial_seed is not None:
      key = (trial.submission, trial.workload, trial.framework, trial.trial_seed)
      copies.setdefault(key, []).append(trial)
  for name, found in entries.items():
    if len(found) > 1:
      notes.append(Note('mixed_submissions', name, ', '.join(sorted(found))))
    elif name not in (*found, *(f'{one}_{kind}' for one in found for kind in ('jax', 'pytorch'))):
      notes.append(Note('other_name', name, f'recorded as {", ".join(found)}'))
  again: set[str] = set()
  for same in copies.values():
    kept, *others = sorted(same, key=lambda trial: trial.study != trial.own_study)
    notes += [Note('duplicate', trial.path, f'also {kept.path}') for trial in others]
    again |= {trial.path for trial in others}
  return again


def _frame(trials: list[TrialFiles], parts: list[Evaluations]) -> pd.DataFrame:
  import numpy as np
  import pandas as pd

  lengths = np.array([part.num_rows for part in parts], dtype=np.int64)
  columns: dict[str, Any] = {}
  for key in KEYS:
    values = [getattr(trial, key) for trial in trials]
    categories = sorted(set(values))
    code = {category: index for index, category in enumerate(categories)}
    codes = np.array([code[value] for value in values], dtype=np.int32)
    columns[key] = pd.Categorical.from_codes(np.repeat(codes, lengths), categories=categories)
  starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
  columns['row'] = (np.arange(lengths.sum()) - starts).astype(np.int32)
  for name in NUMERIC:
    columns[name] = np.concatenate(
      [np.asarray(part.columns[name], dtype=np.float64) for part in parts]
    )
  return pd.DataFrame(columns)
