"""Whom the parent of a trial believes: its clock against the trial's, and its rows."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from test_local_launch import config

from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.launch.account import Account
from algorithmic_efficiency.launch.outcome import Outcome, outcome_of
from algorithmic_efficiency.launch.ranks import Heard
from algorithmic_efficiency.results import measurements
from algorithmic_efficiency.trial import messages

START = 1000.0  # of the parent's clock, in seconds


@dataclass
class FakeRank:
  """A process that is gone."""

  index: int = 0
  name: str = 'the process of the trial'
  garbled: str | None = None
  exit_code: int | None = 0

  def poll(self) -> int | None:
    return self.exit_code


class FakeTrial:
  """A trial of some rows on disk, whose process has said all that it should.

  Args:
    parent_sec: what the parent measures.
    child_sec: what the trial says that it took.
    late_sec: how late the parent may have heard of it.
  """

  def __init__(
    self, folder: Path, *, parent_sec: float = 10.0, child_sec: float = 10.0, late_sec: float = 0.0
  ):
    self.folder = folder
    self.account = Account(FakeRank())  # type: ignore[arg-type]
    self._say(messages.Start(age_sec=0.0), START, late_sec)
    log = measurements.RunLog.open(folder, header={})
    offset = (folder / measurements.LOG_FILE).stat().st_size
    for step in (1, 2, 3):
      line = log.append_eval({'validation/accuracy': 0.5, 'validation/loss': 2.0}, step)
      self._say(messages.Row(line=line, global_step=step))
    log.close()
    self.ended = messages.Ended(
      status='finished',
      stop_reason='step_limit',
      reason='',
      wall_sec=child_sec,
      log_offset=offset,
    )
    self._say(self.ended, START + parent_sec, late_sec)

  def _say(self, message: messages.Message, at: float = START, late_sec: float = 0.0) -> None:
    heard = Heard(rank=self.account.rank, message=message, at=at, age_sec=late_sec)
    self.account.take(heard)

  def outcome(self, **changes: Any) -> Outcome:
    return outcome_of(config(self.folder, **changes), [self.account], timed_out=False)


def is_clock_doubted(folder: Path, **times: float) -> bool:
  outcome = FakeTrial(folder, **times).outcome()
  assert outcome.status == ('invalid' if outcome.reason else 'finished')
  return outcome.reason.startswith('The clock of the trial is off')


def test_an_honest_trial_is_believed(tmp_path: Path):
  outcome = FakeTrial(tmp_path).outcome()
  assert (outcome.status, outcome.stop_reason, outcome.reason) == ('finished', 'step_limit', '')
  assert outcome.parent_wall_sec == 10.0


@pytest.mark.parametrize('sign', [1, -1])
@pytest.mark.parametrize(
  ('parent_sec', 'allowed_sec'),
  [(1.0, 0.5), (10.0, 0.5), (100.0, 1.0), (1000.0, 10.0)],  # half a second, or a hundredth
)
def test_the_clocks_of_trial_and_parent_agree(parent_sec, allowed_sec, sign, tmp_path: Path):
  for difference, is_doubted in ((0.98 * allowed_sec, False), (1.02 * allowed_sec, True)):
    folder = tmp_path / str(difference)
    child_sec = parent_sec + sign * difference
    assert is_clock_doubted(folder, parent_sec=parent_sec, child_sec=child_sec) == is_doubted


@pytest.mark.parametrize(('late_sec', 'is_doubted'), [(0.4, True), (2.3, True), (2.5, False)])
def test_what_the_parent_may_have_heard_late_is_allowed_for(late_sec, is_doubted, tmp_path: Path):
  """Two looks of 0.2 s each are nothing unusual, and half a second is allowed anyway."""
  times = {'parent_sec': 12.5, 'child_sec': 10.0, 'late_sec': late_sec}
  assert is_clock_doubted(tmp_path, **times) == is_doubted


def test_a_trial_that_never_began_has_not_finished(tmp_path: Path):
  trial = FakeTrial(tmp_path)
  trial.account.started = None
  outcome = trial.outcome()
  assert (outcome.status, outcome.parent_wall_sec) == ('invalid', None)


class TestRows:
  def is_doubted(self, trial: FakeTrial) -> bool:
    outcome = trial.outcome()
    assert outcome.status == ('invalid' if outcome.reason else 'finished')
    return 'rows on disk' in outcome.reason

  @pytest.mark.parametrize(
    ('old', 'new'),
    [('0.5', '0.9'), ('"global_step": 3', '"global_step": 2'), ('"eval"', '"metrics"')],
  )
  def test_a_row_that_was_changed(self, old, new, tmp_path: Path):
    trial = FakeTrial(tmp_path)
    log = tmp_path / measurements.LOG_FILE
    changed = log.read_text().replace(old, new)
    assert changed != log.read_text()
    log.write_text(changed)
    assert self.is_doubted(trial)

  def test_one_that_was_added(self, tmp_path: Path):
    trial = FakeTrial(tmp_path)
    log = tmp_path / measurements.LOG_FILE
    log.write_text(log.read_text() + json.dumps({'kind': 'eval', 'row': {'global_step': 4}}) + '\n')
    assert self.is_doubted(trial)

  def test_one_that_was_taken_away(self, tmp_path: Path):
    trial = FakeTrial(tmp_path)
    log = tmp_path / measurements.LOG_FILE
    log.write_text(''.join(log.read_text().splitlines(keepends=True)[:-1]))
    assert self.is_doubted(trial)

  def test_rows_before_this_session_are_not_its_business(self, tmp_path: Path):
    trial = FakeTrial(tmp_path)
    log = tmp_path / measurements.LOG_FILE
    header, *rows = log.read_text().splitlines(keepends=True)
    log.write_text(header.replace('"schema": 1', '"schema": 0') + ''.join(rows))
    assert not self.is_doubted(trial)

  @pytest.mark.parametrize('name', [measurements.EVAL_FILE, measurements.ALL_FILE])
  def test_a_table_that_does_not_hold_them(self, name, tmp_path: Path):
    trial = FakeTrial(tmp_path)
    table = tmp_path / name
    table.write_text(table.read_text().replace('0.5', '0.9', 1))
    assert trial.outcome().reason == f'{name} does not hold the rows of the log.'

  def test_one_of_several_parents_has_no_rows(self, tmp_path: Path):
    trial = FakeTrial(tmp_path)
    (tmp_path / measurements.LOG_FILE).unlink()
    assert trial.outcome(devices=Devices(rank=1, world_size=2)).status == 'finished'


def test_what_is_no_message_is_worse_than_what_was_said(tmp_path: Path):
  trial = FakeTrial(tmp_path)
  trial.account.rank.garbled = 'garbled'
  assert (trial.outcome().status, trial.outcome().reason) == ('invalid', 'garbled')


def test_a_trial_that_failed_is_not_doubted_as_well(tmp_path: Path):
  trial = FakeTrial(tmp_path, child_sec=99.0)
  failed = messages.Ended(
    status='failed', stop_reason='diverged', reason='the cause', wall_sec=99.0, log_offset=0
  )
  trial.account.ended = failed
  assert (trial.outcome().stop_reason, trial.outcome().reason) == ('diverged', 'the cause')


@pytest.mark.parametrize(
  ('exit_code', 'stop_reason', 'words'),
  [
    (None, 'failed', 'did not come to an end'),
    (0, 'failed', 'ended with exit code 0'),
    (3, 'failed', 'ended with exit code 3'),
    (-9, 'out_of_memory', r'was killed \(SIGKILL\), most likely for its memory'),
    (-15, 'interrupted', 'was ended by SIGTERM'),
    (-2, 'interrupted', 'was ended by SIGINT'),
    (-1, 'interrupted', 'was ended by SIGHUP'),
    (-11, 'failed', r'was ended by SIGSEGV.* output\.txt shows where it stood'),
  ],
)
def test_how_a_process_died(exit_code, stop_reason, words, tmp_path: Path):
  account = Account(FakeRank(exit_code=exit_code))  # type: ignore[arg-type]
  outcome = outcome_of(config(tmp_path), [account], timed_out=False)
  assert (outcome.status, outcome.stop_reason) == ('failed', stop_reason)

  assert re.search(words, outcome.reason)


def test_a_trial_that_is_silent_has_timed_out_however_it_was_ended(tmp_path: Path):
  account = Account(FakeRank(exit_code=-6))  # type: ignore[arg-type]
  quiet = config(tmp_path, heartbeat_timeout_sec=12.0)
  outcome = outcome_of(quiet, [account], timed_out=True)
  assert (outcome.status, outcome.stop_reason) == ('failed', 'heartbeat_timeout')
  assert '12 s' in outcome.reason
