"""The walk-through of CONTRIBUTING: its files are written and its commands run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from algorithmic_efficiency.results import trial_record

pytest.importorskip('jax')

ROOT = Path(__file__).parents[2]
TASK = 'my_tasks/workloads/spirals'
PROGRAMS = {
  'algoeff': [sys.executable, '-m', 'algorithmic_efficiency'],
  '.venv/bin/python': [sys.executable],
}


@pytest.fixture(scope='module')
def walkthrough() -> str:
  text = (ROOT / 'CONTRIBUTING.md').read_text()
  [section] = re.findall(r'^### From an empty folder to a race\n(.*?)^##', text, re.M | re.S)
  return section


@pytest.fixture(scope='module')
def checkout(walkthrough: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A folder with the files of the repository, and those of the walk-through."""
  folder = tmp_path_factory.mktemp('checkout')
  for name in ('tests', 'pyproject.toml', 'CONTRIBUTING.md'):
    (folder / name).symlink_to(ROOT / name)
  (folder / TASK).mkdir(parents=True)
  for name, text in re.findall(r'^```python\n# (\w+\.py)\n(.*?)^```$', walkthrough, re.M | re.S):
    (folder / TASK / name).write_text(text)
  assert {file.name for file in (folder / TASK).iterdir()} == {
    'definition.py',
    'data.py',
    'model_jax.py',
  }
  return folder


def commands(walkthrough: str) -> list[list[str]]:
  text = re.sub(r'^```.*?^```$', '', walkthrough, flags=re.M | re.S)
  lines = re.sub(r'\\\n\s*', '', text).splitlines()
  return [shlex.split(line) for line in lines if line.startswith('    ')]


@pytest.mark.slow
def test_from_an_empty_folder_to_a_race(walkthrough: str, checkout: Path):
  for program, *arguments in commands(walkthrough):
    done = subprocess.run(
      [*PROGRAMS[program], *arguments],
      cwd=checkout,
      env={**os.environ, 'PYTHONPATH': str(ROOT)},
      capture_output=True,
      text=True,
      stdin=subprocess.DEVNULL,
      timeout=300,
      check=False,
    )
    assert done.returncode == 0, (arguments, done.stdout + done.stderr)
    if 'pytest' in arguments:
      assert int(done.stdout.split(' passed')[0].split()[-1]) > 20
  records = [
    trial_record.read_trial(file.parent)
    for file in (checkout / 'spirals_race').rglob(trial_record.TRIAL_FILE)
  ]
  assert [one.stop_reason for one in records if one is not None] == ['targets_reached'] * 4
  assert (checkout / 'spirals_race' / 'scores' / 'report.html').stat().st_size > 0


def test_the_walkthrough_shows_a_smoke_run_contract_tests_and_a_race(walkthrough: str):
  verbs = [
    arguments[0] if program == 'algoeff' else 'pytest'
    for program, *arguments in commands(walkthrough)
  ]
  assert verbs == ['run', 'pytest', 'bench']
