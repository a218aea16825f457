"""Trials that wait for orders: their processes, what they say, and that nothing is left of them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from fake_trial import FakeTrial, rules, step_rules
from test_local_launch import config

from algorithmic_efficiency import clock, errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark.definition import Generation
from algorithmic_efficiency.launch import ranks, stepper
from algorithmic_efficiency.launch.slots import Slot
from algorithmic_efficiency.launch.stepper import Stepper, StepperError, moved
from algorithmic_efficiency.launch.trial_folder import scratch
from algorithmic_efficiency.trial.loop import Hooks
from algorithmic_efficiency.trial.messages import Interval
from algorithmic_efficiency.trial.step_worker import obey

READY = {'kind': 'ready', 'eval_batch_size': 7, 'clock_sec': 1.5}
INTERVAL = {
  'kind': 'interval',
  'num_steps': 4,
  'charged_steps': 8,
  'buckets': dict.fromkeys(clock.BUCKETS, 0.0) | {'data': 1.0, 'update': 3.0, 'eval': 9.0},
  'peak_memory_bytes': {'host': 5},
  'step_secs': [],
}


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  """A trial whose process runs this code; it has `send(message)`, `orders` and the plan."""

  def start(
    code: str, *, heartbeat_timeout_sec: float = 60.0, world_size: int = 1, **options
  ) -> Stepper:
    head = (
      'import json, os, sys, time\n'
      'def send(message):\n'
      '  os.write(int(sys.argv[1]), (json.dumps(message) + chr(10)).encode())\n'
      'orders = sys.stdin\nplan = json.loads(orders.readline())\n'
    )
    monkeypatch.setattr(stepper, '_WORKER', (sys.executable, '-c', head + code))
    monkeypatch.setattr(stepper, '_GRACE_SEC', 5.0)
    monkeypatch.setattr(ranks, 'GRACE_SEC', 5.0)
    devices = Devices(platform='cpu', world_size=world_size)
    trial = config(tmp_path / 'trial', heartbeat_timeout_sec=heartbeat_timeout_sec, devices=devices)
    return Stepper(trial, Slot(), **options)

  return start


def test_it_steps_when_it_is_told_to(play, tmp_path):
  answer = "{'num_steps': json.loads(line)['num_steps']}"
  code = f'send({READY})\nfor line in orders:\n  send({INTERVAL} | {answer})'
  with play(code) as trial:
    trial.wait()
    assert trial.start.eval_batch_size == 7
    interval = trial.go(3, max_batches=2)
    assert interval.num_steps == 3  # as it was told
    assert (interval.sec, interval.step_sec) == (4.0, 0.5)
  assert not trial.folder.exists() and not (tmp_path / 'trial').exists()


def test_it_ends_by_itself_when_there_is_no_further_order(play, tmp_path):
  done = tmp_path / 'done'
  code = f'send({READY})\nfor line in orders: pass\nopen({str(done)!r}, "w")'
  with play(code) as trial:
    trial.wait()
    assert trial.close() < 5.0
    assert done.exists() and trial.folder.exists()  # what it wrote can still be looked at
  assert not trial.folder.exists()


@pytest.mark.parametrize(('mendable', 'kind'), [(True, errors.UserError), (False, StepperError)])
def test_a_failure_is_raised_with_its_reason(play, mendable, kind):
  failed = {'kind': 'failed', 'reason': 'ValueError: no', 'mendable': mendable}
  with pytest.raises(kind, match='ValueError: no'), play(f'send({failed})') as trial:
    trial.wait()
  assert not trial.folder.exists()


@pytest.mark.timeout(120)  # the others wait for ten minutes
@pytest.mark.parametrize(
  ('end', 'words'),
  [
    ('os.kill(os.getpid(), 9)', 'was ended by SIGKILL'),
    ('print("the last line"); sys.exit(3)', 'exit code 3: the last line'),
    ('os._exit(0)', 'exit code 0: no output'),
    ('os.write(int(sys.argv[1]), b"not ours" + bytes([10])); time.sleep(60)', 'not ours'),
  ],
)
def test_a_process_that_dies_is_noticed(play, end, words):
  with (
    pytest.raises(StepperError, match=words),
    play(f'send({READY}); orders.readline(); {end}') as trial,
  ):
    trial.wait()
    trial.go(1)


@pytest.mark.timeout(120)  # the others wait for ten minutes
@pytest.mark.parametrize(
  ('end', 'words'),
  [
    ('os.kill(os.getpid(), 9)', 'rank 1 was ended by SIGKILL'),
    ('send({"kind": "failed", "reason": "ValueError: no", "mendable": False})', 'ValueError: no'),
  ],
)
def test_one_of_several_processes_that_fails_is_noticed_while_the_others_wait_for_it(
  play, end, words
):
  code = (
    f'send({READY}); orders.readline()\nif plan["devices"]["rank"] == 1:\n  {end}\ntime.sleep(600)'
  )
  with pytest.raises(StepperError, match=words), play(code, world_size=2) as trial:
    trial.wait()
    trial.go(1)


def test_the_process_that_died_is_named_and_not_one_that_misses_it(play, tmp_path):
  dying, said = tmp_path / 'dying', tmp_path / 'said'
  failed = {'kind': 'failed', 'reason': 'connection closed by peer', 'mendable': False}
  code = (
    f'if plan["devices"]["rank"] == 1:\n  open({str(dying)!r}, "w")\n  os.kill(os.getpid(), 9)\n'
    f'while not os.path.exists({str(dying)!r}): time.sleep(0.01)\ntime.sleep(0.5)\n'
    f'send({failed}); open({str(said)!r}, "w"); time.sleep(60)'
  )
  with pytest.raises(StepperError, match='rank 1 was ended'), play(code, world_size=2) as trial:
    while not said.exists():  # both are heard of at once
      time.sleep(0.01)
    trial.wait()


def test_a_process_that_says_nothing_is_given_up(play):
  silent = 'time.sleep(20)'
  with (
    pytest.raises(StepperError, match=r'sign of life for 0\.3 s'),
    play(silent, heartbeat_timeout_sec=0.3) as trial,
  ):
    trial.wait()


def test_a_process_that_hangs_up_and_lives_on_is_given_up(play, monkeypatch):
  """Regression: one that closed every descriptor was waited for without end."""
  with play(f'send({READY})\nos.close(int(sys.argv[1]))\ntime.sleep(60)') as trial:
    monkeypatch.setattr(stepper, '_GRACE_SEC', 0.2)
    monkeypatch.setattr(ranks, 'GRACE_SEC', 0.2)
    trial.wait()
    with pytest.raises(StepperError, match='and does not end'):
      trial.go(3)


def test_an_interrupt_ends_the_waiting_and_the_process(play, tmp_path):
  canceled = threading.Event()
  threading.Timer(0.3, canceled.set).start()
  pid = tmp_path / 'pid'
  code = f'open({str(pid)!r}, "w").write(str(os.getpid())); time.sleep(20)'
  with pytest.raises(KeyboardInterrupt), play(code, canceled=canceled) as trial:
    trial.wait()
  assert not Path(f'/proc/{pid.read_text()}').exists()


def test_what_a_killed_process_has_left_is_taken_away_and_nothing_else(tmp_path, monkeypatch):
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
  code = (
    'import time\nfrom algorithmic_efficiency.launch.trial_folder import scratch\n'
    'with scratch() as path: print(path, flush=True); time.sleep(60)'
  )
  (tmp_path / 'algoeff-of-somebody').mkdir()
  (tmp_path / 'algoeff-of-somebody' / '.lock').touch()  # as a folder of runs has
  command = [sys.executable, '-c', code]
  environment = {**os.environ, 'TMPDIR': str(tmp_path)}
  with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
    left = Path(process.stdout.readline().strip())
    (left / 'file').touch()
    with scratch() as own, scratch() as other:
      assert {left, own, other} < set(tmp_path.iterdir())
    assert left.is_dir()
    process.kill()
  with scratch() as own:
    assert sorted(tmp_path.iterdir()) == sorted([own, tmp_path / 'algoeff-of-somebody'])
  assert [path.name for path in tmp_path.iterdir()] == ['algoeff-of-somebody']


def test_everything_that_a_trial_writes_is_back_up(tmp_path):
  own = tmp_path / 'runs' / 'trial_1'
  devices = Devices(compilation_cache=str(own / '.cache'))
  trial = config(own, resume=True, devices=devices)
  apart = moved(trial, tmp_path / 'elsewhere')
  assert apart.path == tmp_path / 'elsewhere'
  assert apart.devices.compilation_cache == str(tmp_path / 'elsewhere' / '.cache')
  assert not apart.resume
  shared = config(own, devices=Devices(compilation_cache='/shared'))
  assert moved(shared, tmp_path / 'elsewhere').devices == shared.devices


class TestObey:
  """What the process does with an order, by the real loop on a clock set by hand."""

  def interval(
    self,
    trial: FakeTrial,
    num_steps: int,
    max_batches: int | None = None,
    generate: bool = False,
  ) -> Interval:
    def evaluate(params, model_state, step, max_batches, generate, is_last):
      trial.evaluations.append((step, max_batches, generate, is_last))
      trial.clock.spend(float(max_batches))
      return {'validation/accuracy': 1.0, 'test/accuracy': 1.0}  # which reaches every target

    trial.run.hooks = Hooks(evaluate=evaluate, reseed=lambda value: None)
    found = obey(trial.run, num_steps=num_steps, max_batches=max_batches, generate=generate)
    return Interval(**found, peak_memory_bytes={})

  @pytest.mark.parametrize('given', [rules(max_sec=1.0, eval_period_sec=0.1), step_rules(2, 1)])
  def test_it_makes_the_steps_that_it_is_told_to_whatever_the_budget(self, given):
    trial = FakeTrial(given, step_sec=0.25)
    for num_steps in (1, 3, 10):
      interval = self.interval(trial, num_steps)
      assert (interval.num_steps, interval.charged_steps) == (num_steps, num_steps)
      assert interval.sec == pytest.approx(0.25 * num_steps)
      assert interval.buckets['eval'] == 0.0
    assert trial.rows == []

  def test_it_evaluates_once_behind_the_steps_even_the_first(self):
    trial = FakeTrial(step_rules(), step_sec=0.25)
    for num_steps, max_batches in ((1, 1), (4, 2)):
      interval = self.interval(trial, num_steps, max_batches)
      assert interval.buckets['eval'] == pytest.approx(max_batches)
    assert [row['global_step'] for row in trial.rows] == [1, 5]

  def test_no_data_worker_runs_after_it(self):
    trial = FakeTrial(step_rules(), step_sec=0.25)
    for number in (1, 2):
      self.interval(trial, 3)
      assert (trial.stream.num_pauses, trial.stream.position) == (number, 3 * number)

  def test_it_generates_when_it_is_told_to_and_never_as_the_last_time(self):
    trial = FakeTrial(step_rules(generation=Generation(metrics=('accuracy',), every=1)))
    for generate in (False, True, False):
      self.interval(trial, 1, 1, generate)
    expected = [(1, 1, False, False), (2, 1, True, False), (3, 1, False, False)]
    assert trial.evaluations == expected

  def test_each_step_is_timed_by_itself_if_it_is_told_to(self):
    trial = FakeTrial(step_rules(), step_sec=0.25)
    self.interval(trial, 1)
    found = obey(trial.run, num_steps=5, max_batches=None, each_step=True)
    assert found['step_secs'] == [pytest.approx(0.25)] * 5
    assert found['buckets']['data'] + found['buckets']['update'] == pytest.approx(5 * 0.25)
    assert self.interval(trial, 5).step_secs == []
    assert trial.run.position.step_times[-1] == (pytest.approx(0.25), 5)  # without the others

  def test_waiting_for_the_order_is_no_time_of_the_trial(self):
    trial = FakeTrial(step_rules(), step_sec=0.25)
    self.interval(trial, 1)
    trial.clock.spend(100.0)
    interval = self.interval(trial, 2)
    assert sum(interval.buckets.values()) == pytest.approx(0.5)
