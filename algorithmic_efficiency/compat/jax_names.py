"""Names and arguments that JAX had when published entries were written, and has no more."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Set
from typing import Any

import jax
import jax.numpy as jnp

_OLD_BOUNDS = {'a_min': 'min', 'a_max': 'max'}
_TREE_MAP = 'jax.tree_map'
_CLIP = frozenset(f'jax.numpy.clip({name})' for name in _OLD_BOUNDS)


@contextlib.contextmanager
def restored(uses: Set[str]) -> Iterator[tuple[str, ...]]:
  """Puts back, in the whole process and for the length of the block, what is used and missing.

  In the whole process, because the packages that an entry calls are as old as the entry itself; and
  for as long as it runs, because most uses are met when a step is traced. Only what its source uses
  is put back, so that a new entry cannot come to rely on it unawares.

  Args:
    uses: full names, as `source.Source` has them.

  Yields:
    What was put back, in words.
  """
  with contextlib.ExitStack() as undo:
    restored = []
    if _TREE_MAP in uses and not hasattr(jax, 'tree_map'):
      jax.tree_map = jax.tree.map
      undo.callback(delattr, jax, 'tree_map')
      restored.append('jax.tree_map')
    if uses & _CLIP:
      undo.callback(setattr, jnp, 'clip', jnp.clip)
      jnp.clip = _with_old_bounds(jnp.clip)
      restored.append('the arguments a_min and a_max of jax.numpy.clip')
    yield tuple(restored)


def _with_old_bounds(clip: Callable[..., Any]) -> Callable[..., Any]:
  @functools.wraps(clip)
  def tolerant(*arguments: Any, **keywords: Any) -> Any:
    return clip(*arguments, **{_OLD_BOUNDS.get(key, key): keywords[key] for key in keywords})

  return tolerant
