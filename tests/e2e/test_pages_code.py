"""The code and the commands of README and pages for newcomers, run in a new folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pages
import pytest
import yaml

pytest.importorskip('jax')

EXAMPLE_PAGE = 'examples/own_optimizer/README.md'
EXAMPLE = (pages.ROOT / EXAMPLE_PAGE).parent
EXAMPLE_TITLE = 'Sign momentum: an optimizer in a repository of its own'
TUTORIAL = 'docs/first_optimizer.md'
FIVE_MINUTES = pages.section('README.md', 'Your own optimizer in five minutes')
PYTHON = (pages.ROOT / 'docs' / 'api.md').read_text()


@pytest.fixture
def tutorial(tmp_path: Path) -> str:
  """The text of the tutorial, whose files lie in the folder of the test."""
  text = (pages.ROOT / TUTORIAL).read_text()
  assert pages.write_files(text, tmp_path) == {'sign_momentum.py', 'sign_momentum_torch.py'}
  return text


def verbs(text: str) -> list[str]:
  return [words[1] for _, words in pages.commands(text)]


def test_the_tutorial_goes_from_a_smoke_run_to_a_comparison():
  text = (pages.ROOT / TUTORIAL).read_text()
  assert verbs(text) == ['run', 'run', 'run', 'check', 'bench', 'compare']
  assert verbs(FIVE_MINUTES) == ['run', 'check']


def test_exported_and_own_variables_reach_a_command():
  text = """
    export A=1 B=2
    C=3 algoeff run \\
      --smoke "of $A"  # seconds
    source .venv/bin/activate

```
    algoeff not_a_command
```
"""
  assert list(pages.commands(text)) == [
    ({'A': '1', 'B': '2', 'C': '3'}, ['algoeff', 'run', '--smoke', 'of 1'])
  ]


@pytest.mark.slow
def test_the_optimizer_of_the_readme_runs_and_passes_the_check(tmp_path: Path):
  assert pages.write_files(FIVE_MINUTES, tmp_path) == {'my_optimizer.py'}
  (run_env, run), (check_env, check) = pages.commands(FIVE_MINUTES)
  pages.run(run_env, run, tmp_path, '--smoke')
  assert 'no error' in pages.run(check_env, check, tmp_path)


@pytest.mark.slow
def test_the_tutorial_starts_in_both_frameworks(tutorial: str, tmp_path: Path):
  environment, first = next(pages.commands(tutorial))
  pages.run(environment, first, tmp_path)
  pytest.importorskip('torch')
  words = ['algoeff', 'run', '--workload', 'quick_vision', '--smoke', '--hparam', 'lr=1e-3']
  pages.run(environment, [*words, '--optimizer', 'sign_momentum_torch.SignMomentum'], tmp_path)


def test_the_example_repository_holds_the_optimizer_of_the_tutorial(tutorial: str, tmp_path: Path):
  for file in tmp_path.glob('*.py'):
    assert (EXAMPLE / file.name).read_text() == file.read_text()


def test_the_readme_of_the_example_names_its_files():
  named = set(re.findall(r'`([\w./]+)`', pages.section(EXAMPLE_PAGE, EXAMPLE_TITLE)))
  found = {
    str(file.relative_to(EXAMPLE))
    for file in EXAMPLE.rglob('*')
    if file.is_file() and '__pycache__' not in file.parts
  }
  assert found - {'README.md'} <= named


def test_the_workflow_of_the_example_runs_its_checks():
  workflow = yaml.safe_load((EXAMPLE / '.github' / 'workflows' / 'checks.yml').read_text())
  steps = workflow['jobs']['checks']['steps']
  assert [step['run'] for step in steps if 'run' in step][-1] == 'sh checks.sh'


@pytest.mark.slow
def test_the_checks_of_the_example_pass_in_a_repository_of_its_own(tmp_path: Path):
  shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
  programs = Path(sys.executable).parent
  done = subprocess.run(
    ['sh', 'checks.sh'],
    cwd=tmp_path,
    env={
      **os.environ,
      'PATH': f'{programs}:{os.environ["PATH"]}',
      'PYTHONPATH': f'{tmp_path}:{pages.ROOT}',
    },
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert '3 passed' in done.stdout
  assert 'no error' in done.stdout


@pytest.mark.slow
def test_python_of_the_first_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
  first, second = re.findall(r'^```python\n(.*?)^```$', PYTHON, re.M | re.S)
  assert 'api.score' in second
  monkeypatch.chdir(tmp_path)
  exec(first, {})
  assert 'validation/accuracy' in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_tutorial_ends_with_a_line_on_a_board(
  tutorial: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
  for environment, words in pages.commands(tutorial):
    output = pages.run(environment, words, tmp_path)
  assert 'sign' in output and 'nadamw' in output
  board = json.loads((tmp_path / 'race' / 'scores' / 'leaderboard.json').read_text())
  assert {one['submission'] for one in board['leaderboard']} == {'sign', 'nadamw'}
  monkeypatch.chdir(tmp_path)
  _, second = re.findall(r'^```python\n(.*?)^```$', PYTHON, re.M | re.S)
  exec(second, {})
  assert 'sign' in capsys.readouterr().out
