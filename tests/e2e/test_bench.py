"""A real race of a few steps, killed on the way, goes on without loss and ends with its score."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trials import holders, record, rows
from warm import algoeff

from algorithmic_efficiency.results import trial_record
from algorithmic_efficiency.results.environment import num_usable_cpus

pytestmark = pytest.mark.slow

STEPS = 45  # of which every second is evaluated
COMMAND = (
  *('bench', '--suite', 'quick', '--workloads', 'quick_vision', '--ruleset', 'self'),
  *('--submissions', 'nadamw,twin=nadamw,momentum', '--frameworks', 'jax', '--studies', '2'),
  *('--allow_provisional', '--max_global_steps', STEPS, '--seed', '4', '--num_threads', '1'),
)
NUM_TRIALS = 6


@pytest.mark.long
def test_killed_twice_and_continued(tmp_path: Path):
  runs = tmp_path / 'runs'
  launcher = _start(tmp_path)
  _wait(lambda: len(_records(runs)) == 2 and _finished(runs) == 1, launcher)
  launcher.kill()
  launcher.wait()
  _wait(lambda: not holders(runs))  # no orphan
  done = {path: path.stat().st_mtime_ns for path, one in _records(runs).items() if _is_done(one)}
  assert len(done) == 1

  launcher = _start(tmp_path)
  _wait(lambda: len(_records(runs)) == 3, launcher)
  [running] = [path for path, one in _records(runs).items() if one['status'] == 'running']
  for process in map(int, holders(running.parent)):
    if process != launcher.pid:
      os.kill(process, signal.SIGKILL)
  assert launcher.wait(timeout=300) == 1
  killed = record(running.parent)
  assert (killed.status, killed.stop_reason) == ('failed', 'out_of_memory')
  assert _finished(runs) == NUM_TRIALS - 1  # the others went on

  last = algoeff(*COMMAND, cwd=tmp_path)
  assert last.returncode == 0, last.stderr
  assert _finished(runs) == NUM_TRIALS
  for path, changed in done.items():
    assert path.stat().st_mtime_ns == changed, 'a trial that was done was run again'
  for path in _records(runs):
    steps = [row['global_step'] for row in rows(path.parent).evals]
    assert steps == [1, *range(2, STEPS, 2), STEPS]
  assert _values(runs, 'nadamw') == _values(runs, 'twin')
  assert len((runs / 'costs.jsonl').read_text().splitlines()) == 2 * 3  # a study and submission
  board = json.loads((runs / 'scores' / 'leaderboard.json').read_text())
  assert {row['submission'] for row in board['leaderboard']} == {'nadamw', 'twin', 'momentum'}

  again = algoeff(*COMMAND, '--no_score', '--quiet', cwd=tmp_path)
  assert (again.returncode, again.stdout) == (0, '')


def test_two_workers_give_the_rows_of_one(tmp_path: Path):
  command = (*COMMAND, '--studies', '1', '--submissions', 'nadamw,momentum', '--no_score')
  command += ('--max_global_steps', '12', '--plain_steps')
  one = algoeff(*command, '--experiment_dir', 'one', cwd=tmp_path)
  two = algoeff(*command, '--experiment_dir', 'two', '--workers', '2', cwd=tmp_path)
  assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
  cpus = {
    name: {found['environment']['num_usable_cpus'] for found in _records(tmp_path / name).values()}
    for name in ('one', 'two')
  }
  assert cpus == {'one': {num_usable_cpus()}, 'two': {num_usable_cpus() // 2}}
  for name in ('nadamw', 'momentum'):
    assert _values(tmp_path / 'one', name) == _values(tmp_path / 'two', name)


def _start(cwd: Path) -> subprocess.Popen:
  command = [sys.executable, '-m', 'algorithmic_efficiency', *map(str, COMMAND), '--quiet']
  return subprocess.Popen(command, cwd=cwd)


def _wait(condition, launcher: subprocess.Popen | None = None) -> None:
  end = time.monotonic() + 120
  while not condition():
    assert time.monotonic() < end
    assert launcher is None or launcher.poll() is None, 'it has ended too early'
    time.sleep(0.02)


def _records(runs: Path) -> dict[Path, dict]:
  return {path: json.loads(path.read_text()) for path in runs.rglob(trial_record.TRIAL_FILE)}


def _is_done(found: dict) -> bool:
  return found['status'] == 'finished' and found['parent_wall_sec'] is not None


def _finished(runs: Path) -> int:
  return sum(_is_done(found) for found in _records(runs).values())


def _values(runs: Path, submission: str) -> list[list[float]]:
  """The validation values of each trial of a submission."""
  return [
    [row['validation/accuracy'] for row in rows(path.parent).evals]
    for path in sorted((runs / submission).rglob(trial_record.TRIAL_FILE))
  ]
