"""Reads runs: a table with a row an evaluation, a record a trial, notes on what was found."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Split, WorkloadDefinition
from algorithmic_efficiency.results import former_names, race_files
from algorithmic_efficiency.results.race_files import PlannedTrials, StepCost
from scoring.layout import FoundTrial, find_trials
from scoring.measurement_file import EVAL_FILE, NUMERIC, Damaged, Evaluations, parse
from scoring.notes import Note

if TYPE_CHECKING:
  import pandas as pd

# Stop reasons of trials that might have gone on.
_CUT_SHORT = ('step_limit', 'interrupted')
KEYS = ('submission', 'study', 'workload', 'framework', 'trial')


@dataclass(frozen=True, kw_only=True)
class TrialFiles:
  """What is known of a trial besides its evaluations.

  `status` is 'ok', or the kind of the note that keeps it from being scored. `entry` is the name
  that the submission ran under, `wall_sec` what a finished trial took with all that is not scored.
  `host` tells hardware and software apart, `machine` hardware alone; `seed` is the study's. Unknown
  values are empty or None.
  """

  submission: str
  study: str
  workload: str
  framework: str
  trial: str
  path: str
  status: str = 'ok'
  num_rows: int = 0
  entry: str = ''
  suite: str = ''
  ruleset: str = ''
  batch_size: int | None = None
  stop_reason: str = ''
  reason: str = ''
  host: str = ''
  machine: str = ''
  seed: int | None = None
  step_sec: float | None = None
  wall_sec: float | None = None
  hyperparameters: str = ''  # as canonical JSON
  smoke: bool = False
  definition_hash: str = ''
  suite_hash: str = ''
  submission_hash: str = ''
  environment: Any = None

  @property
  def key(self) -> tuple[str, ...]:
    return (self.submission, self.study, self.workload, self.framework, self.trial)


@dataclass(frozen=True, kw_only=True)
class Runs:
  """All that `load` found besides the rows; hangs on the table as `frame.attrs['runs']`.

  `costs` and `planned` are the records of the race that the runs belong to, if they do.
  """

  root: str
  trials: tuple[TrialFiles, ...]
  notes: tuple[Note, ...]
  costs: tuple[StepCost, ...] = ()
  planned: tuple[PlannedTrials, ...] = ()

  def __deepcopy__(self, memo: dict) -> Runs:
    return self  # immutable; pandas copies attrs at every step


def load(path: str | os.PathLike[str], only: Collection[str] | None = None) -> pd.DataFrame:
  """The evaluations under a folder of runs, one row each.

  `only` are the real paths of the trials that count; None takes all.

  Columns: submission, study, workload, framework, trial, row (index in its file), global_step,
  submission_sec, charged_steps (our runs), eval_sec, logging_sec, and the target's metric on train,
  validation and test. Trials without a row, and everything that did not fit, are in
  `frame.attrs['runs']`.

  Raises:
    UserError: there is no such folder, or no runs are in it.
  """
  root = Path(path).expanduser()
  folders, notes = find_trials(root, only)
  known = registry.workloads()
  trials: list[TrialFiles] = []
  parts: list[Evaluations] = []
  unknown: dict[str, int] = {}
  for folder in folders:
    if folder.workload not in known:
      unknown[folder.workload] = unknown.get(folder.workload, 0) + 1
      continue
    trial, evaluations = _read_trial(folder, known[folder.workload], notes)
    trials.append(trial)
    parts.append(evaluations)
  notes += [Note('unknown_workload', name, f'{count} trials') for name, count in unknown.items()]
  if not trials:
    names = ', '.join(sorted(unknown)) or 'none'
    raise errors.UserError(f'{root} holds no run of a known workload; found: {names}.')
  frame = _frame(trials, parts)
  races = sorted({_race_of(trial) for trial in trials})
  frame.attrs['runs'] = Runs(
    root=str(root),
    trials=tuple(trials),
    notes=tuple(sorted(notes)),
    costs=tuple(cost for race in races for cost in race_files.read_costs(race)),
    planned=tuple(one for race in races for one in race_files.read_estimate(race)),
  )
  return frame


def _race_of(trial: TrialFiles) -> Path:
  """The folder that a race would have put a trial in: <race>/<name>/<study>/<workload>/<trial>."""
  return Path(trial.path).absolute().parents[3]


_EMPTY = Evaluations(columns={name: [] for name in NUMERIC}, damage=None)


def _read_trial(
  folder: FoundTrial, definition: WorkloadDefinition, notes: list[Note]
) -> tuple[TrialFiles, Evaluations]:
  facts = _facts(folder.path, notes)
  status = facts.pop('status')
  evaluations = _EMPTY
  try:
    with open(os.path.join(folder.path, EVAL_FILE), 'rb') as file:
      evaluations = parse(file.read(), definition.target.metric)
    if evaluations.damage is not None:
      raise evaluations.damage
  except FileNotFoundError:
    status = 'no_data' if status == 'ok' else status
    notes.append(Note('no_data', folder.path, f'no {EVAL_FILE}'))
  except OSError as error:
    status = 'damaged'
    notes.append(Note('damaged', folder.path, f'{EVAL_FILE} cannot be read: {error.strerror}'))
  except Damaged as damage:
    status = damage.kind if status == 'ok' else status
    notes.append(Note(damage.kind, folder.path, damage.detail))
  _look_at_values(folder.path, evaluations, notes)
  return TrialFiles(
    **vars(folder), status=status, num_rows=evaluations.num_rows, **facts
  ), evaluations


def _look_at_values(path: str, evaluations: Evaluations, notes: list[Note]) -> None:
  num_rows = evaluations.num_rows
  if num_rows == 1:
    notes.append(Note('single_row', path))
  values = evaluations.columns['validation']
  if not all(map(math.isfinite, values)):
    bad = sum(not math.isfinite(value) for value in values)
    notes.append(Note('nan_metric', path, f'{bad} of {num_rows} rows'))


@functools.lru_cache(maxsize=4096)
def _canonical(content: bytes) -> str:
  """A point of a search space as JSON with sorted names; empty where there is none."""
  value = json.loads(content)
  return '' if value is None else json.dumps(value, sort_keys=True)


def _json(path: str) -> Any:
  with open(path, 'rb') as file:
    return json.loads(file.read())


def _facts(path: str, notes: list[Note]) -> dict[str, Any]:
  """What `hparams.json` and our own `trial.json` say; AlgoPerf's runs have only the first."""
  facts: dict[str, Any] = {'status': 'ok', 'hyperparameters': ''}
  try:
    with open(os.path.join(path, 'hparams.json'), 'rb') as file:
      facts['hyperparameters'] = _canonical(file.read())
  except FileNotFoundError:
    notes.append(Note('no_hparams', path))
  except (OSError, ValueError) as error:
    notes.append(Note('no_hparams', path, str(error)))
  try:
    record = _json(os.path.join(path, 'trial.json'))
  except FileNotFoundError:
    return facts
  except (OSError, ValueError) as error:
    notes.append(Note('damaged', path, f'trial.json: {error}'))
    facts['status'] = 'damaged'
    return facts
  if not isinstance(record, dict):
    notes.append(Note('damaged', path, 'trial.json is no record'))
    facts['status'] = 'damaged'
    return facts
  facts.update(_own_facts(path, former_names.renamed_trial(record), notes))
  return facts


