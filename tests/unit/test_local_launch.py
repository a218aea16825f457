"""The parent of a trial: when it stops waiting, whom it believes, and what it leaves behind."""

from __future__ import annotations

import dataclasses
import selectors
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from algorithmic_efficiency import api, errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.launch import local, ranks
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.launch.trial_folder import TrialFolder, backup_of, recover
from algorithmic_efficiency.results import measurements, trial_record
from algorithmic_efficiency.trial import messages, worker
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.messages import Message, encoded
from algorithmic_efficiency.trial.run_options import with_options
from scoring.layout import find_trials

START = {'kind': 'start', 'age_sec': 0.0}
FINISHED = {
  'kind': 'ended',
  'status': 'finished',
  'stop_reason': 'step_limit',
  'reason': '',
  'wall_sec': 0.0,
  'log_offset': 0,
}
PROGRESS = encoded('begin', {})
FAILED = {**FINISHED, 'status': 'failed', 'stop_reason': 'failed', 'reason': 'the cause'}


def config(folder: Path, **changes: Any) -> TrialConfig:
  fields: dict[str, Any] = {
    'workload': 'some_workload',
    'framework': 'jax',
    'submission': 'some_submission',
    'submission_path': 'submission.py',
    'suite': 'quick',
    'ruleset': 'self',
    'study': 1,
    'trial': 1,
    'hyperparameters': None,
    'seed': 3,
    'study_seed': 2,
    'root_seed': 1,
    'folder': str(folder),
    **changes,
  }
  return with_options(TrialConfig, fields)


def play(
  *scripts: tuple[list[dict[str, Any]], str],
  folder: Path,
  monkeypatch: pytest.MonkeyPatch,
  on_message: local.OnMessage = lambda message: None,
  canceled: threading.Event | None = None,
  **changes: Any,
) -> Outcome:
  """Runs a trial whose processes send messages and then do something else: Python, in which SPEAK
  sends another message, and SEND is where messages go."""
  monkeypatch.setattr(local, '_GRACE_SEC', 0.3)
  monkeypatch.setattr(ranks, 'GRACE_SEC', 0.3)
  parts = [(said, then.replace('SPEAK', f'os.write(SEND, {PROGRESS!r})')) for said, then in scripts]
  code = f"""
import json, os, sys, threading, time
SEND = int(sys.argv[1])
said, then = {parts!r}[json.loads(sys.stdin.read())['devices']['rank']]
for message in said:
  os.write(SEND, (json.dumps(message) + chr(10)).encode())
exec(then)
"""
  monkeypatch.setattr(local, 'WORKER', (sys.executable, '-c', code))
  devices = Devices(world_size=len(scripts))
  return local.run_trial(config(folder, devices=devices, **changes), on_message, canceled=canceled)


def interrupted(*script: Any, **options: Any) -> None:
  """The same of a trial that is interrupted as soon as its process has said so much."""
  canceled = threading.Event()
  heard: list[Message] = []

  def take(message: Message) -> None:
    heard.append(message)
    if len(heard) == len(script[0][0]):
      canceled.set()

  with pytest.raises(KeyboardInterrupt):
    play(*script, on_message=take, canceled=canceled, **options)


