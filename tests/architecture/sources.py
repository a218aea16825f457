"""The source files of the project, and what each imports, read without running it."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]
CORE = 'algorithmic_efficiency'
OURS = (CORE, 'workloads', 'submissions', 'scoring')
When = Literal['import', 'call', 'types']


@dataclass(frozen=True)
class Import:
  """One imported name; `when`: at import of the file, at a call, or for type checkers only."""

  file: Path
  line: int
  name: str
  when: When

  @property
  def top(self) -> str:
    return self.name.partition('.')[0]

  @property
  def is_standard(self) -> bool:
    return self.top in sys.stdlib_module_names

  def __str__(self) -> str:
    return f'{self.file.relative_to(ROOT)}:{self.line} imports {self.name}'


def files(*packages: str) -> list[Path]:
  """The Python files of our packages (all of them if none is named)."""
  found = [path for package in packages or OURS for path in (ROOT / package).rglob('*.py')]
  assert found
  return sorted(found)


@functools.cache
def imports(file: Path) -> tuple[Import, ...]:
  return tuple(_imports(tree(file), file, 'import'))


@functools.cache
def tree(file: Path) -> ast.Module:
  return ast.parse(file.read_text())


def module_name(file: Path) -> str:
  parts = file.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def _imports(node: ast.AST, file: Path, when: When) -> Iterator[Import]:
  for child in ast.iter_child_nodes(node):
    if isinstance(child, ast.Import):
      for alias in child.names:
        yield Import(file, child.lineno, alias.name, when)
    elif isinstance(child, ast.ImportFrom):
      for alias in child.names:
        yield Import(file, child.lineno, f'{_absolute(child, file)}.{alias.name}', when)
    elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
      yield from _imports(child, file, 'types' if when == 'types' else 'call')
    elif isinstance(child, ast.If) and 'TYPE_CHECKING' in ast.dump(child.test):
      for part in child.body:
        yield from _imports(ast.Module([part], []), file, 'types')
    else:
      yield from _imports(child, file, when)


def _absolute(node: ast.ImportFrom, file: Path) -> str:
  if not node.level:
    assert node.module
    return node.module
  package = file.relative_to(ROOT).parts[: -node.level]
  return '.'.join([*package, *filter(None, [node.module])])
