"""The rows of a trial reach its trackers from the process that started it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from algorithmic_efficiency.launch.relay import Relay
from algorithmic_efficiency.results.measurements import RunLog
from algorithmic_efficiency.trial.messages import Begin, Row

NAME = 'someones.tracker'


class Kept:
  """A tracker that keeps what it gets; `fails_at` is a step whose row it refuses."""

  fails_at: int | None = None

  def __init__(self, folder: Path, resumed_at: int | None):
    self.opened = (folder, resumed_at)
    self.rows: list[tuple[int, Mapping[str, float]]] = []
    self.num_flushed = 0
    self.thread = threading.current_thread()
    self.priority = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    self.is_closed = False

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    if step == self.fails_at:
      raise OSError('the disk is full')
    self.rows.append((step, values))

  def flush(self) -> None:
    self.num_flushed = len(self.rows)

  def close(self) -> None:
    self.is_closed = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Kept]:
  """The trackers that were started, of the module `NAME`."""
  found: list[Kept] = []
  package, module = ModuleType('someones'), ModuleType(NAME)
  package.__path__ = []
  module.start = lambda folder, *, resumed_at=None: (
    found.append(Kept(folder, resumed_at)) or found[-1]
  )
  module.__spec__ = __spec__
  monkeypatch.setitem(sys.modules, 'someones', package)
  monkeypatch.setitem(sys.modules, NAME, module)
  return found


def write(log: RunLog, steps: range) -> list[Row]:
  """Appends a metric and an evaluation after each step; returns the messages of the trial."""
  lines = []
  for step in steps:
    lines += [(log.append_metrics({'norm': step / 2}, step - 1), step - 1)]
    lines += [(log.append_eval({'loss': 1 / step}, step), step)]
  log.close()
  return [Row(line=line, global_step=step) for line, step in lines]


def relay(folder: Path, rows: list[Row]) -> None:
  with Relay(folder, [NAME]) as one:
    for message in (Begin(), *rows):
      one.take(message)


def test_rows_are_given_in_another_thread_and_all_are_there_at_the_end(tmp_path, opened):
  rows = write(RunLog.open(tmp_path, header={}), range(1, 4))
  relay(tmp_path, rows)
  [kept] = opened
  assert kept.opened == (tmp_path, None) and kept.is_closed
  assert [step for step, _ in kept.rows] == [0, 1, 1, 2, 2, 3] and kept.num_flushed == 6
  assert kept.rows[-1][1]['loss'] == 1 / 3
  assert kept.thread is not threading.main_thread() and kept.priority > 0


def test_a_resumed_trial_gives_the_rows_before_it_and_none_twice(tmp_path, opened):
  """The log holds the new rows by the time that the tracker is started."""
  write(RunLog.open(tmp_path, header={}), range(1, 6))
  log = RunLog.open(tmp_path, header={}, resumed_at=3)
  rows = write(log, range(4, 6))
  relay(tmp_path, rows)
  [kept] = opened
  assert kept.opened == (tmp_path, 3)
  evals = [step for step, row in kept.rows if 'loss' in row]
  assert evals == [1, 2, 3, 4, 5]


def test_a_trial_that_begins_anew_gives_its_own_rows_alone(tmp_path, opened):
  write(RunLog.open(tmp_path, header={}), range(1, 6))
  rows = write(RunLog.open(tmp_path, header={}, resumed_at=0), range(1, 3))
  relay(tmp_path, rows)
  [kept] = opened
  assert kept.opened == (tmp_path, 0)
  assert [step for step, _ in kept.rows] == [0, 1, 1, 2]


def test_a_tracker_that_fails_is_told_of_and_left_out(tmp_path, opened, monkeypatch, capfd):
  monkeypatch.setattr(Kept, 'fails_at', 2)
  relay(tmp_path, write(RunLog.open(tmp_path, header={}), range(1, 5)))
  assert [step for step, _ in opened[0].rows] == [0, 1, 1]
  [line] = capfd.readouterr().err.splitlines()
  assert line.startswith('algoeff: --log someones.tracker ended (OSError: the disk is full)')


def test_without_trackers_nothing_is_started(tmp_path):
  before = threading.active_count()
  with Relay(tmp_path, ()) as one:
    one.take(Begin())
    assert threading.active_count() == before


def test_a_trial_that_never_begins_starts_no_tracker(tmp_path, opened):
  with Relay(tmp_path, [NAME]):
    pass
  assert not opened and not list(tmp_path.iterdir())


def test_the_process_of_a_trial_knows_no_tracker():
  code = (
    'import sys, algorithmic_efficiency.trial.worker, algorithmic_efficiency.trial.process; '
    'sys.exit("algorithmic_efficiency.results.trackers" in sys.modules)'
  )
  subprocess.run([sys.executable, '-c', code], check=True)
