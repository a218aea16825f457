"""Keeps the opaque state of a submission: any tree, as plain values by path, and back again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

_SCALARS = (bool, int, float, str, type(None))
_KIND = '__kind__'
STRUCTURE = '__structure__'  # no path looks so


def pack(tree: Any) -> dict[str, Any]:
  """Copies any state to plain values.

  Every process of a trial must call this, because an array may be spread over all of them.

  Returns:
    Path -> numpy array, scalar, string, or a dict that names a special kind. The special kinds are
    typed random keys, scalars of numpy, complex numbers, and objects that keep and load their own
    state. Callables are left out: they come from the fresh state. One further entry has the
    structure of the tree.

  Raises:
    TypeError: something in it cannot be kept; the message names its path.
  """
  named, _ = jax.tree_util.tree_flatten_with_path(tree)
  packed: dict[str, Any] = {STRUCTURE: _structure(tree, '')}
  for path, leaf in named:
    name = jax.tree_util.keystr(path)
    if not _is_kept_from_fresh(leaf):
      packed[name] = _pack_leaf(leaf, name)
  return packed


def overlay(fresh: Any, packed: Mapping[str, Any], *, may_grow: bool = True) -> Any:
  """The state `fresh` with the values of `packed`.

  What was an array of JAX is one again, with the placement of the leaf in `fresh`: a different
  sharding would compile a different program.

  Args:
    may_grow: whether `packed` may have trees where `fresh` has None, further items in dicts and
      lists, and None anywhere.

  Raises:
    ValueError: a path in one has no match in the other; the message names it.
  """
  if may_grow and STRUCTURE in packed:  # which version 0.1.0 did not write
    fresh = _Growth(fresh).grown(fresh, packed[STRUCTURE])
  with_paths, structure = jax.tree_util.tree_flatten_with_path(fresh)
  named = [(jax.tree_util.keystr(path), leaf) for path, leaf in with_paths]
  wanted = {name for name, leaf in named if not _is_kept_from_fresh(leaf)}
  found = packed.keys() - {STRUCTURE}
  for problem, difference in (
    ('is not in the saved one', wanted - found),
    ('was saved but is not in it', found - wanted),
  ):
    if difference:
      raise _misfit(min(difference), f'{problem} ({len(difference)} such paths)')
  leaves = [
    _overlay_leaf(leaf, packed[name], name) if name in wanted else leaf for name, leaf in named
  ]
  return jax.tree_util.tree_unflatten(structure, leaves)


# The structure of a tree. None stands for itself. A leaf is its path, in a list if its type is
# weak. Any other node is its kind and, for each child, its key and its structure.


def _structure(node: Any, name: str) -> Any:
  if node is None:
    return None
  if _is_leaf(node):
    return [name] if getattr(node, 'weak_type', False) else name
  children = _children(node)
  return [
    _kind(node, children),
    [[key, _structure(child, f'{name}{_step(key)}')] for key, child in children],
  ]


def _is_leaf(node: Any) -> bool:
  return jax.tree_util.all_leaves([node])


def _is_saved_leaf(structure: Any) -> bool:
  return isinstance(structure, str) or len(structure) == 1


def _children(node: Any) -> list[tuple[str | int, Any]]:
  """What lies directly in a node: the key of a dict, or a step of the path such as '[0]'."""
  with_paths, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
  keys: list[Any] = [getattr(entry, 'key', None) for (entry,), _ in with_paths]
  if not (isinstance(node, Mapping) and all(type(key) in (str, int) for key in keys)):
    keys = [jax.tree_util.keystr(path) for path, _ in with_paths]
  return [(key, child) for key, (_, child) in zip(keys, with_paths, strict=True)]


def _step(key: str | int) -> str:
  return key if isinstance(key, str) and key[:1] in ('.', '[') else f'[{key!r}]'


def _kind(node: Any, children: list[tuple[str | int, Any]]) -> str:
  name = f'{type(node).__module__}.{type(node).__qualname__}'
  by_step = type(node) is dict and set(node) != {key for key, _ in children}
  return f'{name} with keys that are not kept' if by_step else name


_DICT, _LIST, _TUPLE = _kind({}, []), _kind([], []), _kind((), [])


@dataclass(frozen=True)
class _Absent:
  """A leaf that was saved and has no match in the fresh state."""

  is_weak: bool


class _Growth:
  """Gives a fresh state the structure of a saved one, where state may change its structure.

  Args:
    fresh: the whole fresh state; it lends the types that are neither dicts, lists nor tuples.
  """

  def __init__(self, fresh: Any):
    self._nodes: dict[tuple[str, tuple[str | int, ...]], Any] = {}
    self._learn(fresh)

  def _learn(self, node: Any) -> None:
    if node is not None and not _is_leaf(node):
      children = _children(node)
      self._nodes[_kind(node, children), tuple(key for key, _ in children)] = _one_level(node)
      for _, child in children:
        self._learn(child)

  def grown(self, fresh: Any, saved: Any, name: str = '') -> Any:
    """The fresh state with what the saved one has besides; what does not fit stays as it is."""
    if saved is None:
      return None
    if fresh is None:
      return self._built(saved, name)
    if _is_saved_leaf(saved) or _is_leaf(fresh):
      return fresh
    own, (kind, children) = dict(_children(fresh)), saved
    if kind != _kind(fresh, list(own.items())) or own.keys() - {key for key, _ in children}:
      return fresh
    grown, added = {}, {}
    for key, child in children:
      below = f'{name}{_step(key)}'
      if key in own:
        grown[key] = self.grown(own[key], child, below)
      elif kind in (_DICT, _LIST):
        added[key] = self._built(child, below)
      else:
        return fresh
    if kind == _DICT:
      return {key: grown[key] for key in fresh} | added
    if kind == _LIST:
      return [*grown.values(), *added.values()]
    return jax.tree_util.tree_unflatten(_one_level(fresh), list(grown.values()))

  def _built(self, saved: Any, name: str) -> Any:
    """A tree with the saved structure, of absent leaves."""
    if saved is None:
      return None
    if _is_saved_leaf(saved):
      return _Absent(is_weak=not isinstance(saved, str))
    kind, children = saved
    items = {key: self._built(child, f'{name}{_step(key)}') for key, child in children}
    if kind == _DICT:
      return items
    if kind in (_LIST, _TUPLE):
      return list(items.values()) if kind == _LIST else tuple(items.values())
    like = self._nodes.get((kind, tuple(items)))
    if like is None:
      raise _misfit(name, f'is a {kind}, of which the fresh state has none with such content')
    return jax.tree_util.tree_unflatten(like, list(items.values()))


def _one_level(node: Any) -> Any:
  """The definition of a node whose children are leaves."""
  return jax.tree_util.tree_structure(node, is_leaf=lambda x: x is not node)


def _has_state_dict(leaf: Any) -> bool:
  return hasattr(leaf, 'state_dict') and hasattr(leaf, 'load_state_dict')


def _is_kept_from_fresh(leaf: Any) -> bool:
  return callable(leaf) and not _has_state_dict(leaf)


def _is_typed_key(leaf: Any) -> bool:
  return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _shown(name: str) -> str:
  return name or 'its only leaf'


def _misfit(name: str, problem: str) -> ValueError:
  return ValueError(f'The saved state does not fit the fresh one: {_shown(name)} {problem}.')


def _pack_leaf(leaf: Any, name: str) -> Any:
  if _is_typed_key(leaf):
    data = _to_host(jax.random.key_data(leaf))
    return {_KIND: 'key', 'impl': str(jax.random.key_impl(leaf)), 'data': data}
  if isinstance(leaf, jax.Array):
    return _to_host(leaf)
  if isinstance(leaf, np.ndarray) and not leaf.dtype.hasobject:
    return leaf.copy()
  if isinstance(leaf, np.generic):
    return {_KIND: 'numpy_scalar', 'data': np.array(leaf)}
  if type(leaf) is complex:
    return {_KIND: 'complex', 'data': np.array(leaf)}
  if type(leaf) in _SCALARS:
    return leaf
  if _has_state_dict(leaf):
    return {_KIND: 'state_dict', 'data': _plain(leaf.state_dict(), name)}
  raise TypeError(
    f'State must be arrays, numbers, strings, callables, or objects with state_dict and '
    f'load_state_dict; {_shown(name)} is a {type(leaf).__qualname__}.'
  )


def _plain(value: Any, name: str) -> Any:
  """A state dict as plain containers; tuples become lists."""
  if isinstance(value, Mapping):
    for key in value:
      if not isinstance(key, str) or key == _KIND:
        raise TypeError(f'A state dict must have strings as keys; {name} has {key!r}.')
    return {key: _plain(item, f'{name}[{key!r}]') for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(item, f'{name}[{index}]') for index, item in enumerate(value)]
  return _pack_leaf(value, name)


def _unplain(value: Any) -> Any:
  if isinstance(value, list):
    return [_unplain(item) for item in value]
  if isinstance(value, dict) and _KIND not in value:
    return {key: _unplain(item) for key, item in value.items()}
  return _unpack(value)


def _unpack(value: Any) -> Any:
  """A packed leaf as a value of its kind; arrays stay in host memory, typed keys do not."""
  if not isinstance(value, dict):
    return value
  data = value['data']
  if value[_KIND] == 'key':
    return jax.random.wrap_key_data(jnp.asarray(data), impl=value['impl'])
  if value[_KIND] == 'numpy_scalar':
    return data[()]
  if value[_KIND] == 'complex':
    return complex(data[()])
  return _unplain(data)


def _overlay_leaf(fresh: Any, packed: Any, name: str) -> Any:
  if isinstance(fresh, _Absent):
    return _new_leaf(packed, name, is_weak=fresh.is_weak)
  value = _unpack(packed)
  if _has_state_dict(fresh):
    fresh.load_state_dict(value)
    return fresh
  if np.shape(value) != np.shape(fresh):
    raise _misfit(
      name,
      f'has the shape {np.shape(value)} in the saved state and {np.shape(fresh)} in the fresh one',
    )
  if isinstance(value, jax.Array) or (
    isinstance(value, np.ndarray) and not isinstance(fresh, np.ndarray)
  ):
    return _place_like(fresh, value)
  return value


def _new_leaf(packed: Any, name: str, *, is_weak: bool) -> Any:
  """A saved leaf without a match; the program that uses the array first decides where it goes."""
  if isinstance(packed, dict) and packed[_KIND] == 'state_dict':
    raise _misfit(name, 'was an object with state_dict when it was saved')
  value = _unpack(packed)
  if not isinstance(value, np.ndarray):
    return value
  like = jnp.full(value.shape, value.dtype.type(0).item()) if is_weak else None
  return _place_like(like, value)


def _place_like(fresh: Any, value: Any) -> jax.Array:
  """An array on the devices of `fresh`, as free to move, and as weakly typed, as that one is."""
  if not isinstance(fresh, jax.Array):
    return jnp.array(value)
  if getattr(fresh, 'weak_type', False) and fresh.dtype == value.dtype:
    return fresh.at[...].set(value)
  if fresh.committed:
    return jax.device_put(value, fresh.sharding)
  return jnp.array(value)


def _to_host(array: jax.Array) -> np.ndarray:
  """A copy of the whole array in host memory."""
  if array.is_fully_addressable or array.is_fully_replicated:
    return np.array(array)
  return np.array(multihost_utils.process_allgather(array, tiled=True))
