"""A trial that is killed again and again ends with the rows of one that was left alone."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trials import (
  algoeff,
  holders,
  record,
  rows,
  trial_folder,
  wait_for_rows,
  without_times,
)

LONGEST_DELAY_SEC = 0.1  # between a row and a kill: some steps, an evaluation or a checkpoint

pytestmark = pytest.mark.slow


def command(framework: str, root: Path, num_steps: int) -> list[str]:
  return [
    *('run', '--workload', 'quick_vision', '--framework', framework, '--submission', 'nadamw'),
    *('--ruleset', 'self', '--allow_provisional', '--seed', '5', '--num_threads', '1'),
    *('--experiment_dir', str(root), '--quiet', '--max_global_steps', str(num_steps)),
  ]


@pytest.mark.parametrize('num_kills', [2, pytest.param(20, marks=pytest.mark.long)])
@pytest.mark.parametrize('framework', ['jax', pytest.param('pytorch', marks=pytest.mark.long)])
def test_killed_at_random_moments_and_resumed(framework: str, num_kills: int, tmp_path: Path):
  num_steps = 40 + 20 * num_kills  # or those of the budget
  whole = algoeff(*command(framework, tmp_path / 'whole', num_steps), cwd=tmp_path)
  assert whole.returncode == 0, whole.stderr
  expected = trial_folder(tmp_path / 'whole')
  found = tmp_path / 'cut' / expected.relative_to(tmp_path / 'whole')
  kills = 0
  generator = random.Random(11)
  for number in range(num_kills):
    resume = ['--resume'] if number else []
    process = subprocess.Popen(
      [
        sys.executable,
        '-m',
        'algorithmic_efficiency',
        *command(framework, tmp_path / 'cut', num_steps),
        *resume,
      ],
      cwd=tmp_path,
    )
    wait_for_rows(found, number + 1, generator.choice((0, 0, 1)), process)
    try:
      process.wait(timeout=generator.uniform(0, LONGEST_DELAY_SEC))
      break  # it got through before it could be killed
    except subprocess.TimeoutExpired:
      process.send_signal(signal.SIGKILL)
      process.wait()
      kills += 1
      assert_nothing_is_left_running(tmp_path / 'cut')
  assert kills == num_kills

  final = algoeff(*command(framework, tmp_path / 'cut', num_steps), '--resume', cwd=tmp_path)
  assert final.returncode == 0, final.stderr
  assert record(found).status == 'finished'
  assert record(found).stop_reason == record(expected).stop_reason
  assert without_times(rows(found).evals) == without_times(rows(expected).evals)
  assert without_times(rows(found).metrics) == without_times(rows(expected).metrics)


def assert_nothing_is_left_running(root: Path) -> None:
  """A killed launcher leaves no trial running: nobody holds a file below `root` open."""
  end = time.monotonic() + 60
  while holders(root):
    assert time.monotonic() < end, f'still running: {holders(root)}'
    time.sleep(0.05)