def _own_facts(path: str, record: dict[str, Any], notes: list[Note]) -> dict[str, Any]:
  def of_type(name: str, kind: type, default: Any) -> Any:
    value = record.get(name)
    return value if isinstance(value, kind) else default

  seeds = of_type('seeds', dict, {})
  environment = of_type('environment', dict, {})
  buckets = of_type('buckets', dict, {})
  step_sec = of_type('step_time_sec', float, None)
  draws = of_type('charged_steps', int, 0) / (of_type('global_step', int, 0) or 1) or 1.0
  facts: dict[str, Any] = {
    'entry': of_type('submission', str, ''),
    'suite': of_type('suite', str, ''),
    'ruleset': of_type('ruleset', str, ''),
    'batch_size': of_type('batch_size', int, 0) or None,
    'stop_reason': of_type('stop_reason', str, ''),
    'reason': of_type('reason', str, ''),
    'seed': seeds.get('study') if isinstance(seeds.get('study'), int) else None,
    'step_sec': step_sec / draws if step_sec is not None and 0 < step_sec < math.inf else None,
    'wall_sec': sum(buckets.values()) if record.get('status') == 'finished' else None,
    'smoke': record.get('smoke') is True,
    'definition_hash': of_type('definition_hash', str, ''),
    'suite_hash': of_type('suite_hash', str, ''),
    'submission_hash': of_type('submission_hash', str, ''),
    'host': _text(environment, 'host_hash'),
    'machine': _text(environment, 'machine_hash'),
    'environment': environment or None,
  }
  if record.get('status') == 'invalid':
    notes.append(Note('invalid_trial', path, facts['reason']))
    facts['status'] = 'invalid_trial'
  elif record.get('status') == 'failed':
    notes.append(Note('failed_trial', path, facts['reason'] or facts['stop_reason']))
  elif record.get('status') == 'running' or facts['stop_reason'] in _CUT_SHORT:
    notes.append(Note('cut_short', path, facts['stop_reason'] or 'not finished'))
  notes += [Note('runner_note', path, text) for text in map(str, of_type('notes', list, []))]
  if spared := _spared(of_type('options', dict, {})):
    notes.append(Note('spared', path, spared))
  if facts['smoke']:
    notes.append(Note('smoke', path))
    facts['status'] = 'smoke'
  return facts


def _text(record: dict[str, Any], name: str) -> str:
  found = record.get(name)
  return found if isinstance(found, str) else ''


def _spared(options: dict[str, Any]) -> str:
  """What a trial was spared that official rules have, as flags; empty for nothing."""
  found = []
  if options.get('stop_at') == 'validation':
    found.append('--stop_at validation')
  splits = options.get('splits', list(get_args(Split)))
  if not isinstance(splits, list) or not set(splits) >= set(get_args(Split)):
    names = splits if isinstance(splits, list) else [splits]
    found.append(f'--splits {",".join(map(str, names))}')
  if options.get('full_eval_every', 1) != 1:
    found.append(f'--full_eval_every {options["full_eval_every"]}')
  return ' '.join(found)


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