class TestWaiting:
  def test_a_thread_that_never_ends_does_not_keep_the_launcher(self, tmp_path, monkeypatch):
    """Regression: a submission's own thread kept the process, and so the launcher, for ever."""
    forever = 'threading.Thread(target=time.sleep, args=(1000,)).start()'
    outcome = play(([START, FAILED], forever), folder=tmp_path / 'trial', monkeypatch=monkeypatch)
    assert (outcome.status, outcome.reason) == ('failed', 'the cause')

  def test_a_process_that_never_returns_is_ended_at_the_hard_limit(self, tmp_path, monkeypatch):
    folder = tmp_path / 'trial'
    never = ([START], 'time.sleep(1000)')
    outcome = play(never, folder=folder, monkeypatch=monkeypatch, heartbeat_timeout_sec=0.5)
    assert (outcome.status, outcome.stop_reason) == ('failed', 'heartbeat_timeout')
    assert '0.5 s' in outcome.reason
    assert trial_record.read_trial(folder).stop_reason == 'heartbeat_timeout'

  def test_a_process_that_gives_signs_of_life_may_go_on(self, tmp_path, monkeypatch):
    slowly = '\n'.join(['time.sleep(0.3)', *['SPEAK', 'time.sleep(0.3)'] * 4, 'os._exit(3)'])
    alive = ([START], slowly)
    outcome = play(
      alive, folder=tmp_path / 'trial', monkeypatch=monkeypatch, heartbeat_timeout_sec=1.0
    )
    assert 'exit code 3' in outcome.reason

  def test_what_has_left_its_group_is_ended_with_a_process_that_never_returns(
    self, tmp_path, monkeypatch
  ):
    """Regression: a process that a submission had put into a session of its own lived on."""
    code = f'import os\nos.setsid()\nopen({str(tmp_path / "own")!r}, "w").write(str(os.getpid()))'
    start = f'import subprocess; subprocess.Popen([sys.executable, "-c", {code!r} + SLEEP])'
    never = start.replace('SLEEP', repr('\nimport time; time.sleep(1000)')) + '; time.sleep(1000)'
    outcome = play(
      ([START], never),
      folder=tmp_path / 'trial',
      monkeypatch=monkeypatch,
      heartbeat_timeout_sec=2.0,
    )
    assert outcome.stop_reason == 'heartbeat_timeout'
    stat = Path(f'/proc/{(tmp_path / "own").read_text()}/stat')
    assert not stat.exists() or ') Z ' in stat.read_text()  # nobody may have noticed its end

  def test_a_process_that_leaves_without_a_word_has_failed(self, tmp_path, monkeypatch):
    outcome = play(([START], 'os._exit(0)'), folder=tmp_path / 'trial', monkeypatch=monkeypatch)
    assert outcome.status == 'failed'
    assert 'ended with exit code 0' in outcome.reason


def test_findings_of_every_process_are_heard_and_all_else_of_the_first_alone(tmp_path, monkeypatch):
  heard: list[Message] = []
  finding = {'kind': 'finding', 'rule': 'network', 'text': '', 'file': '', 'ends': False}
  scripts = [([START, {'kind': 'begin'}, {**finding, 'line': rank}], '') for rank in range(2)]
  play(*scripts, folder=tmp_path / 'trial', monkeypatch=monkeypatch, on_message=heard.append)
  assert sorted(one.line for one in heard if isinstance(one, messages.Finding)) == [0, 1]
  assert sum(isinstance(one, messages.Begin) for one in heard) == 1


class TestBelief:
  """What a submission can spoil is the trial's outcome, and nobody else's."""

  def test_what_is_no_message_makes_the_trial_invalid(self, tmp_path, monkeypatch):
    """Regression: the launcher crashed, and with it the race."""
    folder = tmp_path / 'trial'
    monkeypatch.setattr(sys.modules[__name__], 'PROGRESS', b'not ours\n')
    outcome = play(([START], 'SPEAK\ntime.sleep(1000)'), folder=folder, monkeypatch=monkeypatch)
    assert outcome.status == 'invalid'
    assert "b'not ours'. Only the harness may write there." in outcome.reason
    assert trial_record.read_trial(folder).status == 'invalid'

  @pytest.mark.parametrize('text', ['1', '[]', '{}', '{"kind"'])
  def test_a_message_is_an_object_with_a_kind(self, text):
    with pytest.raises(messages.GarbledError):
      list(messages.LineBuffer().feed(f'{text}\n'.encode()))

  def test_rows_that_are_gone_make_the_trial_invalid(self, tmp_path, monkeypatch):
    """Regression: the launcher crashed, and with it the race."""
    outcome = play(([START, FINISHED], ''), folder=tmp_path / 'trial', monkeypatch=monkeypatch)
    assert outcome.status == 'invalid'
    assert 'cannot be read any more: No such file' in outcome.reason

  @pytest.mark.parametrize(('stall_sec', 'is_doubted'), [(0.0, True), (1.5, False)])
  def test_a_launcher_that_was_held_up_does_not_blame_the_trial(
    self, tmp_path, monkeypatch, stall_sec, is_doubted
  ):
    """Regression: a launcher that was stopped for a while called the trial's clock off."""
    ended = {**FINISHED, 'wall_sec': 0.2}
    select = selectors.DefaultSelector.select
    heard: list[Message] = []

    def slowly(selector, timeout):
      ready = select(selector, timeout)
      time.sleep(stall_sec if heard else 0.0)
      return ready

    monkeypatch.setattr(selectors.DefaultSelector, 'select', slowly)
    real = 0.2 if stall_sec else 1.2
    script = f'time.sleep({real})\nos.write(SEND, (json.dumps({ended!r}) + chr(10)).encode())'
    outcome = play(
      ([START], script), folder=tmp_path / 'trial', monkeypatch=monkeypatch, on_message=heard.append
    )
    assert ('clock of the trial is off' in outcome.reason) == is_doubted


