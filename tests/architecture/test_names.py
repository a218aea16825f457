"""The core knows no workload by name, and no file knows the machine it was written on."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sources import CORE, ROOT, files, tree

from algorithmic_efficiency.benchmark import registry

# Written so that this file does not find itself.
MACHINE_PATHS = re.compile(r'/(?:root|home|work|Users|opt)' r'/\w')
REGISTRY_HOSTS = re.compile(
  r'\b(?:pypi\.org|download\.pytorch\.org|files\.pythonhosted\.org)|/[s]imple\b'
)


def strings(module: ast.AST) -> Iterator[ast.Constant]:
  """The string constants that are no docstrings."""
  docs = {
    id(node.value)
    for node in ast.walk(module)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
  }
  for node in ast.walk(module):
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
      yield node


def test_no_workload_is_named_outside_its_task():
  names = re.compile(rf'\b(?:{"|".join(sorted(registry.workloads(), key=len, reverse=True))})\b')
  wrong = [
    f'{file.relative_to(ROOT)}:{node.lineno} {node.value!r}'
    for file in files(CORE, 'scoring')
    for node in strings(tree(file))
    if names.search(node.value)
  ]
  assert not wrong


def tracked_files() -> list[Path]:
  listed = subprocess.run(
    ['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True, check=False
  )
  if listed.returncode:
    pytest.skip('this is no checkout of git')
  return [ROOT / name for name in listed.stdout.split('\0') if name]


@pytest.mark.parametrize('pattern', [MACHINE_PATHS, REGISTRY_HOSTS], ids=['paths', 'hosts'])
def test_no_file_knows_a_machine_or_a_registry(pattern: re.Pattern[str]):
  wrong = []
  for path in tracked_files():
    if not path.is_file():
      continue
    for number, line in enumerate(path.read_bytes().decode('utf-8', 'replace').splitlines(), 1):
      if found := pattern.search(line):
        wrong.append(f'{path.relative_to(ROOT)}:{number} {found[0]}')
  assert not wrong
