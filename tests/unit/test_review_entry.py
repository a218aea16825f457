"""The script of the organizers' template, with a command that is made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ORGANIZERS = Path(__file__).resolve().parents[2] / 'organizers'
COMMAND = """#!{python}
import json, os, sys
verb = sys.argv[1]
with open({log!r}, 'a') as log:
  log.write(json.dumps(sys.argv[1:]) + '\\n')
print('output of', verb, '<b>', chr(27))
sys.exit({codes!r}.get(verb, 0))
"""


def review(
  folder: Path, *entries: str, codes: Mapping[str, int]
) -> tuple[int, str, list[list[str]]]:
  """Runs the script; returns its exit code, its comment, and the commands that it gave."""
  command, log = folder / 'bin' / 'algoeff', folder / 'log'
  command.parent.mkdir()
  command.write_text(COMMAND.format(python=sys.executable, log=str(log), codes=dict(codes)))
  command.chmod(0o755)
  done = subprocess.run(
    [sys.executable, ORGANIZERS / 'review_entry.py', *entries, '--output', 'comment.md'],
    cwd=folder,
    env={**os.environ, 'PATH': f'{command.parent}{os.pathsep}{os.environ["PATH"]}'},
    check=False,
  )
  commands = [json.loads(line) for line in log.read_text().splitlines()]
  return done.returncode, (folder / 'comment.md').read_text(), commands


@pytest.fixture
def folder(tmp_path: Path) -> Path:
  (tmp_path / 'fast').mkdir()
  (tmp_path / 'fast' / 'tuning_search_space.json').write_text('{}')
  (tmp_path / 'own').mkdir()
  return tmp_path


def test_a_folder_is_checked_run_and_packed_and_a_package_is_verified(folder: Path):
  code, comment, commands = review(folder, 'fast', 'own', 'a.zip', codes={})
  assert code == 0
  assert [words[0] for words in commands] == [*(['check', 'bench', 'pack'] * 2), 'verify']
  rulesets = [words[words.index('--ruleset') + 1] for words in commands if '--ruleset' in words]
  assert rulesets == ['external', 'external', 'self', 'self']
  assert '| `fast` | smoke run | passed |' in comment and '| `a.zip` | verify | passed |' in comment


def test_the_commands_are_those_of_the_command_line(folder: Path):
  from test_pages import unknown_words

  _, _, commands = review(folder, 'fast', 'a.zip', codes={})
  assert [unknown_words(words) for words in commands] == [[]] * 4


def test_what_fails_ends_the_review_of_that_entry_and_is_shown(folder: Path):
  code, comment, commands = review(folder, 'fast', 'a.zip', codes={'bench': 1, 'verify': 2})
  assert code == 1
  assert [words[0] for words in commands] == ['check', 'bench', 'verify']
  assert '| `fast` | smoke run | failed |' in comment
  assert '| `a.zip` | verify | could not run |' in comment
  assert '\n    output of bench <b> ?\n' in comment


def test_the_workflows_are_yaml_and_call_the_script_with_its_flags():
  import yaml

  shown = {
    path.name: yaml.safe_load(path.read_text())
    for path in (ORGANIZERS / '.github' / 'workflows').iterdir()
  }
  check, comment = shown['check_entry.yml'], shown['comment_entry.yml']
  assert check['permissions'] == {'contents': 'read'}
  assert comment[True]['workflow_run']['workflows'] == [check['name']]  # `on` is a bool in YAML
  scripts = [step.get('run', '') for step in check['jobs']['check']['steps']]
  assert any('organizers/review_entry.py --suite "$SUITE"' in script for script in scripts)
  site = shown['publish_site.yml']['jobs']['publish']['steps']
  assert any('algoeff site board -o public' in step.get('run', '') for step in site)
  assert not any('${{' in script for script in scripts), 'text of strangers goes through variables'
