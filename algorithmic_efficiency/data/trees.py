"""Trees of arrays, the structure of batches and examples.

A tree is a numpy array of numbers, a dict of trees with string keys, or a tuple of trees, and
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Tree = Any

_NO_NUMBERS = {'O': 'objects', 'U': 'texts', 'S': 'texts', 'M': 'dates', 'm': 'durations'}


class TreeError(ValueError):
  """A value is no tree of arrays, or two trees differ; the message names the path.

  Attributes:
    row: which of several trees is wrong; None where that is not known.
  """

  def __init__(self, message: str, row: int | None = None):
    super().__init__(message)
    self.row = row


def leaves(tree: Tree, path: str = '') -> Iterator[tuple[str, np.ndarray]]:
  """Yields the arrays of a tree with their paths, such as `image/pixels` or `inputs/0`.

  Raises:
    TreeError: a leaf is no array of numbers, or a key is no string.
  """
  if isinstance(tree, (dict, tuple)):
    for key, child in _children(tree, path):
      yield from leaves(child, f'{path}/{key}' if path else str(key))
  elif isinstance(tree, (np.ndarray, np.generic)) and tree.dtype.kind not in _NO_NUMBERS:
    yield path, np.asarray(tree)
  else:
    raise TreeError(f'{path or "it"} must be an array; it is {_described(tree)}.')


def map_leaves(function: Callable[..., Any], *trees: Tree) -> Tree:
  """Returns the tree of `function(leaf, leaf, ...)` over trees of one structure.

  Raises:
    TreeError: the trees differ in structure.
  """
  return _map(function, trees, '')


def _map(function: Callable[..., Any], trees: tuple[Tree, ...], path: str) -> Tree:
  first = trees[0]
  if isinstance(first, dict):
    for other in trees[1:]:
      if not isinstance(other, dict) or other.keys() != first.keys():
        raise TreeError(_difference(first, other, path))
    return {key: _map(function, tuple(t[key] for t in trees), f'{path}/{key}') for key in first}
  if isinstance(first, tuple):
    for other in trees[1:]:
      if not isinstance(other, tuple) or len(other) != len(first):
        raise TreeError(_difference(first, other, path))
    return tuple(
      _map(function, parts, f'{path}/{i}') for i, parts in enumerate(zip(*trees, strict=True))
    )
  for other in trees[1:]:
    if isinstance(other, (dict, tuple)):
      raise TreeError(_difference(first, other, path))
  return function(*trees)


def stack(examples: list[Tree]) -> Tree:
  """Joins examples of one structure along a new first axis.

  Raises:
    TreeError: a leaf is no array, or the examples differ in structure, shape or type.
  """
  require_same(examples)
  return map_leaves(lambda *arrays: np.stack(arrays), *examples)


def require_same(examples: list[Tree], *, first_axis: bool = True) -> None:
  """Checks that examples have one structure, and leaves of one type and shape.

  Args:
    first_axis: False lets the lengths of the first axis differ.

  Raises:
    TreeError: a leaf is no array, or an example differs from the first.
  """
  begin = 0 if first_axis else 1
  forms = [
    [(path, leaf.shape[begin:], leaf.dtype) for path, leaf in leaves(one)] for one in examples
  ]
  for row, form in enumerate(forms):
    if form != forms[0]:
      raise TreeError(
        f'examples must have one structure; it is {_form(form)}, the first of its batch '
        f'{_form(forms[0])}.',
        row,
      )


def gather(tree: Tree, indices: np.ndarray) -> Tree:
  """Copies the rows of every leaf [n, ...] at int64 indices [rows]."""
  return map_leaves(lambda array: np.take(array, indices, axis=0), tree)


def _children(tree: dict[str, Tree] | tuple[Tree, ...], path: str) -> Iterator[tuple[Any, Tree]]:
  if isinstance(tree, tuple):
    yield from enumerate(tree)
    return
  for key, child in tree.items():
    if not isinstance(key, str):
      raise TreeError(f'The keys of {path or "a batch"} must be texts; one is {key!r}.')
    yield key, child


def _described(value: Any) -> str:
  if isinstance(value, (np.ndarray, np.generic)):
    return f'an array of {_NO_NUMBERS[value.dtype.kind]}'
  return type(value).__name__


def _difference(first: Tree, other: Tree, path: str) -> str:
  where = path.removeprefix('/') or 'The example'
  return f'{where} must be {_structure(first)} as before; it is {_structure(other)}.'


def _structure(tree: Tree) -> str:
  if isinstance(tree, dict):
    return f'a dict of {", ".join(map(str, tree)) or "nothing"}'
  return f'a tuple of {len(tree)}' if isinstance(tree, tuple) else 'an array'


def _form(form: list[tuple[str, tuple[int, ...], np.dtype]]) -> str:
  return ', '.join(f'{path or "it"} {dtype}{list(shape)}' for path, shape, dtype in form)
