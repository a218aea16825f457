"""How far a race has come: counts, time left, and how it is shown."""

from __future__ import annotations

import dataclasses
import io
import statistics
from pathlib import Path

import pytest
import work
from fake_trial import FakeClock
from test_local_launch import config
from test_race import race

from algorithmic_efficiency.experiments.race import progress as module
from algorithmic_efficiency.experiments.race.progress import (
  RaceDisplay,
  RaceProgress,
  line,
  table,
)
from algorithmic_efficiency.experiments.race.race import expand
from algorithmic_efficiency.experiments.race.state import Kind, TrialState
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.launch.pool import Event
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.messages import Progress


def found(submission: str, study: int, kind: Kind = 'absent', seconds: float = 0.0) -> TrialState:
  one = config(Path(submission) / str(study), submission=submission, study=study)
  record = None
  if kind != 'absent':
    status = {'finished': 'finished', 'invalid': 'invalid'}.get(kind, 'failed')
    reason = '' if kind == 'finished' else 'the cause'
    record = dataclasses.replace(
      one.record(), status=status, reason=reason, buckets={'update': seconds}
    )
  return TrialState(config=one, record=record, kind=kind)


def outcome(status: str = 'finished', reason: str = '') -> Outcome:
  stop_reason = 'targets_reached' if status == 'finished' else 'failed'
  return Outcome(folder=Path(), status=status, stop_reason=stop_reason, reason=reason)


def started(index: int) -> Event:
  return Event(index=index, kind='started')


def ended(index: int, **fields: str) -> Event:
  return Event(index=index, kind='ended', outcome=outcome(**fields))


@pytest.fixture
def clock() -> FakeClock:
  return FakeClock()


class TestCounts:
  def test_a_trial_goes_from_left_to_running_to_its_end(self, clock):
    progress = RaceProgress(
      [found('a', 1), found('a', 2), found('b', 1)], [0, 1, 2], num_slots=1, now=clock
    )
    assert progress.total() == {'left': 3}
    progress.take(started(0))
    progress.take(ended(0))
    progress.take(started(1))
    progress.take(ended(1, status='failed', reason='the cause'))
    progress.take(started(2))
    counts = progress.counts()
    assert counts['a', 'some_workload', 'jax'] == {'done': 1, 'failed': 1}
    assert counts['b', 'some_workload', 'jax'] == {'running': 1}

  def test_what_is_not_run_counts_as_it_was_found(self, clock):
    states = [found('a', 1, 'finished'), found('a', 2, 'invalid'), found('a', 3, 'failed')]
    progress = RaceProgress(states, [], num_slots=1, now=clock)
    assert progress.total() == {'done': 1, 'failed': 2}
    assert [one.status for one in progress.outcomes().values()] == ['finished', 'invalid', 'failed']

  def test_a_job_that_is_no_trial_counts_nowhere(self, clock):
    progress = RaceProgress([found('a', 1)], [('some_workload', 'jax'), 0], num_slots=1, now=clock)
    assert progress.take(started(0)) is None
    assert progress.take(ended(0, status='failed')) is None
    assert progress.total() == {'left': 1}
    assert progress.take(started(1)) == 0


