"""Names and arguments of older versions of JAX that published submissions use."""

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
  """Restores names that a submission uses and JAX has removed, within the block.

  They are restored in the whole process, because the packages of a submission may use them, too.
  They stay until the submission ends, because most are used when a step is traced. Only names that
  the source uses are restored, so that a new submission does not come to depend on them.

  Args:
    uses: full names, as in `source.Source`.

  Yields:
    Descriptions of what was restored.
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