class TestBlame:
  """Regression: what a rank suffers when another fails was taken for the cause."""

  def test_the_process_that_failed_is_believed_and_not_the_one_that_waited_for_it(
    self, tmp_path, monkeypatch
  ):
    waiting, failing = ([START], 'time.sleep(1000)'), ([START, FAILED], 'sys.exit(1)')
    outcome = play(waiting, failing, folder=tmp_path / 'trial', monkeypatch=monkeypatch)
    assert (outcome.stop_reason, outcome.reason) == ('failed', 'the cause')

  def test_a_process_that_exits_is_blamed_and_not_the_one_that_was_ended(
    self, tmp_path, monkeypatch
  ):
    waiting, exiting = ([START], 'time.sleep(1000)'), ([START], 'os._exit(3)')
    outcome = play(waiting, exiting, folder=tmp_path / 'trial', monkeypatch=monkeypatch)
    assert outcome.stop_reason == 'failed'
    assert 'rank 1 ended with exit code 3' in outcome.reason

  def test_a_process_that_is_killed_is_blamed_before_one_that_complains(
    self, tmp_path, monkeypatch
  ):
    complaining = ([START, FAILED], 'sys.exit(1)')
    killed = ([START], 'os.kill(os.getpid(), 9)')
    outcome = play(complaining, killed, folder=tmp_path / 'trial', monkeypatch=monkeypatch)
    assert outcome.stop_reason == 'out_of_memory'
    assert 'rank 1 was killed' in outcome.reason


