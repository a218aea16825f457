"""Trials of several processes: one writer, and an end when one of them dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trials import algoeff, holders, record, rows, trial_folder

COMMAND = (
  *('run', '--workload', 'quick_vision', '--submission', 'nadamw', '--ruleset', 'self'),
  *('--platform', 'cpu', '--allow_provisional', '--experiment_dir', 'runs', '--quiet'),
)
TWO_PROCESSES = {
  'pytorch': ('--framework', 'pytorch', '--num_devices', '2'),
  'jax': ('--framework', 'jax', '--num_devices', '4', '--num_processes', '2'),
}

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('framework', TWO_PROCESSES)
def test_one_process_writes(framework: str, tmp_path: Path):
  flags = (*TWO_PROCESSES[framework], '--max_global_steps', '20')
  result = algoeff(*COMMAND, *flags, cwd=tmp_path)
  assert result.returncode == 0, result.stderr
  folder = trial_folder(tmp_path)
  assert record(folder).environment['devices']['world_size'] == 2
  assert [row['global_step'] for row in rows(folder).evals] == [1, *range(2, 21, 2)]


@pytest.mark.parametrize('framework', TWO_PROCESSES)
def test_a_process_that_dies_ends_the_trial(framework: str, tmp_path: Path):
  command = [sys.executable, '-m', 'algorithmic_efficiency', *COMMAND, *TWO_PROCESSES[framework]]
  launcher = subprocess.Popen(command, cwd=tmp_path)
  while not list(tmp_path.rglob('checkpoint_*')):
    assert launcher.poll() is None
    time.sleep(0.05)
  folder = trial_folder(tmp_path)
  [second] = set(holders(folder / 'output_rank1.txt')) - {str(launcher.pid)}
  os.kill(int(second), signal.SIGKILL)
  assert launcher.wait(timeout=300) == 1  # the ranks themselves would wait for longer
  assert record(folder).status == 'failed'
  assert 'rank 1 was killed' in record(folder).reason
  assert holders(tmp_path) == []


@pytest.mark.parametrize('num_trials', [2])
def test_torchrun_with_the_flags_of_algoperf(num_trials: int, tmp_path: Path):
  submission = Path(__file__).parents[2] / 'submissions/external_tuning/adamw/submission_pytorch.py'
  space = submission.with_name('tuning_search_space.json')
  result = subprocess.run(
    [
      *(sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2'),
      *('-m', 'algorithmic_efficiency.submission_runner', '--framework=pytorch', '--smoke'),
      *('--workload=quick_vision', f'--submission_path={submission}', '--platform=cpu'),
      *(f'--tuning_search_space={space}', f'--num_tuning_trials={num_trials}'),
      *('--experiment_dir=runs', '--experiment_name=adamw/study_1'),
    ],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    timeout=500,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  for number in range(1, num_trials + 1):
    folder = tmp_path / f'runs/adamw/study_1/quick_vision_pytorch/trial_{number}'
    assert record(folder).status == 'finished'
    assert (folder / 'hparams.json').exists()
