"""How the process of a trial ends from each stage that it may have reached."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_trial import FakeTrial, rules, step_rules

from algorithmic_efficiency import errors
from algorithmic_efficiency.trial import process
from algorithmic_efficiency.trial.checkpoint import Loaded
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.process import Assembled, Opened, TrialProcess
from algorithmic_efficiency.trial.run_options import RunOptions

FAILED = {'status': 'failed', 'stop_reason': 'failed', 'reason': 'why'}
FINISHED = {'status': 'finished', 'stop_reason': 'step_limit', 'reason': ''}


class FakeReport:
  def __init__(self) -> None:
    self.sent: list[dict[str, Any]] = []

  def send(self, kind: str, **fields: Any) -> None:
    self.sent.append({'kind': kind, **fields})


class FakeStream:
  workers = None
  is_started = is_closed = False

  def start(self) -> None:
    self.is_started = True

  def close(self) -> None:
    self.is_closed = True


class FakeRecorder:
  finished: dict[str, Any] | None = None

  def finish(self, final, **fields):
    self.finished = {'final': final, **fields}
    return 77


class FakeBackend:
  rank, world_size = 0, 1
  is_stopped = False

  def peak_memory_bytes(self) -> dict[str, int]:
    return {'host': 5}

  def key(self, key_data):
    return key_data

  def seed(self, value: int) -> None:
    pass

  def stop(self) -> None:
    self.is_stopped = True


class FakeStages:
  """A trial process whose stages are played; `until` is the last that it reaches."""

  def __init__(self, monkeypatch, folder: Path, until: str = 'assembled'):
    self.report, self.stream, self.recorder = FakeReport(), FakeStream(), FakeRecorder()
    self.trial = FakeTrial(step_rules(max_global_steps=3))
    self.parts = process.Parts(
      definition=None,
      rules=rules(),
      backend=FakeBackend(),
      task=SimpleNamespace(data=None),
      submission=SimpleNamespace(file=folder / 'submission.py'),
      batch_size=8,
      workload=SimpleNamespace(),
      eval_workload=SimpleNamespace(),
      root=None,
      init_sec=0.0,
      notes=(),
    )
    self.opened = opened = Opened(
      parts=self.parts,
      stream=self.stream,
      recorder=self.recorder,
      saved=None,
      params=1.0,
      model_state=None,
    )
    stages = {
      'gather': self.parts,
      'open_trial': opened,
      'assemble': Assembled(opened=opened, run=self.trial.run),
    }
    for name, value in stages.items():
      monkeypatch.setattr(process, name, self._stage(value, fails=name == until))
    config = TrialConfig(
      **dict.fromkeys(('workload', 'framework', 'submission', 'submission_path', 'suite'), 'x'),
      ruleset='self',
      study=1,
      trial=1,
      hyperparameters=None,
      seed=1,
      study_seed=1,
      root_seed=1,
      folder=str(folder),
    )
    self.process = TrialProcess(config, self.report)

  @staticmethod
  def _stage(value: Any, *, fails: bool):
    def stage(*arguments: Any) -> Any:
      if fails:
        raise errors.UserError('this stage fails')
      return value

    return stage

  def fail(self) -> None:
    with pytest.raises(errors.UserError, match='this stage fails'):
      self.process.run()
    self.process.finish(**FAILED)


def test_a_trial_without_parts_only_tells_its_parent(monkeypatch, tmp_path):
  stages = FakeStages(monkeypatch, tmp_path, 'gather')
  stages.fail()
  [ended] = stages.report.sent
  assert {name: ended[name] for name in FAILED} == FAILED
  assert (ended['kind'], ended['log_offset']) == ('ended', 0)
  assert ended['wall_sec'] > 0.0
  assert stages.recorder.finished is None and not stages.stream.is_closed
  assert stages.process.parts is None
  assert stages.process.missing_requirement(ValueError()) is None
  assert stages.process.one_line(ValueError('two\nlines')) == 'ValueError: two lines'


def test_one_with_parts_says_what_it_lacks(monkeypatch, tmp_path):
  stages = FakeStages(monkeypatch, tmp_path, 'open_trial')
  stages.fail()
  assert stages.process.parts is stages.parts
  assert stages.recorder.finished is None


def test_one_that_is_open_is_closed_and_recorded_at_step_0(monkeypatch, tmp_path):
  stages = FakeStages(monkeypatch, tmp_path, 'assemble')
  stages.fail()
  assert stages.stream.is_closed
  found = stages.recorder.finished
  assert found['final'] == {} and found['global_step'] == 0
  assert {name: found[name] for name in FAILED} == FAILED
  assert stages.report.sent[-1]['log_offset'] == 77


def test_one_that_could_not_be_resumed_is_recorded_where_it_stood(monkeypatch, tmp_path):
  """Regression: its record said step 0."""
  stages = FakeStages(monkeypatch, tmp_path, 'assemble')
  position = {'global_step': 7, 'charged_steps': 9, 'validation_goal': True}  # of version 0.1.0
  payload = {'position': position, 'buckets': {'update': 30.0, 'eval': 5.0}, 'charged': 1.0}
  opened = dataclasses.replace(stages.opened, saved=Loaded(7, payload))
  monkeypatch.setattr(process, 'open_trial', lambda *arguments: opened)
  stages.fail()
  found = stages.recorder.finished
  assert (found['global_step'], found['charged_steps']) == (7, 9)
  assert found['submission_time_sec'] == 31.0
  assert sum(found['buckets'].values()) == pytest.approx(35.0 + found['wall_sec'])


def test_one_that_has_run_is_recorded_where_it_stands(monkeypatch, tmp_path):
  stages = FakeStages(monkeypatch, tmp_path)
  assert stages.process.run() == 'step_limit'
  stages.trial.run.logger.append_scalar_metrics({'loss': 1.0}, 2)
  stages.process.finish(**FINISHED)
  found = stages.recorder.finished
  assert found['data_wait_sec'] == stages.trial.run.queue.wait_sec > 0
  assert found['global_step'] == found['charged_steps'] == 3
  assert found['step_time_sec'] == 0.125 and found['peak_memory_bytes'] == {'host': 5}
  assert sum(found['buckets'].values()) == pytest.approx(found['wall_sec'])
  assert set(found['final']) == {'score'}
  assert stages.trial.recorder.logged == [(2, {'loss': 1.0})]
  assert stages.stream.is_closed and stages.parts.backend.is_stopped
  assert [message['kind'] for message in stages.report.sent] == ['begin', 'ended']


def test_a_failed_one_has_no_final_row_and_leaves_its_group_to_the_others(monkeypatch, tmp_path):
  stages = FakeStages(monkeypatch, tmp_path)
  stages.process.run()
  stages.process.finish(**FAILED)
  assert stages.recorder.finished['final'] == {}
  assert not stages.parts.backend.is_stopped


def test_all_that_a_checkpoint_has_is_restored(monkeypatch, tmp_path):
  stages = FakeStages(monkeypatch, tmp_path)
  seen: list[Any] = []

  def overlay(fresh, packed, *, fixed):
    seen.append((fresh, fixed))
    return {name: f'{packed[name]} restored' for name in fresh}

  stages.parts.backend.overlay = overlay
  stages.parts.eval_workload.remember_frozen = lambda *state: seen.append(state)
  payload = {
    **{name: name for name in ('params', 'model_state', 'optimizer_state')},
    'data': {'position': 5, 'wait_sec': 1.5},
    'position': {'global_step': 2, 'charged_steps': 4},
    'buckets': {'update': 30.0},
    'charged': 1.0,
    'preemption_count': 3,
  }
  run = stages.trial.run
  process._restore(run, stages.opened, Loaded(2, payload))
  fresh = {'params': 1.0, 'model_state': None, 'optimizer_state': 'state'}
  frozen_in = ('params restored', 'model_state restored')
  assert seen == [(fresh, ('params',)), frozen_in]
  assert run.queue.state() == payload['data']
  assert (run.params, run.model_state) == ('params restored', 'model_state restored')
  assert run.optimizer_state == 'optimizer_state restored'
  assert (run.position.charged_steps, run.preemption_count) == (4, 4)
  assert run.watch.submission_time == 31.0


def test_a_checkpoint_of_a_former_version_says_nothing_of_waiting(monkeypatch, tmp_path):
  queue = FakeStages(monkeypatch, tmp_path).trial.run.queue
  queue.restore({'position': 5})
  assert queue.state() == {'position': 5, 'wait_sec': 0.0}


@pytest.mark.parametrize(
  ('asked', 'num_cpus', 'world_size', 'expected'),
  [
    (None, 8, 1, 7),
    (None, 64, 1, 12),
    (None, 8, 2, 3),
    (None, 1.5, 2, 0),
    (3, 1, 1, 3),
    (0, 8, 1, 0),
  ],
)
def test_data_workers_are_chosen_by_the_cores_of_a_process_unless_they_are_given(
  monkeypatch, tmp_path, asked, num_cpus, world_size, expected
):
  stages = FakeStages(monkeypatch, tmp_path)
  stages.parts.backend.world_size = world_size
  parts = dataclasses.replace(stages.parts, root=tmp_path, task=SimpleNamespace(data=object()))
  options = RunOptions(num_data_workers=asked)
  config = dataclasses.replace(stages.process._context.config, options=options)
  monkeypatch.setattr(process, 'num_usable_cpus', lambda: num_cpus)
  assert process._num_data_workers(config, parts) == expected


def test_data_are_closed_again_if_the_rest_cannot_be_opened(monkeypatch, tmp_path):
  stages = FakeStages(monkeypatch, tmp_path)
  monkeypatch.undo()

  def damaged(*arguments):
    raise errors.UserError('damaged')

  monkeypatch.setattr(process, '_open_stream', lambda *arguments: stages.stream)
  monkeypatch.setattr(process, '_saved', damaged)
  with pytest.raises(errors.UserError, match='damaged'):
    process.open_trial(stages.process._context, stages.parts)
  assert stages.stream.is_started and stages.stream.is_closed