class TestRecord:
  def test_a_trial_that_died_at_once_has_a_record_that_can_be_read(self, tmp_path, monkeypatch):
    """Regression: its record held nothing but the status, and no resume got beyond it."""
    folder = tmp_path / 'trial'
    play(([START], 'os._exit(3)'), folder=folder, monkeypatch=monkeypatch)
    record = trial_record.read_trial(folder)
    assert record is not None
    assert (record.status, record.seeds['seed']) == ('failed', 1)

  def test_an_interrupted_trial_says_so(self, tmp_path, monkeypatch):
    """Regression: it was left as one that runs."""
    folder = tmp_path / 'trial'
    interrupted(([START], 'time.sleep(1000)'), folder=folder, monkeypatch=monkeypatch)
    record = trial_record.read_trial(folder)
    assert record is not None
    assert (record.status, record.stop_reason) == ('failed', 'interrupted')

  @pytest.mark.parametrize('end', ['time.sleep(1000)', 'os.kill(os.getpid(), 9)'])
  def test_it_counts_the_steps_of_its_rows(self, end, tmp_path, monkeypatch):
    """Regression: the record of a trial that was cut off said that it had made no step."""
    rows = [{'kind': 'row', 'line': '{}', 'global_step': step} for step in (1, 7, 0)]  # and a note
    options = {'folder': tmp_path / 'trial', 'monkeypatch': monkeypatch}
    script = ([START, *rows], end)
    if 'sleep' in end:
      interrupted(script, **options)
    else:
      play(script, **options)
    assert trial_record.read_trial(tmp_path / 'trial').global_step == 7

  @pytest.mark.parametrize(('resume', 'steps'), [(True, 9), (False, 0)])
  def test_one_that_goes_on_is_no_further_back(self, resume, steps, tmp_path, monkeypatch):
    options = {'folder': tmp_path / 'trial', 'monkeypatch': monkeypatch}
    before = dataclasses.replace(config(tmp_path).record(), global_step=9)
    (tmp_path / 'trial').mkdir()
    before.write(tmp_path / 'trial')
    running = dataclasses.replace(before, global_step=0).to_json()
    record = f'json.dump({running!r}, open({str(tmp_path / "trial" / "trial.json")!r}, "w"))'
    interrupted(([START], f'{record}\nSPEAK\ntime.sleep(1000)'), resume=resume, **options)
    assert trial_record.read_trial(tmp_path / 'trial').global_step == steps

  def test_one_that_ended_by_itself_knows_better(self, tmp_path, monkeypatch):
    folder = tmp_path / 'trial'
    ended = dataclasses.replace(config(folder).record(), status='failed', global_step=4).to_json()
    row = {'kind': 'row', 'line': '{}', 'global_step': 7}
    write = f'json.dump({ended!r}, open({str(folder / "trial.json")!r}, "w")); sys.exit(1)'
    play(([START, row, FAILED], write), folder=folder, monkeypatch=monkeypatch)
    assert trial_record.read_trial(folder).global_step == 4

  @pytest.mark.parametrize('damage', ['[1]', '{', '[' * 100_000, '{"status": ["invalid"]}'])
  def test_a_damaged_record_is_written_anew(self, damage, tmp_path, monkeypatch):
    """Regression: one that was no object ended the launcher."""
    folder = tmp_path / 'trial'
    write = f'open({str(folder / "trial.json")!r}, "w").write({damage!r}); sys.exit(1)'
    play(([START, FAILED], write), folder=folder, monkeypatch=monkeypatch)
    assert trial_record.read_trial(folder).reason == 'the cause'


class TestFolder:
  def test_only_folders_that_it_made_are_taken_away(self, tmp_path):
    """Regression: an empty folder of the user's went too, the working directory among them."""
    own = tmp_path / 'own'
    own.mkdir()
    with TrialFolder(own / 'runs' / 'study_1' / 'trial_1') as folder:
      folder.discard_if_empty()
    assert own.is_dir()
    assert not (own / 'runs').exists()

  @pytest.mark.parametrize(('global_step', 'is_kept'), [(0, False), (7, True)])
  def test_rows_beyond_the_first_step_are_kept(self, tmp_path, global_step, is_kept):
    """Regression: what was logged without any evaluation (--skip_evals) was thrown away."""
    path = tmp_path / 'trial'
    with TrialFolder(path) as folder:
      log = measurements.RunLog.open(path, header={})
      log.append_metrics({'loss': 1.0}, global_step)
      log.close()
      folder.discard_if_empty()
    assert path.exists() == is_kept

  def test_a_second_writer_is_refused(self, tmp_path):
    match = 'Another process is running a trial'
    with TrialFolder(tmp_path / 'trial'), pytest.raises(errors.UserError, match=match):
      TrialFolder(tmp_path / 'trial').__enter__()


def old_trial(path: Path) -> Path:
  write_row(path, 3)
  (path / 'old').write_text('')
  return path


def write_row(path: Path, global_step: int) -> None:
  path.mkdir(parents=True, exist_ok=True)
  log = measurements.RunLog.open(path, header={})
  log.append_metrics({'loss': 1.0}, global_step)
  log.close()


