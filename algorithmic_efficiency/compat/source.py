"""What a Python source imports and uses, found by reading it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
  """What one file says.

  Attributes:
    imports: absolute names that it imports, or may: `from a import b` gives `a` and `a.b`.
    uses: full names of what it takes from modules, such as 'jax.pmap', whatever it calls them by;
      calls with keywords appear as 'jax.numpy.clip(a_min)' too, once for each keyword.
  """

  imports: frozenset[str]
  uses: frozenset[str]

  @classmethod
  def of(cls, tree: ast.AST) -> Source:
    imports: set[str] = set()
    uses: set[str] = set()
    meanings: dict[str, str] = {}
    for node in ast.walk(tree):
      if isinstance(node, ast.Import):
        for alias in node.names:
          imports.add(alias.name)
          top = alias.name.partition('.')[0]
          meanings[alias.asname or top] = alias.name if alias.asname else top
      elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        imports.add(node.module)
        for alias in node.names:
          name = f'{node.module}.{alias.name}'
          imports.add(name)
          uses.add(name)
          meanings[alias.asname or alias.name] = name
    return cls(frozenset(imports), frozenset(uses | set(_uses(tree, meanings))))


def _uses(tree: ast.AST, meanings: dict[str, str]) -> Iterator[str]:
  for node in ast.walk(tree):
    if (name := _full_name(node, meanings)) is not None:
      yield name
    elif isinstance(node, ast.Call) and (name := _full_name(node.func, meanings)) is not None:
      yield from (f'{name}({keyword.arg})' for keyword in node.keywords if keyword.arg)


def _full_name(node: ast.AST, meanings: dict[str, str]) -> str | None:
  if isinstance(node, ast.Name):
    return meanings.get(node.id)
  if isinstance(node, ast.Attribute) and (base := _full_name(node.value, meanings)) is not None:
    return f'{base}.{node.attr}'
  return None
