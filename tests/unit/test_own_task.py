"""Tasks in folders of their own pass the contract tests, or these say what is wrong with them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TASK = ROOT / 'tests' / 'contracts' / 'own_task'
TOYS = ROOT / 'tests' / 'toys'


def check(tests: Sequence[str], *folders: object) -> tuple[int, str]:
  """Runs contract tests on tasks as their author does; gives the exit code and the output."""
  command = [sys.executable, '-m', 'pytest', '-q', '-rfE', '-p', 'no:cacheprovider', *tests]
  done = subprocess.run(
    [*command, *map(str, folders)],
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  return done.returncode, done.stdout + done.stderr


@pytest.fixture
def task(tmp_path: Path) -> Path:
  return shutil.copytree(TASK, tmp_path / 'workloads' / TASK.name)


FILES = ('tests/contracts/test_definitions.py', 'tests/contracts/test_task_exports.py')


@pytest.mark.slow
def test_what_is_wrong_with_a_task_elsewhere_is_found(task):
  (task / 'linear_model_jax.py').rename(task / 'linear_modle_jax.py')
  code, output = check(FILES, '--path', task.parents[1])
  failed = {line.split('::')[1].split(' - ')[0] for line in output.splitlines() if '::' in line}
  assert code == 1, output
  assert failed == {
    'test_the_files_of_a_definition_come_together[corners]',
    'test_every_file_that_looks_like_code_of_a_definition_is_that_of_one[own_task]',
  }
  assert ' passed' in output and 'quick_vision' not in output


def test_the_definitions_exports_and_data_of_the_toys_are_right():
  tests = (*FILES, 'tests/contracts/test_task_data.py', '-k', 'not agreed_arguments')
  code, output = check(tests, '--path', TOYS)  # without those tests, which import the frameworks
  assert code == 0, output
  assert ' skipped' not in output and num_passed(output) > 80


@pytest.mark.parametrize(
  ('flag', 'least'),
  [
    pytest.param('--path', 320, marks=pytest.mark.slow, id='toys'),
    pytest.param('--workload_path', 60, marks=pytest.mark.long, id='own task'),
  ],
)
def test_tasks_elsewhere_pass_every_contract_test(flag, least, task):
  pytest.importorskip('jax')
  pytest.importorskip('torch')
  pytest.importorskip('sacrebleu')
  folder = TOYS if flag == '--path' else task
  code, output = check(('tests/contracts', 'tests/parity'), flag, folder)
  assert code == 0, output
  assert ' skipped' not in output and num_passed(output) > least


def num_passed(output: str) -> int:
  return int(output.split(' passed')[0].split()[-1])
