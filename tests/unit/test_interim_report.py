"""When the report of a race that goes on is written, and what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_trial import FakeClock
from scoring_runs import hit_at, write_trial
from tallies import ended, record, started, tally, trial

import scoring
from algorithmic_efficiency.cli import _interim_report as module
from algorithmic_efficiency.cli._interim_report import InterimReports
from algorithmic_efficiency.launch.tally import Tally, Timing
from scoring import report

SEEDED = {'seeds': {'seed': 1}, 'status': 'finished'}


class FakeProcess:
  def __init__(self, command: list[str], **_: Any):
    self.command = command
    self.code: int | None = None
    self.was_ended = False

  def poll(self) -> int | None:
    return self.code

  def terminate(self) -> None:
    self.was_ended = True

  def wait(self, timeout: float | None = None) -> int:
    return 0


@pytest.fixture
def clock() -> FakeClock:
  return FakeClock()


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[FakeProcess]:
  made: list[FakeProcess] = []

  def popen(command: list[str], **options: Any) -> FakeProcess:
    made.append(FakeProcess(command, **options))
    return made[-1]

  monkeypatch.setattr(module.subprocess, 'Popen', popen)
  return made


def begun(clock: FakeClock) -> Tally:
  found = tally([trial('a', 1), trial('a', 2)], clock)
  found.take(started(0))
  found.take(ended(0))
  return found


def reports(clock: FakeClock, axis: str = 'cost_adjusted_steps') -> InterimReports:
  return InterimReports(['runs', '--suite', 'quick'], axis, now=clock)


def test_a_process_gets_the_numbers_and_the_arguments_of_score(clock, processes):
  reports(clock).take(begun(clock))
  [process] = processes
  assert process.command[1:] == [
    *('-m', 'algorithmic_efficiency.cli._interim_report', '1', '2', 'quick_vision/1'),
    *('runs', '--suite', 'quick'),
  ]


@pytest.mark.parametrize(
  ('axis', 'took', 'pause'),
  [('cost_adjusted_steps', 1.0, 30.0), ('cost_adjusted_steps', 6.0, 60.0), ('seconds', 6.0, 300.0)],
)
def test_reports_take_a_small_share_of_the_time(axis, took, pause, clock, processes):
  own, found = reports(clock, axis), begun(clock)
  own.take(found)
  clock.spend(took)
  own.take(found)  # which finds it still writing
  processes[0].code = 0
  own.take(found)
  assert len(processes) == 1
  clock.spend(pause - 0.1)
  own.take(found)
  assert len(processes) == 1
  clock.spend(0.2)
  own.take(found)
  assert len(processes) == 2


def test_none_is_written_while_steps_are_timed_or_about_to_be(clock, processes):
  timings = [Timing('quick_vision', 'jax', 2)]
  trials = [trial('a', 1), trial('a', 2)]
  found = tally(trials, clock, timings=timings, earlier={0: record(trials[0])})
  own = reports(clock)
  own.take(found)
  found.take(started(0))
  own.take(found)
  assert not processes
  found.take(ended(0))
  own.take(found)
  assert len(processes) == 1


def test_none_is_written_before_all_submissions_have_ended_a_study(clock, processes):
  found = tally([trial('a', 1), trial('b', 1), trial('a', 2), trial('b', 2)], clock)
  own = reports(clock)
  for job in (0, 2):
    found.take(started(job))
    found.take(ended(job))
    own.take(found)
  assert not processes
  found.take(started(1))
  found.take(ended(1))
  own.take(found)
  assert processes[0].command[5] == 'quick_vision/1'


def test_a_report_that_is_being_written_ends_with_the_race(clock, processes):
  own = reports(clock)
  own.close()
  own.take(begun(clock))
  own.close()
  assert processes[0].was_ended


class TestWritten:
  def arguments(self, folder: Path) -> list[str]:
    return [str(folder / 'runs'), '--suite', 'quick', '--output_dir', str(folder / 'out')]

  def test_the_page_says_that_the_race_goes_on_and_reloads_itself(self, tmp_path, monkeypatch):
    monkeypatch.setattr(module.os, 'nice', lambda by: 0)
    monkeypatch.setattr(module.signal, 'signal', lambda *_: None)
    for study, names in ((1, 'ab'), (2, 'ab'), (3, 'a')):
      for name in names:
        rows = hit_at('quick_vision', 5.0)
        write_trial(tmp_path / 'runs', name, 'quick_vision', rows, study=study, record=SEEDED)
    studies = 'quick_vision/1,quick_vision/2'
    assert module.main(['2', '10', studies, *self.arguments(tmp_path)]) == 0
    data = json.loads((tmp_path / 'out' / report.DATA).read_text())
    assert {row['num_trials'] for row in data['leaderboard']} == {2}  # b misses nothing
    page = (tmp_path / 'out' / report.PAGE).read_text()
    assert 'This race is not finished: 2 of 10 trials had ended' in page
    assert 'location.reload(), 30000' in page
    assert not (tmp_path / 'out' / 'leaderboard.json').exists()  # which others would take as final

    frame = scoring.load(tmp_path / 'runs')
    result = scoring.score(frame, 'quick', num_resamples=10)
    page = report.write(frame, result, tmp_path / 'out', figures=False).read_text()
    assert 'not finished' not in page and 'location.reload' not in page

  def test_what_cannot_be_scored_yet_writes_nothing(self, tmp_path, monkeypatch):
    monkeypatch.setattr(module.os, 'nice', lambda by: 0)
    monkeypatch.setattr(module.signal, 'signal', lambda *_: None)
    (tmp_path / 'runs').mkdir()
    assert module.main(['0', '10', 'quick_vision/1', *self.arguments(tmp_path)]) == 2
    assert not (tmp_path / 'out').exists()
