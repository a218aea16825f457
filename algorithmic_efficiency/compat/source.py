"""Reads a Python source and finds what it imports and uses."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


def parsed(content: bytes, file: Path | str) -> ast.Module:
  """Parses the content of a Python file.

  Raises:
    SyntaxError: it is not valid Python; `filename` and `lineno` say where.
  """
  before, null, _ = content.partition(b'\0')
  if null:
    place = (str(file), before.count(b'\n') + 1, None, None)
    raise SyntaxError('a source file cannot hold a null character', place)
  try:
    return ast.parse(content, str(file))
  except SyntaxError as error:
    error.filename, error.lineno = error.filename or str(file), error.lineno or 1
    raise
  except (ValueError, RecursionError, MemoryError) as error:
    text = str(error) or 'it is nested too deeply'
    raise SyntaxError(text, (str(file), 1, None, None)) from None


@dataclass(frozen=True)
class Source:
  """The imports and uses of one file.

  Attributes:
    imports: absolute names that it imports or may import; `from a import b` gives `a` and `a.b`.
    uses: full names that it uses from modules, such as 'jax.pmap', under any alias. A call with
      keywords also gives 'jax.numpy.clip(a_min)', once for each keyword.
  """

  imports: frozenset[str]
  uses: frozenset[str]

  @classmethod
  def of(cls, tree: ast.AST) -> Source:
    imports: set[str] = set()
    uses: set[str] = set()
    for node in ast.walk(tree):
      if isinstance(node, ast.Import):
        imports.update(alias.name for alias in node.names)
      elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        names = {f'{node.module}.{alias.name}' for alias in node.names}
        imports |= {node.module, *names}
        uses |= names
    return cls(frozenset(imports), frozenset(uses | set(_uses(tree, meanings(tree)))))


def meanings(tree: ast.AST) -> dict[str, str]:
  """Returns the full name of each name that a source imports."""
  found: dict[str, str] = {}
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        top = alias.name.partition('.')[0]
        found[alias.asname or top] = alias.name if alias.asname else top
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
      for alias in node.names:
        found[alias.asname or alias.name] = f'{node.module}.{alias.name}'
  return found


def _uses(tree: ast.AST, meanings: dict[str, str]) -> Iterator[str]:
  for node in ast.walk(tree):
    if (name := full_name(node, meanings)) is not None:
      yield name
    elif isinstance(node, ast.Call) and (name := full_name(node.func, meanings)) is not None:
      yield from (f'{name}({keyword.arg})' for keyword in node.keywords if keyword.arg)


def full_name(node: ast.AST, meanings: dict[str, str]) -> str | None:
  """Returns the full name of a module's attribute that an expression uses, or None."""
  if isinstance(node, ast.Name):
    return meanings.get(node.id)
  if isinstance(node, ast.Attribute) and (base := full_name(node.value, meanings)) is not None:
    return f'{base}.{node.attr}'
  return None
