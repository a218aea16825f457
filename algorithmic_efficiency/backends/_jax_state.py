"""Keeps the opaque state of a submission: any tree, as plain values by path, and back again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

_SCALARS = (bool, int, float, str, type(None))
_KIND = '__kind__'


def pack(tree: Any) -> dict[str, Any]:
  """Path -> numpy array, scalar, string, or a dict that names a special kind.

  The special kinds are typed random keys, scalars of numpy, complex numbers, and objects that keep
  and load their own state. Callables are left out: they come from the fresh state.

  Every process of a trial must call this, because an array may be spread over all of them.
  """
  named, _ = jax.tree_util.tree_flatten_with_path(tree)
  packed = {}
  for path, leaf in named:
    name = jax.tree_util.keystr(path)
    if not _is_kept_from_fresh(leaf):
      packed[name] = _pack_leaf(leaf, name)
  return packed


def overlay(fresh: Any, packed: Mapping[str, Any]) -> Any:
  """`fresh` with the values of `packed`.

  What was an array of JAX is one again, with the placement of the leaf in `fresh`: a different
  sharding would compile a different program.
  """
  with_paths, structure = jax.tree_util.tree_flatten_with_path(fresh)
  named = [(jax.tree_util.keystr(path), leaf) for path, leaf in with_paths]
  wanted = {name for name, leaf in named if not _is_kept_from_fresh(leaf)}
  for problem, difference in (
    ('is not in the saved one', wanted - packed.keys()),
    ('was saved but is not in it', packed.keys() - wanted),
  ):
    if difference:
      raise ValueError(
        f'The saved state does not fit the fresh one: {_shown(min(difference))} {problem} '
        f'({len(difference)} such paths).'
      )
  leaves = [
    _overlay_leaf(leaf, packed[name], name) if name in wanted else leaf for name, leaf in named
  ]
  return jax.tree_util.tree_unflatten(structure, leaves)


def _has_state_dict(leaf: Any) -> bool:
  return hasattr(leaf, 'state_dict') and hasattr(leaf, 'load_state_dict')


def _is_kept_from_fresh(leaf: Any) -> bool:
  return callable(leaf) and not _has_state_dict(leaf)


def _is_typed_key(leaf: Any) -> bool:
  return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _shown(name: str) -> str:
  return name or 'its only leaf'


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
  value = _unpack(packed)
  if _has_state_dict(fresh):
    fresh.load_state_dict(value)
    return fresh
  if np.shape(value) != np.shape(fresh):
    raise ValueError(
      f'The saved state does not fit the fresh one: {_shown(name)} has the shape '
      f'{np.shape(value)} in the saved state and {np.shape(fresh)} in the fresh one.'
    )
  if isinstance(value, jax.Array) or (
    isinstance(value, np.ndarray) and not isinstance(fresh, np.ndarray)
  ):
    return _place_like(fresh, value)
  return value


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
