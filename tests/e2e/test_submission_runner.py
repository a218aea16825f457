"""The runner by AlgoPerf's flags."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from trials import record

pytestmark = pytest.mark.slow

SUBMISSION = Path(__file__).parents[2] / 'submissions/self_tuning/nadamw/submission_jax.py'


def run(*flags: str, cwd: Path) -> subprocess.CompletedProcess[str]:
  return subprocess.run(
    [
      *(sys.executable, '-m', 'algorithmic_efficiency.submission_runner', '--framework=jax'),
      *('--workload=quick_vision', '--smoke', f'--submission_path={SUBMISSION}'),
      *('--tuning_ruleset=self', '--experiment_dir=runs', '--experiment_name=nadamw/study_1'),
      *flags,
    ],
    cwd=cwd,
    capture_output=True,
    text=True,
    stdin=subprocess.DEVNULL,
    timeout=300,
    check=False,
  )


def test_fault_9_flags_of_trackers_do_not_crash_self_tuning(tmp_path: Path):
  result = run('--use_wandb', '--profile', '--save_checkpoints=false', cwd=tmp_path)
  assert result.returncode == 0, result.stderr
  assert '--use_wandb has no effect here' in result.stderr
  folder = tmp_path / 'runs/nadamw/study_1/quick_vision_jax/trial_1'
  assert record(folder).status == 'finished'
  assert (folder / 'measurements.csv').exists()


def test_flags_from_a_file(tmp_path: Path):
  (tmp_path / 'flags').write_text('--rng_seed=0\n--max_global_steps=3\n')
  result = run('--flagfile=flags', cwd=tmp_path)
  assert result.returncode == 0, result.stderr
  found = record(tmp_path / 'runs/nadamw/study_1/quick_vision_jax/trial_1')
  assert found.global_step == 3
  assert found.seeds['seed'] == 0


@pytest.mark.parametrize('flag', ['--no_such_flag=1', '--max_global_steps=many', '--workload=q'])
def test_wrong_flags_are_one_line_and_2(flag: str, tmp_path: Path):
  result = run(flag, cwd=tmp_path)
  assert result.returncode == 2
  assert 'Traceback' not in result.stderr
  assert len(result.stderr.strip().splitlines()) == 1