class TestReplacing:
  """Regression: --overwrite took away every old trial before anything was known to work."""

  def test_a_mistake_leaves_the_old_trial_as_it_was(self, tmp_path, monkeypatch):
    path = old_trial(tmp_path / 'trial_1')
    mistake = {'kind': 'user_error', 'message': 'a syntax error'}
    with pytest.raises(errors.UserError, match='a syntax error'):
      play(
        ([START, {'kind': 'begin'}, mistake], 'sys.exit(2)'),
        folder=path,
        monkeypatch=monkeypatch,
        overwrite=True,
      )
    assert (path / 'old').exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ['trial_1']

  def test_an_interrupt_before_the_first_row_leaves_the_old_trial(self, tmp_path, monkeypatch):
    path = old_trial(tmp_path / 'trial_1')
    script = ([START], 'time.sleep(1000)')
    interrupted(script, folder=path, monkeypatch=monkeypatch, overwrite=True)
    assert (path / 'old').exists()
    assert not (path / trial_record.TRIAL_FILE).exists()
    assert not backup_of(path).exists()

  def test_a_trial_that_ends_otherwise_has_replaced_it(self, tmp_path, monkeypatch):
    path = old_trial(tmp_path / 'trial_1')
    outcome = play(
      ([START, FAILED], 'sys.exit(1)'), folder=path, monkeypatch=monkeypatch, overwrite=True
    )
    assert outcome.status == 'failed'
    assert not (path / 'old').exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ['trial_1']

  def test_the_old_trial_goes_when_the_new_one_has_a_row(self, tmp_path):
    path = old_trial(tmp_path / 'trial_1')
    with TrialFolder(path, replace=True) as folder:
      assert backup_of(path).exists()
      folder.forget_replaced()
      assert not backup_of(path).exists()
      assert not folder.is_replacing()

  @pytest.mark.parametrize('folder_is_there', [True, False])
  def test_what_a_killed_launcher_left_aside_is_restore(self, folder_is_there, tmp_path):
    path = old_trial(tmp_path / 'trial_1')
    path.rename(backup_of(path))
    if folder_is_there:
      (path / 'half').mkdir(parents=True)
    recover(tmp_path)
    assert (path / 'old').exists()
    assert not (path / 'half').exists()
    assert not backup_of(path).exists()

  def test_it_is_taken_away_where_the_new_trial_has_rows(self, tmp_path):
    path = old_trial(tmp_path / 'trial_1')
    path.rename(backup_of(path))
    write_row(path, 1)
    recover(tmp_path)
    assert not (path / 'old').exists()
    assert not backup_of(path).exists()

  def test_both_folders_stay_locked(self, tmp_path):
    path = old_trial(tmp_path / 'trial_1')
    with TrialFolder(path, replace=True) as folder:
      recover(tmp_path)
      assert backup_of(path).exists()
      with pytest.raises(errors.UserError, match='Another process'), TrialFolder(path):
        pass
      assert folder.discard_if_empty()
      with pytest.raises(errors.UserError, match='Another process'), TrialFolder(path):
        pass
    assert (path / 'old').exists()

  def test_what_lies_aside_is_no_trial(self, tmp_path):
    path = tmp_path / 'some_submission' / 'study_1' / 'mnist_jax' / 'trial_1'
    for folder in (path, backup_of(path)):
      write_row(folder, 1)
      config(folder).record().write(folder)
    assert [trial.folder for trial in api.trials(tmp_path)] == [path]
    found, notes = find_trials(tmp_path)
    assert [trial.path for trial in found] == [str(path)]
    assert notes == []


def test_the_folder_of_an_optimizer_lies_in_that_of_the_trial(tmp_path, monkeypatch):
  entry = tmp_path / 'torch.optim.SGD'
  entry.mkdir()
  (entry / 'optimizer.json').write_text('{}')
  (entry / 'submission_pytorch.py').write_text('')
  folder = tmp_path / 'trial_1'
  there = f'os.path.exists({str(folder / entry.name / "optimizer.json")!r})'
  play(
    ([START], f'sys.exit(0 if {there} else 5)'),
    folder=folder,
    monkeypatch=monkeypatch,
    submission_path=str(entry / 'submission_pytorch.py'),
  )
  record = trial_record.read_trial(folder)
  assert record is not None and 'exit code 0' in record.reason  # it was there from the start
  assert (folder / entry.name / 'submission_pytorch.py').is_file()


def test_a_traceback_that_is_no_text_in_utf8_is_kept(tmp_path):
  """Regression: the trial ended without a reason, as writing its traceback failed."""
  try:
    raise RuntimeError('bad name \udcff')
  except RuntimeError:
    worker._keep_traceback(config(tmp_path))
  assert r'RuntimeError: bad name \udcff' in (tmp_path / 'traceback.txt').read_text('utf-8')
