"""Where the rows, checkpoints and progress of a trial go, and the record that it leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from algorithmic_efficiency.backends.base import Diagnostics, StateCopies
from algorithmic_efficiency.clock import SUBMISSION_BUCKETS
from algorithmic_efficiency.results import (
  environment,
  measurements,
  trial_record,
)
from algorithmic_efficiency.results.files import write_json_atomic
from algorithmic_efficiency.results.measurements import RunLog
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial.checkpoint import Checkpoints, Loaded
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.kept_params import ParamsKeeper
from algorithmic_efficiency.trial.messages import Reporter
from algorithmic_efficiency.trial.step_timer import mean_step_sec

STATE = ('params', 'model_state', 'optimizer_state')
"""The names of the trees that a checkpoint holds, in the order in which they are restored."""

BEGINS_ANEW = 'The trial began anew, from step 0: it had been run before, but left no checkpoint.'

PARAMS_ARE_LOST = 'The parameters that the trial had kept are lost: there is no'

CANNOT_BE_KEPT = 'The parameters of the trial cannot be kept.'

CANNOT_BE_SAVED = 'The trial cannot be resumed: its state cannot be saved.'


class Recorder(Protocol):
  """Where the rows, checkpoints and progress of a trial go."""

  def evaluation(self, row: Mapping[str, float], global_step: int) -> None:
    """Writes the row of a full evaluation."""
    ...

  def metrics(self, rows: list[tuple[int, Mapping[str, Any]]]) -> None:
    """Writes logged metrics: global step, and number or device scalar by name."""
    ...

  def checkpoint(self, state: Mapping[str, Any]) -> None:
    """Saves a checkpoint; every process of the trial takes part.

    Args:
      state: `params`, `model_state` and `optimizer_state`; `position`; `data` (of the stream);
        `buckets` and `charged` (of the clock, in seconds).
    """
    ...

  def progress(self, state: Mapping[str, Any]) -> None:
    """Tells the parent process how far the trial has come."""
    ...

  def finish(self, final: Mapping[str, float], **fields: Any) -> int:
    """Writes the final row and the record.

    Args:
      final: the final row; empty writes none.
      fields: of the trial's record, by name.

    Returns:
      Where the rows of this process begin in the log, in bytes.
    """
    ...


class NullRecorder:
  """The recorder of a process that is not the first of its trial: it writes nothing.

  It takes part in packing the state, because arrays may be spread over all processes.
  """

  def __init__(self, copies: StateCopies, *, checkpoints: bool, keeper: ParamsKeeper | None = None):
    self._copies = copies
    self._checkpoints = checkpoints
    self._keeper = keeper

  def evaluation(self, row: Mapping[str, float], global_step: int) -> None:
    pass

  def metrics(self, rows: list[tuple[int, Mapping[str, Any]]]) -> None:
    pass

  def checkpoint(self, state: Mapping[str, Any]) -> None:
    if self._keeper is not None:
      try:
        _pack_if_due(self._keeper, self._copies, state)
      except TypeError:
        self._keeper = None
    if not self._checkpoints:
      return
    try:
      self._copies.pack({name: state[name] for name in STATE})
    except TypeError:
      self._checkpoints = False

  def progress(self, state: Mapping[str, Any]) -> None:
    pass

  def finish(self, final: Mapping[str, float], **fields: Any) -> int:
    return 0


class RecordedBackend(StateCopies, Diagnostics, Protocol):
  """What a recorder needs of a backend."""


class TrialRecorder:
  """Writes the files of a trial folder, in the first process of the trial alone.

  Args:
    record: what is known of the trial before its first step.
    workload: the evaluation workload, described in `meta_data_<n>.json`.
    checkpoints: None saves none.
    saved: the checkpoint that the trial resumes from; None begins anew.
    keeper: keeps parameters beyond the end of the trial; None keeps none.

  Raises:
    UserError: a file could not be written, or the folder holds a trial that is not to be resumed.
  """

  def __init__(
    self,
    config: TrialConfig,
    record: TrialRecord,
    *,
    backend: RecordedBackend,
    workload: Any,
    report: Reporter,
    checkpoints: Checkpoints | None,
    saved: Loaded | None,
    keeper: ParamsKeeper | None = None,
  ):
    self._backend = backend
    self._report = report
    self._checkpoints = checkpoints
    self._folder = config.path
    self._preemption_count = saved.payload['preemption_count'] + 1 if saved else 0
    self._record = dataclasses.replace(
      record, environment=environment.collect(backend.describe()), versions=environment.versions()
    )
    if saved is not None:
      payload = saved.payload
      done = progress(payload['position'], payload['buckets'], payload['charged'])
      self._record = dataclasses.replace(self._record, **done, **waited(payload['data']))
    before = trial_record.read_trial(config.path) if saved else None
    if before is not None:
      now = self._record
      self._record = dataclasses.replace(now, notes=before.notes, kept_params=before.kept_params)
      self._add_notes((*now.notes, *changes(before, now)))
    self._keeper = keeper
    if keeper is not None:
      self._take_up_kept(keeper, saved)
    self._log = self._open_log(config, saved)
    self._log.flush()
    self._log_offset = (config.path / measurements.LOG_FILE).stat().st_size
    self._write_descriptions(config, workload)
    self._record.write(self._folder)

  def _open_log(self, config: TrialConfig, saved: Loaded | None) -> RunLog:
    header = {'workload': config.workload, 'framework': config.framework, 'seed': config.seed}
    if saved is None:
      begun = config.resume and (config.path / measurements.LOG_FILE).exists()
      self._add_notes([BEGINS_ANEW] if begun and _has_rows(config.path) else [])
      return RunLog.open(config.path, header=header, resumed_at=0 if begun else None)
    log = RunLog.open(
      config.path,
      header=header,
      resumed_at=saved.step,
      preemption_count=self._preemption_count,
      position=saved.payload['log_position'],
      known=[row for _, row in saved.payload['position']['eval_results']],
    )
    self._add_notes(losses(log.restored_steps, log.num_lost))
    return log

  def _take_up_kept(self, keeper: ParamsKeeper, saved: Loaded | None) -> None:
    """Goes on with the parameters that the trial had kept when its checkpoint was saved."""
    rows = saved.payload['position']['eval_results'] if saved else []
    kept = None
    try:
      kept = keeper.chosen(rows)
    except FileNotFoundError as error:
      name, before = Path(error.filename).name, self._record.kept_params
      if before is not None and before['file'] == name:  # else another choice was kept, or none
        self._add_notes([f'{PARAMS_ARE_LOST} {name}.'])
    self._record = dataclasses.replace(self._record, kept_params=kept)
    keeper.remove_others(rows)

  def _add_notes(self, notes: Sequence[str]) -> None:
    together = dict.fromkeys((*self._record.notes, *notes))
    self._record = dataclasses.replace(self._record, notes=tuple(together))

  def _write_descriptions(self, config: TrialConfig, workload: Any) -> None:
    number = self._preemption_count
    if config.hyperparameters is not None:
      write_json_atomic(self._folder / 'hparams.json', dict(config.hyperparameters))
    write_json_atomic(self._folder / f'flags_{number}.json', dict(config.flags))
    meta_data = environment.meta_data(workload, self._record.environment, rng_seed=config.root_seed)
    write_json_atomic(self._folder / f'meta_data_{number}.json', meta_data)

  def evaluation(self, row: Mapping[str, float], global_step: int) -> None:
    self._sent(self._log.append_eval(row, global_step), global_step)

  def metrics(self, rows: list[tuple[int, Mapping[str, Any]]]) -> None:
    """Writes logged metrics; device scalars are fetched all at once."""
    names = [(index, name) for index, (_, values) in enumerate(rows) for name in values]
    fetched = self._backend.scalars(
      {str(number): rows[index][1][name] for number, (index, name) in enumerate(names)}
    )
    values: list[dict[str, float]] = [{} for _ in rows]
    for number, (index, name) in enumerate(names):
      values[index][name] = fetched[str(number)]
    for (global_step, _), row in zip(rows, values, strict=True):
      self._sent(self._log.append_metrics(row, global_step), global_step)

  def checkpoint(self, state: Mapping[str, Any]) -> None:
    self._log.flush()
    if self._keeper is not None:
      self._keep_params(self._keeper, state)
    if self._checkpoints is not None:
      self._save(self._checkpoints, state)
    if self._keeper is not None:  # not before the checkpoint: a resume may go back behind this step
      self._keeper.remove_others(state['position'].eval_results)
    self._record = dataclasses.replace(
      self._record,
      **progress(dataclasses.asdict(state['position']), state['buckets'], state['charged']),
      **waited(state['data']),
    )
    self._record.write(self._folder)

  def _keep_params(self, keeper: ParamsKeeper, state: Mapping[str, Any]) -> None:
    try:
      packed = _pack_if_due(keeper, self._backend, state)
      if packed is not None:
        kept = keeper.save(state['position'].global_step, packed)
        self._record = dataclasses.replace(self._record, kept_params=kept)
    except TypeError as error:
      self._keeper = None
      self._note(f'{CANNOT_BE_KEPT} {error}')

  def _save(self, checkpoints: Checkpoints, state: Mapping[str, Any]) -> None:
    position = state['position']
    try:
      payload = {
        **self._backend.pack({name: state[name] for name in STATE}),
        'position': dataclasses.asdict(position),
        'data': state['data'],
        'buckets': state['buckets'],
        'charged': state['charged'],
        'log_position': self._log.position,
        'preemption_count': self._preemption_count,
        'definition_hash': self._record.definition_hash,
      }
      checkpoints.save(position.global_step, payload)
    except TypeError as error:
      self._checkpoints = None
      self._note(f'{CANNOT_BE_SAVED} {error}')

  def progress(self, state: Mapping[str, Any]) -> None:
    self._report.send('progress', batch_size=self._record.batch_size, **state)

  def _note(self, text: str) -> None:
    self._add_notes([text])
    self._sent(self._log.append_event('note', text=text))

  def finish(self, final: Mapping[str, float], **fields: Any) -> int:
    global_step = fields['global_step']
    if final:
      self._sent(self._log.append_end(final, global_step), global_step)
    self._log.close()
    self._record = dataclasses.replace(self._record, **fields)
    self._record.write(self._folder)
    return self._log_offset

  def _sent(self, line: str, global_step: int = 0) -> None:
    self._report.send('row', line=line, global_step=global_step)


def _pack_if_due(
  keeper: ParamsKeeper, copies: StateCopies, state: Mapping[str, Any]
) -> dict[str, Any] | None:
  """Packs the parameters, in every process of the trial, if they are those that are kept."""
  position = state['position']
  if not keeper.is_due(position.eval_results, position.global_step):
    return None
  return keeper.pack(copies, state['params'], state['model_state'])


def progress(
  position: Mapping[str, Any], buckets: Mapping[str, float], charged_sec: float
) -> dict[str, Any]:
  """How far a trial has come, as fields of its record: what stays if the trial is interrupted.

  Args:
    position: the fields of a `Position`.
    buckets: seconds by bucket of the clock.
    charged_sec: seconds of other buckets that count as submission time too.
  """
  return {
    'global_step': position['global_step'],
    'charged_steps': position['charged_steps'],
    'step_time_sec': mean_step_sec(position['step_times']),
    'buckets': buckets,
    'submission_time_sec': sum(buckets[name] for name in SUBMISSION_BUCKETS) + charged_sec,
  }


def waited(data: Mapping[str, Any]) -> dict[str, Any]:
  """How long training has waited for data, as a field of the record.

  Args:
    data: the state of the input queue; empty where a former version saved it.
  """
  return {'data_wait_sec': data['wait_sec']} if 'wait_sec' in data else {}


def _has_rows(folder: Path) -> bool:
  """Whether a trial folder has evaluations, which a new beginning undoes."""
  return bool(measurements.read(folder).evals)


def losses(restored_steps: Sequence[int | float], num_lost: int) -> list[str]:
  """Says in notes which records the log of a trial had lost when the trial was resumed."""
  found = []
  if restored_steps:
    steps = ', '.join(map(str, restored_steps))
    found.append(
      f'The log was damaged: evaluations after these steps were restored from the checkpoint: '
      f'{steps}.'
    )
  if num_lost > len(restored_steps):
    found.append(
      'The log was damaged: other records are lost, such as metrics that the submission logged: '
      f'{num_lost - len(restored_steps)}.'
    )
  return found


def changes(before: TrialRecord, now: TrialRecord) -> list[str]:
  """Says in notes what sets a resumed trial apart from one that was not interrupted."""
  found = []
  if before.submission_hash not in ('', now.submission_hash):
    found.append('The files of the submission were changed before the trial was resumed.')
  threads = [record.environment.get('devices', {}).get('num_threads') for record in (before, now)]
  if threads[0] not in (None, threads[1]):  # older records need not say
    found.append(
      f'The trial began with {threads[0]} threads and was resumed with {threads[1]}: results are '
      'equal to the last bit at equal thread counts only.'
    )
  return found
