"""Reads one trial folder: its record, its hyperparameters and its evaluations, held together.

A trial of ours tells its evaluations twice: in its log and in the table that is a view of it. The
log is read where it is whole, the table where it is not, and a trial whose files contradict each
other is not scored.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.definition import Split, Target, WorkloadDefinition
from algorithmic_efficiency.results import files, measurements, trial_record
from algorithmic_efficiency.results.measurements import Rows
from algorithmic_efficiency.results.trial_record import TrialRecord
from scoring import measurement_file
from scoring.layout import FoundTrial
from scoring.measurement_file import Damaged, Evaluations
from scoring.notes import Note
from scoring.runs import TrialFiles

# Stop reasons of trials that might have gone on.
_CUT_SHORT = ('step_limit', 'interrupted')

_SAME = 1e-6  # relative; what a program that saves a table again may round

_Say = Callable[[str, str], None]  # takes the kind of a note and what was found


def read(
  found: FoundTrial, definition: WorkloadDefinition, notes: list[Note]
) -> tuple[TrialFiles, Evaluations]:
  """Reads a trial folder; what is damaged in it is noted, and kept out of the score."""
  folder = Path(found.path)

  def say(kind: str, detail: str = '') -> None:
    notes.append(Note(kind, found.path, detail))

  trial, record = _with_record(TrialFiles(**vars(found)), folder, say)
  trial = replace(trial, hyperparameters=_point(folder, record, say))
  evaluations = measurement_file.NOTHING
  try:
    log, is_whole = _log(folder, record, say)
    trial = replace(trial, logged=log is not None)
    for text in _contradictions(found, record, log if is_whole else None):
      raise Damaged('contradiction', text)
    evaluations = _evaluations(folder, definition.target.metric, log, is_whole, say)
    damage = evaluations.damage
  except Damaged as error:
    damage = error
  if damage is not None:
    say(damage.kind, damage.detail)
    trial = replace(trial, status=damage.kind if trial.status == 'ok' else trial.status)
  _look_at_values(evaluations, definition.target, say)
  return replace(trial, num_rows=evaluations.num_rows), evaluations


# The evaluations.


def _evaluations(
  folder: Path, metric: str, log: Rows | None, is_whole: bool, say: _Say
) -> Evaluations:
  """Those of the log if it is whole, else those of the table.

  Raises:
    Damaged: there are none, or the two contradict each other.
  """
  table = _table(folder, metric)
  if log is None:
    if isinstance(table, Damaged):
      raise table
    return table
  own = measurement_file.of_rows(log.evals, metric)
  problem = table if isinstance(table, Damaged) else table.damage
  if problem is not None:
    if own.num_rows or problem.kind != 'no_data':
      say('altered_table', f'{problem.detail}; the log was read')
    return own if is_whole else replace(own, damage=Damaged('damaged_log', problem.detail))
  assert isinstance(table, Evaluations)
  if difference := _difference(table, own):
    raise Damaged('contradiction', difference)
  if not is_whole:
    return table
  if table.num_rows != own.num_rows:
    say('altered_table', f'{table.num_rows} of {own.num_rows} rows; the log was read')
  return own


def _table(folder: Path, metric: str) -> Evaluations | Damaged:
  try:
    content = files.read_bytes(os.path.join(folder, measurements.EVAL_FILE))
    return measurement_file.parse(content, metric)
  except FileNotFoundError:
    return Damaged('no_data', f'no {measurements.EVAL_FILE}')
  except OSError as error:
    return Damaged('damaged', f'{measurements.EVAL_FILE} cannot be read: {error.strerror}')
  except Damaged as damage:
    return Damaged(damage.kind, f'{measurements.EVAL_FILE}: {damage.detail}')


def _log(folder: Path, record: TrialRecord | None, say: _Say) -> tuple[Rows | None, bool]:
  """The log of a trial, if it has one, and whether every row that was written is in it."""
  if not os.path.lexists(os.path.join(folder, measurements.LOG_FILE)):
    if record is not None and os.path.lexists(os.path.join(folder, measurements.EVAL_FILE)):
      say('lost_log', measurements.LOG_FILE)
    return None, False
  try:
    log = measurements.read(folder)
  except errors.UserError as error:
    say('damaged_log', str(error))
    return Rows(), False
  if record is not None and record.status == 'finished' and log.end is None:
    log.problems.append(f'{folder / measurements.LOG_FILE}: the final row is missing.')
  if log.problems:
    say('damaged_log', log.problems[0])
  return log, not log.problems


def _difference(table: Evaluations, log: Evaluations) -> str | None:
  """Where a table and a log tell of the same step otherwise, in words."""
  row_of = {step: row for row, step in enumerate(log.columns['global_step'])}
  for row, step in enumerate(table.columns['global_step']):
    for name in table.columns if step in row_of else ():
      one, other = table.columns[name][row], log.columns[name][row_of[step]]
      if not (math.isclose(one, other, rel_tol=_SAME) or (one != one and other != other)):
        return f'{name} of step {step:.0f} is {one:g} in the table and {other:g} in the log'
  return None


def _contradictions(
  found: FoundTrial, record: TrialRecord | None, log: Rows | None
) -> Iterator[str]:
  """Where the record, the log and the folder of a trial do not belong together."""
  header = {} if log is None else log.header
  for name in ('workload', 'framework'):
    said = {getattr(found, name), header.get(name), record and getattr(record, name)} - {None, ''}
    if len(said) > 1:
      yield f'{name} is {" and ".join(sorted(said))} in the files of one trial'
  if record is None or log is None:
    return
  seed = record.seeds.get('trial')
  if None not in (seed, header.get('seed')) and seed != header['seed']:
    yield 'the log is of another seed than the record'
  end = log.end
  if record.status == 'finished' and end is not None:
    for name, own, other in (
      ('global_step', record.global_step, end['global_step']),
      ('submission_time_sec', record.submission_time_sec, end.get('score', math.nan)),
    ):
      if not math.isclose(own, other, rel_tol=_SAME):
        yield f'{name} is {own:g} in the record and {other:g} at the end of the log'


def _look_at_values(evaluations: Evaluations, target: Target, say: _Say) -> None:
  num_rows = evaluations.num_rows
  if num_rows == 1:
    say('single_row', '')
  values = evaluations.columns['validation']
  num_bad = sum(not math.isfinite(value) for value in values)
  if num_bad:
    say('nan_metric', f'{num_bad} of {num_rows} rows')
  impossible = [value for value in values if math.isfinite(value) and not target.is_possible(value)]
  if impossible:
    say('impossible_metric', f'{target.metric} is {impossible[0]:g}')


# The record and the hyperparameters.


def _with_record(
  trial: TrialFiles, folder: Path, say: _Say
) -> tuple[TrialFiles, TrialRecord | None]:
  try:
    record = trial_record.read_trial(folder)
  except errors.UserError as error:
    say('damaged', str(error))
    return replace(trial, status='damaged', recorded=True), None
  if record is None:
    return trial, None
  _say_how_it_ended(record, say)
  return replace(trial, **_facts(record)), record


def _facts(record: TrialRecord) -> dict[str, Any]:
  """What a record says, by the names of `TrialFiles`."""
  draws_per_step = record.charged_steps / (record.global_step or 1) or 1.0
  status = 'smoke' if record.smoke else 'invalid_trial' if record.status == 'invalid' else 'ok'
  return {
    'status': status,
    'recorded': True,
    'entry': record.submission,
    'own_study': f'study_{record.study}',
    'suite': record.suite,
    'ruleset': record.ruleset,
    'batch_size': record.batch_size or None,
    'stop_reason': record.stop_reason or '',
    'reason': record.reason,
    'host': record.environment.get('host_hash', ''),
    'machine': record.environment.get('machine_hash', ''),
    'root_seed': record.seeds.get('seed'),
    'seed': record.seeds.get('study'),
    'trial_seed': record.seeds.get('trial'),
    'step_sec': record.step_time_sec / draws_per_step if record.step_time_sec else None,
    'wall_sec': sum(record.buckets.values()) if record.status == 'finished' else None,
    'buckets': record.buckets if record.status == 'finished' else {},
    'data_wait_sec': record.data_wait_sec,
    'smoke': record.smoke,
    'definition_hash': record.definition_hash,
    'suite_hash': record.suite_hash,
    'suite_file': record.suite_file,
    'submission_hash': record.submission_hash,
    'submission_info': record.submission_info,
    'environment': record.environment or None,
  }


def _say_how_it_ended(record: TrialRecord, say: _Say) -> None:
  if record.status == 'invalid':
    say('invalid_trial', record.reason)
  elif record.status == 'failed':
    say('failed_trial', record.reason or record.stop_reason or '')
  elif record.status == 'running' or record.stop_reason in _CUT_SHORT:
    say('cut_short', record.stop_reason or 'not finished')
  for text in record.notes:
    say('runner_note', text)
  if deviations := _deviations(record.options):
    say('spared', deviations)
  if record.smoke:
    say('smoke', '')


def _deviations(options: Mapping[str, Any]) -> str:
  """How a trial deviates from the official rules, as flags; empty if it does not."""
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


def _point(folder: Path, record: TrialRecord | None, say: _Say) -> str:
  """The hyperparameters as JSON with sorted names; empty where there are none."""
  try:
    point = trial_record.read_point(folder)
  except errors.UserError as error:
    say('no_hparams', str(error))
    return ''
  recorded = None if record is None else record.hyperparameters
  if recorded is not None and recorded != point:
    say('no_hparams', f'{trial_record.POINT_FILE} is not what the record says, which counts')
    point = recorded
  if point is None:
    say('no_hparams', '')
    return ''
  return json.dumps(point, sort_keys=True)
