"""What a trial writes, and what its record says about an interruption."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Target
from algorithmic_efficiency.clock import BUCKETS
from algorithmic_efficiency.errors import UserError
from algorithmic_efficiency.results import measurements, trial_record
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial import kept_params, recorder
from algorithmic_efficiency.trial.checkpoint import Checkpoints
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.kept_params import ParamsKeeper
from algorithmic_efficiency.trial.position import Position
from algorithmic_efficiency.trial.recorder import NullRecorder, TrialRecorder


def record(*, submission_hash: str = 'a', num_threads: int | None = 1) -> TrialRecord:
  fields: dict[str, Any] = {
    name: name for name in ('workload', 'framework', 'submission', 'suite', 'ruleset')
  }
  return TrialRecord(
    **fields,
    study=1,
    trial=1,
    submission_hash=submission_hash,
    environment={'devices': {'num_threads': num_threads}},
  )


def test_nothing_is_said_where_nothing_changed():
  assert recorder.changes(record(), record()) == []


def test_a_submission_that_was_edited_is_noted():
  [note] = recorder.changes(record(), record(submission_hash='b'))
  assert 'files of the submission were changed' in note


def test_another_number_of_threads_is_noted():
  [note] = recorder.changes(record(num_threads=2), record(num_threads=1))
  assert 'began with 2 threads and was resumed with 1' in note
  assert recorder.changes(record(num_threads=None), record(num_threads=2)) == []


# A trial's folder, with a backend that packs what is plain already.


class FakeBackend:
  def pack(self, trees):
    if 'bad' in trees.values():
      raise TypeError('something is bad')
    return dict(trees)

  def describe(self):
    return {'num_threads': 1}

  def evaluated(self, params, model_state):
    return f'evaluated {params}', model_state

  def scalars(self, values):
    return {name: float(value) for name, value in values.items()}


class FakeReport:
  def __init__(self) -> None:
    self.sent: list[dict[str, Any]] = []

  def send(self, kind: str, **fields: Any) -> None:
    self.sent.append({'kind': kind, **fields})


ROOT_SEED = 9
TARGET = Target(metric='accuracy', direction='max', validation=0.98, test=0.97)
WORKLOAD = SimpleNamespace(
  definition=dataclasses.replace(registry.workload('quick_vision'), target=TARGET)
)


def config(folder: Path, *, resume: bool = False) -> TrialConfig:
  return TrialConfig(
    workload='quick_vision',
    framework='jax',
    submission='mine',
    submission_path='x',
    suite='quick',
    ruleset='self',
    study=1,
    trial=1,
    hyperparameters=None,
    seed=987,
    study_seed=98,
    root_seed=ROOT_SEED,
    folder=str(folder),
    resume=resume,
  )


def keeper(folder: Path, keep: str) -> ParamsKeeper:
  target = WORKLOAD.definition.target
  return ParamsKeeper(folder, keep, target=target, eval_batch_size=360)


class Trial:
  """The recorder of a trial that is run, or resumed, in a folder."""

  def __init__(self, folder: Path, *, resume: bool = False, keep: str | None = None):
    checkpoints = Checkpoints(folder)
    self.saved = checkpoints.load() if resume else None
    self.position = Position(**self.saved.payload['position']) if self.saved else Position()
    given = config(folder, resume=resume)
    self.folder, self.report = folder, FakeReport()
    self.recorder = TrialRecorder(
      given,
      given.record(),
      backend=FakeBackend(),
      workload=WORKLOAD,
      report=self.report,
      checkpoints=checkpoints,
      saved=self.saved,
      keeper=keep and keeper(folder, keep),
    )

  def evaluate(self, step: int, value: float = 0.5, state: Any = 'state') -> None:
    """One evaluation, with what the submission logged before it, and its checkpoint."""
    position = self.position
    count = self.saved.payload['preemption_count'] + 1 if self.saved else 0
    row = {'validation/accuracy': value, 'test/accuracy': math.nan, 'preemption_count': count}
    self.recorder.metrics([(step - 1, {'loss': 2.0})])
    self.recorder.evaluation(row, step)
    position.global_step, position.charged_steps = step, 2 * step
    position.step_times.append((0.5, step))
    position.eval_results.append((step, {**row, 'global_step': step}))
    self.recorder.checkpoint(self.state(state))

  def state(self, state: Any) -> dict[str, Any]:
    step = self.position.global_step
    return {
      **dict.fromkeys(recorder.STATE, state),
      'position': self.position,
      'data': {'next': step, 'wait_sec': step / 4},
      'buckets': dict.fromkeys(BUCKETS, 0.0) | {'update': 1.5 * step, 'setup': 1.0},
      'charged': 0.25,
    }

  def finish(self) -> None:
    self.recorder.finish(
      {'score': 1.0}, global_step=self.position.global_step, status='finished', stop_reason='failed'
    )

  @property
  def record(self) -> TrialRecord:
    return read(self.folder)

  @property
  def evals(self) -> list[tuple[int, float]]:
    rows = measurements.read(self.folder).evals
    return [(row['global_step'], row['validation/accuracy']) for row in rows]


def interrupted(folder: Path) -> list[bytes]:
  """The lines of the log of a trial that was killed after its third evaluation."""
  trial = Trial(folder)
  for step in (1, 10, 20):
    trial.evaluate(step, step / 100)
  return (folder / measurements.LOG_FILE).read_bytes().splitlines(keepends=True)


ALL = [(1, 0.01), (10, 0.1), (20, 0.2)]


def test_a_log_that_is_whole_is_resumed_without_a_word(tmp_path):
  interrupted(tmp_path)
  trial = Trial(tmp_path, resume=True)
  assert trial.evals == ALL
  assert trial.record.notes == ()


def test_what_was_waited_for_data_is_recorded_up_to_the_checkpoint(tmp_path):
  interrupted(tmp_path)
  assert read(tmp_path).data_wait_sec == 5.0
  trial = Trial(tmp_path, resume=True)
  assert trial.record.data_wait_sec == 5.0
  assert recorder.waited({'next': 3}) == {}  # as former versions saved it


def read(folder: Path) -> TrialRecord:
  found = trial_record.read_trial(folder)
  assert found is not None
  return found


def without(*numbers: int):
  return lambda lines: [line for index, line in enumerate(lines) if index not in numbers]


def flipped(*numbers: int):
  return lambda lines: [
    b'\xff' + line[1:] if index in numbers else line for index, line in enumerate(lines)
  ]


def other_value(lines: list[bytes]) -> list[bytes]:
  return [line.replace(b'0.1,', b'0.9,') for line in lines]


# The log is: header, then metrics and evaluation for each of three steps.
DAMAGES = {
  'cut before the second evaluation': (lambda lines: lines[:4], [10, 20], 1),
  'cut within a line': (lambda lines: [*lines[:3], lines[3][:9]], [10, 20], 2),
  'only the header': (lambda lines: lines[:1], [1, 10, 20], 3),
  'empty': (lambda lines: [], [1, 10, 20], 4),
  'evaluations flipped': (flipped(2, 4), [1, 10], 0),
  'the header and metrics flipped': (flipped(0, 1), [], 2),
  'one evaluation deleted': (without(4), [10], 0),
  'another value': (other_value, [10], 0),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_evaluations_that_the_log_has_lost_are_restored_from_the_checkpoint(tmp_path, damage):
  """Regression: the trial ended with rows gone, and no word of it."""
  mutilate, restored, num_lost = DAMAGES[damage]
  lines = interrupted(tmp_path)
  (tmp_path / measurements.LOG_FILE).write_bytes(b''.join(mutilate(lines)))
  trial = Trial(tmp_path, resume=True)
  assert trial.evals == ALL
  notes = recorder.losses(restored, len(restored) + num_lost)
  assert list(trial.record.notes) == notes and len(notes) == bool(restored) + bool(num_lost)
  trial.evaluate(30, 0.3)
  trial.finish()
  assert trial.evals == [*ALL, (30, 0.3)]
  assert measurements.altered_views(tmp_path) == []
  assert measurements.read(tmp_path).header['workload'] == 'quick_vision'
  assert list(trial.record.notes) == notes


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_loss_is_said_once_however_often_the_trial_resumes(tmp_path, damage):
  mutilate, _, _ = DAMAGES[damage]
  lines = interrupted(tmp_path)
  (tmp_path / measurements.LOG_FILE).write_bytes(b''.join(mutilate(lines)))
  notes = Trial(tmp_path, resume=True).record.notes
  again = Trial(tmp_path, resume=True)
  assert again.evals == ALL and again.record.notes == notes
  again.evaluate(30, 0.3)
  last = Trial(tmp_path, resume=True)
  assert last.evals == [*ALL, (30, 0.3)] and last.record.notes == notes
  assert measurements.altered_views(tmp_path) == []


def test_the_notes_name_the_steps_and_count_the_rest():
  [restored, lost] = recorder.losses([1, 10], 5)
  assert restored.endswith('from the checkpoint: 1, 10.')
  assert 'other records are lost' in lost and lost.endswith(': 3.')
  assert recorder.losses([], 0) == []


def test_rows_restored_come_before_those_that_the_parent_counts(tmp_path):
  lines = interrupted(tmp_path)
  (tmp_path / measurements.LOG_FILE).write_bytes(b''.join(lines[:1]))
  trial = Trial(tmp_path, resume=True)
  offset = (tmp_path / measurements.LOG_FILE).stat().st_size
  assert [message for message in trial.report.sent if message['kind'] == 'row'] == []
  assert trial.recorder.finish({}, global_step=20) == offset


def test_a_trial_without_checkpoints_says_that_it_begins_anew(tmp_path):
  """Regression: it began anew without a note."""
  interrupted(tmp_path)
  for path in tmp_path.glob('checkpoint_*'):
    path.unlink()
  trial = Trial(tmp_path, resume=True)
  assert trial.evals == [] and trial.record.notes == (recorder.BEGINS_ANEW,)


def test_one_that_had_no_evaluation_loses_nothing_by_that(tmp_path):
  Trial(tmp_path)
  assert Trial(tmp_path, resume=True).record.notes == ()


def done(record: TrialRecord) -> tuple[Any, ...]:
  return (
    record.status,
    record.global_step,
    record.charged_steps,
    record.submission_time_sec,
    record.step_time_sec,
    sum(record.buckets.values()),
  )


def test_the_record_of_a_trial_that_is_killed_says_how_far_it_came(tmp_path):
  """Regression: it said step 0, whenever the trial was interrupted."""
  trial = Trial(tmp_path)
  assert done(trial.record)[:4] == ('running', 0, 0, 0.0)
  trial.evaluate(1)
  trial.evaluate(10)
  reached = ('running', 10, 20, 15.25, 0.5, 16.0)
  assert done(trial.record) == reached
  assert done(Trial(tmp_path, resume=True).record) == reached  # before its next evaluation


def test_so_does_that_of_a_trial_whose_state_is_not_saved(tmp_path):
  trial = Trial(tmp_path)
  trial.evaluate(10, state='bad')
  assert trial.record.global_step == 10


def test_a_state_that_cannot_be_saved_is_noted_once_and_no_more_tried(tmp_path):
  trial = Trial(tmp_path)
  trial.evaluate(1, state='bad')
  trial.evaluate(2, state='good')
  trial.finish()
  assert trial.record.notes == (f'{recorder.CANNOT_BE_SAVED} something is bad',)
  assert Checkpoints(tmp_path).load() is None


def test_the_parent_gets_each_line_as_it_stands_in_the_log(tmp_path):
  trial = Trial(tmp_path)
  offset = (tmp_path / measurements.LOG_FILE).stat().st_size
  trial.evaluate(1)
  assert trial.recorder.finish({'score': 2.0}, global_step=1) == offset
  sent = [message['line'] + '\n' for message in trial.report.sent if message['kind'] == 'row']
  written = (tmp_path / measurements.LOG_FILE).read_bytes()[offset:]
  assert ''.join(sent).encode() == written
  assert [json.loads(line)['kind'] for line in sent] == ['metrics', 'eval', 'end']


def test_other_processes_pack_but_write_nothing():
  backend = FakeBackend()
  packed: list[Any] = []
  backend.pack = lambda trees: packed.append(trees)
  state = dict.fromkeys(recorder.STATE, 1)
  NullRecorder(backend, checkpoints=False).checkpoint(state)
  assert packed == []
  other = NullRecorder(backend, checkpoints=True)
  other.checkpoint({**state, 'position': Position()})
  assert packed == [state]
  assert other.finish({'score': 1.0}, global_step=1) == 0


class TestKeptParams:
  @staticmethod
  def kept(folder: Path) -> list[int]:
    return [int(path.name.removeprefix('params_')) for path in folder.glob('params_*')]

  def test_nothing_is_written_unless_asked_for(self, tmp_path):
    trial = Trial(tmp_path)
    trial.evaluate(1)
    assert self.kept(tmp_path) == [] and trial.record.kept_params is None

  @pytest.mark.parametrize(
    ('keep', 'steps'), [('last', [1, 10, 20, 30]), ('best', [1, 10, 10, 10])]
  )
  def test_one_evaluation_is_kept_and_the_record_names_it(self, tmp_path, keep, steps):
    trial = Trial(tmp_path, keep=keep)
    for step, value, expected in zip((1, 10, 20, 30), (0.1, 0.3, 0.3, 0.2), steps, strict=True):
      trial.evaluate(step, value, f'state {step}')
      assert self.kept(tmp_path) == [expected]
    for path in tmp_path.glob('checkpoint_*'):
      path.unlink()
    found = trial.record.kept_params
    assert found == {
      'file': f'params_{steps[-1]}',
      'global_step': steps[-1],
      'num_bytes': (tmp_path / f'params_{steps[-1]}').stat().st_size,
    }
    kept = kept_params.load(tmp_path, trial.record)
    assert (kept.global_step, kept.eval_batch_size) == (steps[-1], 360)
    assert kept.trees == {
      'params': f'evaluated state {steps[-1]}',
      'model_state': f'state {steps[-1]}',
    }

  def test_the_best_is_the_least_where_the_target_is_to_be_minimized(self, tmp_path):
    target = Target(metric='loss', direction='min', validation=1.0)
    choose = kept_params._CHOICES['best']
    rows = [(1, 3.0), (2, math.nan), (3, -1.0), (4, 2.0), (5, 2.0)]  # no loss is negative
    assert choose([(step, {'validation/loss': value}) for step, value in rows], target) == 4
    assert choose([(1, {'validation/loss': math.nan}), (2, {})], target) is None

  def test_a_partial_evaluation_keeps_nothing(self, tmp_path):
    trial = Trial(tmp_path, keep='last')
    trial.evaluate(1)
    trial.position.global_step = 5
    trial.recorder.checkpoint(trial.state('later'))
    assert self.kept(tmp_path) == [1]

  def test_a_resumed_trial_keeps_the_best_it_had(self, tmp_path):
    trial = Trial(tmp_path, keep='best')
    for step, value in ((1, 0.1), (10, 0.9), (20, 0.5)):
      trial.evaluate(step, value, f'state {step}')
    trial = Trial(tmp_path, resume=True, keep='best')
    assert trial.record.kept_params['global_step'] == 10
    trial.evaluate(30, 0.8)
    assert self.kept(tmp_path) == [10] and trial.record.notes == ()
    trial.evaluate(40, 0.95)
    assert self.kept(tmp_path) == [40]

  def test_a_kill_before_the_checkpoint_loses_neither_the_old_nor_the_new_best(
    self, tmp_path, monkeypatch
  ):
    trial = Trial(tmp_path, keep='best')
    trial.evaluate(1, 0.5, 'first')
    with monkeypatch.context() as patch:
      patch.setattr(Checkpoints, 'save', killed)
      with pytest.raises(KeyboardInterrupt):
        trial.evaluate(10, 0.9)
    assert sorted(self.kept(tmp_path)) == [1, 10]
    (tmp_path / 'params_20.tmp').write_text('half of one')
    trial = Trial(tmp_path, resume=True, keep='best')
    assert [path.name for path in tmp_path.glob('params_*')] == ['params_1']
    assert trial.record.kept_params['global_step'] == 1

  def test_parameters_that_were_lost_are_noted(self, tmp_path):
    Trial(tmp_path, keep='last').evaluate(1)
    (tmp_path / 'params_1').unlink()
    trial = Trial(tmp_path, resume=True, keep='last')
    assert trial.record.notes == (f'{recorder.PARAMS_ARE_LOST} params_1.',)
    assert trial.record.kept_params is None

  @pytest.mark.parametrize('before', ['best', None])
  def test_what_was_never_kept_is_not_called_lost(self, tmp_path, before):
    trial = Trial(tmp_path, keep=before)
    for step, value in ((1, 0.9), (10, 0.1)):
      trial.evaluate(step, value)
    trial = Trial(tmp_path, resume=True, keep='last')
    assert trial.record.notes == () and trial.record.kept_params is None
    trial.evaluate(20)
    assert self.kept(tmp_path) == [20]

  def test_a_resume_without_the_option_leaves_what_is_kept(self, tmp_path):
    Trial(tmp_path, keep='last').evaluate(1)
    trial = Trial(tmp_path, resume=True)
    trial.evaluate(10)
    assert self.kept(tmp_path) == [trial.record.kept_params['global_step']] == [1]

  def test_parameters_that_cannot_be_kept_are_noted_once(self, tmp_path):
    trial = Trial(tmp_path, keep='last')
    trial.evaluate(1, state='bad')
    trial.evaluate(2, state='bad')
    notes = [note for note in trial.record.notes if note.startswith(recorder.CANNOT_BE_KEPT)]
    assert len(notes) == 1 and self.kept(tmp_path) == []

  def test_other_processes_take_part(self, tmp_path):
    backend, packed = FakeBackend(), []
    backend.pack = lambda trees: packed.append(trees)
    trial = Trial(tmp_path)
    trial.evaluate(1, 0.5)
    other = NullRecorder(backend, checkpoints=False, keeper=keeper(tmp_path, 'best'))
    other.checkpoint(trial.state('now'))
    assert packed == [{'params': 'evaluated now', 'model_state': 'now'}]
    trial.evaluate(2, 0.4)
    other.checkpoint(trial.state('later'))
    assert len(packed) == 1 and self.kept(tmp_path) == []

  def test_a_damaged_file_is_one_message(self, tmp_path):
    trial = Trial(tmp_path, keep='last')
    trial.evaluate(1)
    record = trial.record
    path = tmp_path / 'params_1'
    for damage in (lambda: path.write_bytes(path.read_bytes()[:-1]), path.unlink):
      damage()
      with pytest.raises(UserError, match=r'params_1 cannot be read .*--keep_params'):
        kept_params.load(tmp_path, record)

  def test_a_trial_that_kept_none_is_one_message(self, tmp_path):
    with pytest.raises(UserError, match='has kept no parameters; run it with --keep_params'):
      kept_params.load(tmp_path, record())


def killed(*_):
  raise KeyboardInterrupt


def test_the_seed_in_meta_data_is_that_of_the_command(tmp_path):
  """Regression: it was the seed of the trial, which is derived; AlgoPerf has the flag's."""
  Trial(tmp_path)
  written = json.loads((tmp_path / 'meta_data_0.json').read_text())
  assert written['rng_seed'] == ROOT_SEED
