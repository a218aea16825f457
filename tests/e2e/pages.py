"""The code of a page, run as a reader would: files are written, and commands run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

ROOT = Path(__file__).parents[2]
_PROGRAMS = {
  'algoeff': [sys.executable, '-m', 'algorithmic_efficiency'],
  'python': [sys.executable],
  '.venv/bin/python': [sys.executable],
  'sh': ['sh'],
}
_FENCED = re.compile(r'^```.*?^```$', re.M | re.S)
_VARIABLE = re.compile(r'(\w+)=(.*)')


def section(page: str, title: str) -> str:
  """The text below a heading, up to the next one of its level or above."""
  level, fenced, lines = 0, False, []
  for line in (ROOT / page).read_text().splitlines(keepends=True):
    fenced ^= line.startswith('```')
    heading = None if fenced else re.match(r'(#+) (.*)', line)
    if heading and level and len(heading[1]) <= level:
      break
    if level:
      lines.append(line)
    elif heading and heading[2] == title:
      level = len(heading[1])
  assert level, f'{page} has no heading {title!r}'
  return ''.join(lines)


def write_files(text: str, folder: Path) -> set[str]:
  """Writes the blocks of Python that begin with the name of their file; returns the names."""
  blocks = re.findall(r'^```python\n# (\w+\.py)\n(.*?)^```$', text, re.M | re.S)
  for name, code in blocks:
    (folder / name).write_text(code)
  return {name for name, _ in blocks}


def commands(text: str) -> Iterator[tuple[Mapping[str, str], list[str]]]:
  """Each command in indented blocks, with the environment that it and `export` lines give it."""
  exported: dict[str, str] = {}
  lines = re.sub(r'\\\n\s*', '', _FENCED.sub('', text)).splitlines()
  for line in lines:
    if not line.startswith('    '):
      continue
    words = [Template(word).safe_substitute(exported) for word in shlex.split(line, comments=True)]
    if words[0] == 'export':
      exported |= dict(word.split('=', 1) for word in words[1:])
      continue
    own: dict[str, str] = {}
    while found := _VARIABLE.fullmatch(words[0]):
      own[found[1]] = found[2]
      words = words[1:]
    if words[0] in _PROGRAMS:
      yield exported | own, words


def run(environment: Mapping[str, str], words: list[str], folder: Path, *more: str) -> str:
  """Runs a command of a page in a folder, with further arguments; returns what it printed."""
  path = [part for part in environment.get('PYTHONPATH', '').split(':') if part]
  done = subprocess.run(
    [*_PROGRAMS[words[0]], *words[1:], *more],
    cwd=folder,
    env={**os.environ, **environment, 'PYTHONPATH': ':'.join([*path, str(ROOT)])},
    capture_output=True,
    text=True,
    stdin=subprocess.DEVNULL,
    timeout=3600,
    check=False,
  )
  assert done.returncode == 0, (words, done.stdout + done.stderr)
  return done.stdout


def execute(cells: Sequence[str], names: dict[str, Any], folder: Path) -> None:
  """Executes the cells of a notebook, which may use these names; temporary files are in a folder.

  It changes this process.
  """
  tempfile.tempdir = os.environ['TMPDIR'] = str(folder)
  for cell in cells:
    exec(cell, names)