class TestTimeLeft:
  def test_nothing_is_known_before_a_trial_has_finished(self, clock):
    progress = RaceProgress([found('a', 1)], [0], num_slots=1, now=clock)
    assert progress.seconds_left() is None

  def test_trials_of_the_same_row_tell_before_others(self, clock):
    states = [
      *(found('a', 1, 'finished', 10.0), found('a', 2, 'finished', 30.0)),
      *(found('a', 3, 'finished', 20.0), found('b', 1, 'finished', 5.0)),
      *(found('a', 4), found('b', 2), found('c', 1)),
    ]
    progress = RaceProgress(states, [4, 5, 6], num_slots=2, now=clock)
    assert progress.seconds_left() == pytest.approx((20.0 + 5.0 + 15.0) / 2)

  def test_what_runs_has_a_part_behind_it_and_never_less_than_nothing_before_it(self, clock):
    progress = RaceProgress(
      [found('a', 1, 'finished', 10.0), found('a', 2)], [1], num_slots=1, now=clock
    )
    progress.take(started(0))
    clock.spend(4.0)
    assert progress.seconds_left() == pytest.approx(6.0)
    clock.spend(40.0)
    assert progress.seconds_left() == 0.0

  def test_trials_of_this_session_tell_too_unless_they_failed(self, clock):
    progress = RaceProgress([found('a', k) for k in (1, 2, 3)], [0, 1, 2], num_slots=1, now=clock)
    for index, status in enumerate(('failed', 'finished')):
      progress.take(started(index))
      clock.spend(1.0 if status == 'failed' else 8.0)
      progress.take(ended(index, status=status))
    assert progress.seconds_left() == pytest.approx(8.0)

  def test_steps_that_are_still_to_be_timed_count_with_the_longest_timing(self, clock):
    """Regression: the time left was that of trials alone, where timing took twice as long."""
    here, there = ('some_workload', 'jax'), ('other', 'jax')
    states = [found('a', 1, 'finished', 10.0), found('a', 2)]
    progress = RaceProgress(states, [here, here, there, 1, here], num_slots=1, now=clock)
    assert progress.seconds_left() == pytest.approx(10.0)
    for job, seconds, left in ((0, 30.0, 3 * 30.0), (1, 20.0, 2 * 30.0), (2, 40.0, 30.0)):
      progress.take(started(job))
      clock.spend(seconds)
      progress.take(ended(job))
      assert progress.seconds_left() == pytest.approx(left + 10.0)
    progress.take(started(4))
    clock.spend(8.0)
    assert progress.seconds_left() == pytest.approx(22.0 + 10.0)
    clock.spend(80.0)
    assert progress.seconds_left() == pytest.approx(10.0)

  def test_what_is_expected_is_worked_out_once_a_row(self, tmp_path, monkeypatch):
    configs = expand(race(tmp_path, *(f'e{index}=nadamw' for index in range(4))))
    states = [TrialState(config=one, record=None, kind='absent') for one in configs]
    progress = RaceProgress(states, list(range(len(configs))), num_slots=1)
    progress.take(started(0))
    progress.take(ended(0))
    median, taken = statistics.median, []
    monkeypatch.setattr(
      module.statistics, 'median', lambda found: taken.append(found) or median(found)
    )
    line(progress, 0)
    assert len(configs) == 100
    assert len(taken) == 4

  def test_the_work_of_a_line_grows_with_the_race_and_no_faster(self, tmp_path):
    configs = expand(race(tmp_path, *(f'e{index}=nadamw' for index in range(16))))
    assert len(configs) == 400

    def calls_of_a_line(configs: list[TrialConfig]) -> int:
      states = [TrialState(config=one, record=None, kind='absent') for one in configs]
      progress = RaceProgress(states, list(range(len(configs))), num_slots=1)
      for index in range(len(configs) // 2):
        progress.take(started(index))
        progress.take(ended(index))
      return work.num_calls(lambda: line(progress, 0))

    whole, half = calls_of_a_line(configs), calls_of_a_line(configs[::2])
    assert whole < 2.2 * half
    assert whole < 20 * len(configs)


class TestShown:
  def progress(self, clock: FakeClock) -> RaceProgress:
    progress = RaceProgress([found('a', k) for k in (1, 2, 3)], [0, 1, 2], num_slots=1, now=clock)
    progress.take(started(0))
    clock.spend(61.0)
    progress.take(ended(0))
    progress.take(started(1))
    message = Progress(
      global_step=7,
      charged_steps=7,
      submission_time=1.0,
      total_duration=1.0,
      eval=None,
      steps_per_sec=None,
      batch_size=8,
    )
    progress.take(Event(index=1, kind='message', message=message))
    return progress

  def test_a_line_for_each_trial_that_ended(self, clock):
    assert line(self.progress(clock), 0) == (
      '[1/3] a on some_workload (jax), study 1, trial 1: targets reached, 1 min 1 s; 1 running, '
      '0 failed, about 2 min 2 s left'
    )

  def test_the_cause_of_a_failure(self, clock):
    progress = self.progress(clock)
    progress.take(ended(1, status='failed', reason='the cause'))
    assert ', trial 1: FAILED: the cause, 0 s; 0 running, 1 failed' in line(progress, 1)

  def test_the_table(self, clock):
    console_module = pytest.importorskip('rich.console')
    out = io.StringIO()
    console_module.Console(file=out, width=100).print(table(self.progress(clock)))
    text = out.getvalue()
    assert '1 of 3 trials done, 1 running, 0 failed, about 2 min 2 s left' in text
    [row] = [entry for entry in text.splitlines() if 'some_workload' in entry]
    assert [cell.strip() for cell in row.strip('│ ').split('│')] == [
      *('a', 'some_workload', 'jax', '1', '1', '', '1', '7')
    ]

  def test_quiet_says_nothing(self, clock, capsys):
    with RaceDisplay(
      RaceProgress([found('a', 1)], [0], num_slots=1, now=clock), quiet=True
    ) as display:
      display.take(started(0))
      display.take(ended(0))
    assert capsys.readouterr() == ('', '')

  def test_plain_lines_where_there_is_no_terminal(self, clock, capsys):
    states = [found('a', 1), found('a', 2, 'finished', 1.0)]
    with RaceDisplay(RaceProgress(states, [0], num_slots=1, now=clock)) as display:
      display.take(started(0))
      display.take(ended(0))
    out = capsys.readouterr().out.splitlines()
    assert out[0] == 'Trials to run: 1; done before: 1, failed before: 0'
    assert out[1].startswith('[2/2] a on some_workload (jax), study 1, trial 1: targets reached')
    assert len(out) == 2

  def test_a_live_table_in_a_terminal(self, clock, capsys, monkeypatch):
    pytest.importorskip('rich.live')
    monkeypatch.setattr(module.sys.stderr, 'isatty', lambda: True)
    with RaceDisplay(self.progress(clock)) as display:
      display.take(ended(1))
    out, err = capsys.readouterr()
    assert 'trials done' in err
    assert out.count('\n') == 1
