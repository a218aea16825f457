"""Damaged trial folders are resumed, or refused with one message: no traceback, no row unsaid."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from race_damages import DAMAGES
from trials import record, rows, trial_folder, wait_for_rows, without_times
from warm import algoeff

from algorithmic_efficiency.results import measurements

NUM_CASES_PER_BATCH = 2
NUM_BATCHES = 25  # the first with the slow tests, the others with the long ones
RUN = ('--workload', 'quick_vision', '--submission', 'nadamw', '--framework', 'jax', '--seed', '1')


def arguments(root: Path) -> list[str]:
  return ['run', *RUN, '--max_global_steps', '60', '--experiment_dir', str(root)]


def run(root: Path, *more: str):
  return algoeff(*arguments(root), *more, cwd=root.parent)


@pytest.fixture(scope='module')
def stopped(tmp_path_factory) -> Path:
  """A trial that was killed after its third row."""
  root = tmp_path_factory.mktemp('stopped') / 'race'
  root.mkdir()
  command = [sys.executable, '-m', 'algorithmic_efficiency', *arguments(root)]
  with subprocess.Popen([*command, '--quiet'], cwd=root.parent) as process:
    wait_for_rows(root / 'nadamw' / 'study_1' / 'quick_vision_jax' / 'trial_1', 1, 3, process)
    assert process.poll() is None, 'it ended before it could be killed'
    process.kill()
  return root


@pytest.fixture(scope='module')
def reference(stopped, tmp_path_factory) -> list[dict]:
  """The evaluations of an undamaged copy that was resumed."""
  root = tmp_path_factory.mktemp('reference') / 'race'
  shutil.copytree(stopped, root)
  assert run(root, '--resume').returncode == 0
  assert '"resumed_at"' in (trial_folder(root) / measurements.LOG_FILE).read_text()
  return without_times(rows(trial_folder(root)).evals)


def batches():
  return [
    pytest.param(i, marks=pytest.mark.long if i else pytest.mark.slow) for i in range(NUM_BATCHES)
  ]


@pytest.mark.parametrize('batch', batches())
def test_a_damaged_trial_goes_on_as_it_was_or_says_what_is_wrong(
  tmp_path, stopped, reference, batch
):
  for case in range(NUM_CASES_PER_BATCH):
    rng = random.Random(f'resume {batch} {case}')
    root = tmp_path / str(case) / 'race'
    shutil.copytree(stopped, root)
    done = []
    for _ in range(rng.choice([1, 1, 2, 4])):
      paths = [path for path in root.rglob('*') if path.is_file() and path.name != '.lock']
      if not paths:
        break
      path, damage = rng.choice(sorted(paths)), rng.choice(DAMAGES)
      done.append(f'{damage.__name__} {path.name}')
      damage(path, rng)
    result = run(root, '--resume')
    said = f'{done}\n{result.stdout}\n{result.stderr}'
    assert result.returncode in (0, 2) and 'Traceback' not in said, said
    if result.returncode == 0:
      folder = trial_folder(root)
      assert record(folder).status == 'finished', said
      found = without_times(measurements.read(folder).evals)  # damaged lines stay in the log
      is_said = bool(record(folder).notes) or 'damaged' in said or 'anew' in said
      assert found == reference or is_said, f'{found}\n{reference}\n{said}'
    else:
      assert result.stderr.strip(), said
