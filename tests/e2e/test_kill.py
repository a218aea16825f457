"""A trial that is killed again and again ends with the rows of one that was left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from trials import algoeff, holders, record, rows, trial_folder

from algorithmic_efficiency import measurements

TIMES = (
  'accumulated_eval_time',
  'accumulated_logging_time',
  'accumulated_submission_time',
  'score',
  'total_duration',
  'preemption_count',
)
NUM_KILLS = int(os.environ.get('ALGOEFF_TEST_KILLS', '5'))

pytestmark = pytest.mark.slow


def command(framework: str, root: Path) -> list[str]:
  return [
    *('run', '--workload', 'quick_vision', '--framework', framework, '--submission', 'nadamw'),
    *('--ruleset', 'self', '--allow_provisional', '--seed', '5', '--num_threads', '1'),
    *('--experiment_dir', str(root), '--max_global_steps', '120', '--quiet'),
  ]


def without_times(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
  return [{key: value for key, value in row.items() if key not in TIMES} for row in found]


@pytest.mark.parametrize('framework', ['jax', 'pytorch'])
def test_killed_at_random_moments_and_resumed(framework: str, tmp_path: Path):
  whole = algoeff(*command(framework, tmp_path / 'whole'), cwd=tmp_path)
  assert whole.returncode == 0, whole.stderr
  expected = trial_folder(tmp_path / 'whole')
  found = tmp_path / 'cut' / expected.relative_to(tmp_path / 'whole')
  buckets = record(expected).buckets
  session = 2 * (record(expected).wall_sec - buckets['setup']) / (NUM_KILLS + 1)

  kills = 0
  generator = random.Random(11)
  for number in range(NUM_KILLS):
    resume = ['--resume'] if number else []
    process = subprocess.Popen(
      [
        sys.executable,
        '-m',
        'algorithmic_efficiency',
        *command(framework, tmp_path / 'cut'),
        *resume,
      ],
      cwd=tmp_path,
    )
    wait_for_sessions(found, number + 1, process)
    try:
      process.wait(timeout=generator.uniform(0, session))
      break  # it got through before it could be killed
    except subprocess.TimeoutExpired:
      process.send_signal(signal.SIGKILL)
      process.wait()
      kills += 1
      assert_nothing_is_left_running(tmp_path / 'cut')
  print(f'{kills} kills')
  assert kills >= (NUM_KILLS + 1) // 2

  final = algoeff(*command(framework, tmp_path / 'cut'), '--resume', cwd=tmp_path)
  assert final.returncode == 0, final.stderr
  assert record(found).status == 'finished'
  assert record(found).stop_reason == record(expected).stop_reason
  assert without_times(rows(found).evals) == without_times(rows(expected).evals)
  assert without_times(rows(found).metrics) == without_times(rows(expected).metrics)


def wait_for_sessions(folder: Path, number: int, process: subprocess.Popen) -> None:
  """Waits until the trial has been started or resumed `number` times."""
  log = folder / measurements.LOG_FILE
  while process.poll() is None:
    if log.exists():
      text = log.read_text()
      if text.count('"kind": "header"') + text.count('"kind": "resumed_at"') >= number:
        return
    time.sleep(0.02)


def assert_nothing_is_left_running(root: Path) -> None:
  """A killed launcher leaves no trial running: nobody holds a file below `root` open."""
  end = time.monotonic() + 5
  while holders(root):
    assert time.monotonic() < end, f'still running: {holders(root)}'
    time.sleep(0.05)
