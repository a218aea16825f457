"""Keeps the opaque state of a submission in PyTorch: as plain values by path, and back again.

Packed state has the structure of the state itself: dicts, lists and tuples of scalars, strings and
numpy arrays. What is none of these is a dict that names its kind under '__kind__':

- tensor: `data` on the host, as bytes with `dtype` and `shape` where numpy has no such type, and
  whether it lived `on_host`. `shares` is the path of an earlier tensor whose memory it has,
  `overlaps` that of one of whose memory it has a part;
- state_dict: `data` is what the object's own `state_dict` gave, a module's without its wrappers;
- generator: the state of a random generator;
- complex: a complex number;
- deque: `data` is a list of what is in it, `maxlen` its own;
- object: `data` are the attributes of an object of the submission's that says nothing of its state;
- fresh: nothing is kept, because the fresh state has it: functions, types, devices.
"""

from __future__ import annotations

import collections
import enum
import types
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from algorithmic_efficiency.backends._torch_workload import unwrap

_KIND = '__kind__'
_SCALARS = (bool, int, float, str, bytes, type(None))
_CONTAINERS = (dict, list, tuple, set, frozenset, collections.deque, np.ndarray)
_ABSENT = object()


def pack(tree: Any) -> Any:
  """A copy of any state as plain values.

  Raises:
    TypeError: something in it cannot be kept; the message names its path.
  """
  return _Packer().pack(tree, '', ())


def overlay(fresh: Any, packed: Any, *, device: torch.device) -> Any:
  """The state `fresh` with the values of `packed`; see `overlay_trees`."""
  return _Overlay(device).overlay(fresh, packed, '')


def overlay_trees(
  fresh: Mapping[str, Any],
  packed: Mapping[str, Any],
  *,
  device: torch.device,
  fixed: Collection[str] = (),
) -> dict[str, Any]:
  """The named trees of `fresh` with the values of `packed`, which were packed together.

  Tensors, dicts, lists and objects are filled in place, so that whatever else refers to them sees
  the new values; tuples are made anew. A tensor that shared the memory of an earlier one does so
  again. Where `fresh` has None or an empty container, `packed` may have anything.

  Args:
    device: where a tensor goes that lived on an accelerator and has no match in `fresh`.
    fixed: names of the trees that may have no further items in dicts and lists, and no None.

  Raises:
    ValueError: any other path in one has no match in the other; the message names it.
  """
  overlay = _Overlay(device)
  restored = {}
  for name, tree in fresh.items():
    overlay.may_grow = name not in fixed
    restored[name] = overlay.overlay(tree, packed[name], f'[{name!r}]')
  return restored


def raw_bytes(tensor: torch.Tensor) -> np.ndarray:
  """The bytes of a tensor in host memory, uint8 [num_bytes]; they may be shared with it."""
  flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
  return flat.view(torch.uint8).numpy()


class _Memory:
  """The tensors met so far, by the memory that they take."""

  def __init__(self) -> None:
    self._by_storage: dict[Any, list[tuple[torch.Tensor, str]]] = {}

  def add(self, tensor: torch.Tensor, name: str) -> None:
    if tensor.numel() and tensor.device.type != 'meta':
      self._by_storage.setdefault(_storage(tensor), []).append((tensor, name))

  def like(self, tensor: torch.Tensor) -> str | None:
    """The path of the tensor with the same memory, type and layout."""
    return next(
      (name for other, name in self._beside(tensor) if _layout(other) == _layout(tensor)), None
    )

  def overlapping(self, tensor: torch.Tensor) -> str | None:
    """The path of a tensor of which this one takes a part; views with gaps are not compared."""
    begin, end = _extent(tensor)
    for other, name in self._beside(tensor):
      its_begin, its_end = _extent(other)
      if its_begin < end and begin < its_end:
        return name
    return None

  def _beside(self, tensor: torch.Tensor) -> list[tuple[torch.Tensor, str]]:
    if not tensor.numel() or tensor.device.type == 'meta':
      return []
    return self._by_storage.get(_storage(tensor), [])


def _storage(tensor: torch.Tensor) -> Any:
  return tensor.device, tensor.untyped_storage().data_ptr()


def _layout(tensor: torch.Tensor) -> Any:
  return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
  """The first byte and the one behind the last; empty for a view with gaps."""
  begin = tensor.data_ptr()
  return begin, begin + (tensor.nbytes if tensor.is_contiguous() else 0)


class _Packer:
  """Packs one state; it knows which tensors share memory."""

  def __init__(self) -> None:
    self._memory = _Memory()

  def pack(self, tree: Any, name: str, around: tuple[Any, ...]) -> Any:
    """
    Args:
      name: the path to it.
      around: the objects that it lies in.
    """
    kind = type(tree)
    if kind in _SCALARS or isinstance(tree, np.generic):
      return tree
    if isinstance(tree, torch.Tensor):
      return self._tensor(tree, name)
    if isinstance(tree, np.ndarray) and not tree.dtype.hasobject:
      return tree.copy()
    if _has_state_dict(tree):
      return {_KIND: 'state_dict', 'data': self.pack(_state_dict(tree), name, around)}
    if isinstance(tree, dict):
      return {
        _key(key, name): self.pack(item, f'{name}[{key!r}]', around) for key, item in tree.items()
      }
    if isinstance(tree, collections.deque):
      return {_KIND: 'deque', 'data': self.pack(list(tree), name, around), 'maxlen': tree.maxlen}
    if isinstance(tree, (list, tuple)):
      items = [self.pack(item, f'{name}[{index}]', around) for index, item in enumerate(tree)]
      return items if isinstance(tree, list) else tuple(items)
    if _is_kept_from_fresh(tree):
      return {_KIND: 'fresh'}
    if isinstance(tree, torch.Generator):
      return {_KIND: 'generator', 'data': tree.get_state().numpy()}
    if kind is complex:
      return {_KIND: 'complex', 'data': np.array(tree)}
    if _is_plain_object(tree) and not any(tree is outer for outer in around):
      return {_KIND: 'object', 'data': self.pack(vars(tree), name, (*around, tree))}
    raise TypeError(
      'State must be tensors, arrays, numbers, strings, callables, or objects with state_dict and '
      f'load_state_dict, in dicts, lists and tuples; {_shown(name)} is a {kind.__qualname__}.'
    )

  def _tensor(self, tensor: torch.Tensor, name: str) -> dict[str, Any]:
    packed = _pack_tensor(tensor, name)
    shares = self._memory.like(tensor)
    overlaps = None if shares else self._memory.overlapping(tensor)
    self._memory.add(tensor, name)
    return {**packed, 'shares': shares, 'overlaps': overlaps}


class _Overlay:
  """Lays packed state over fresh state.

  Args:
    keeps_sharing: whether tensors that shared memory do so again.

  Attributes:
    may_grow: whether a state may have further items in dicts and lists, and None anywhere.
  """

  def __init__(self, device: torch.device, *, keeps_sharing: bool = True):
    self._device = device
    self._keeps_sharing = keeps_sharing
    self.may_grow = True
    self._restored: dict[str, torch.Tensor] = {}
    self._memory = _Memory()

  def overlay(self, fresh: Any, packed: Any, name: str) -> Any:
    kind = _kind(packed)
    if packed is None and self.may_grow:
      return None
    if kind == 'fresh' or _is_kept_from_fresh(fresh):
      return self._keep(fresh, packed, name)
    if kind == 'state_dict' or _has_state_dict(fresh):
      return self._load(fresh, packed, name)
    if kind == 'generator' or isinstance(fresh, torch.Generator):
      return self._set_generator(fresh, packed, name)
    if kind == 'object':
      return self._fill_object(fresh, packed, name)
    if kind == 'deque' and isinstance(fresh, collections.deque):
      fresh.clear()
      fresh.extend(self.restore(packed['data'], _ABSENT, name))
      return fresh
    if fresh is None or (isinstance(fresh, _SCALARS) and kind == 'tensor'):
      return self.restore(packed, _ABSENT, name)
    if kind is None and isinstance(packed, (dict, list, tuple)):
      return self._fill_container(fresh, packed, name)
    if kind == 'tensor' or isinstance(fresh, torch.Tensor):
      return self._fill_tensor(fresh, packed, name)
    if isinstance(fresh, (dict, list, tuple)):
      raise _misfit(name, f'is a {type(packed).__name__} in the saved state')
    return self._array_or_scalar(fresh, self.restore(packed, _ABSENT, name), name)

  def restore(self, packed: Any, fresh: Any, name: str) -> Any:
    """A value made from `packed`; `fresh`, as far as there is one, lends what was not saved."""
    kind = _kind(packed)
    if kind == 'tensor':
      return self._new_tensor(packed, name)
    if kind == 'complex':
      return complex(packed['data'][()])
    if kind == 'deque':
      return collections.deque(self.restore(packed['data'], fresh, name), packed['maxlen'])
    if kind is not None:  # a function, an object or a generator: without a fresh one there is none
      return self.overlay(fresh, packed, name)
    if isinstance(packed, dict):
      return {
        key: self.restore(item, _item(fresh, key), f'{name}[{key!r}]')
        for key, item in packed.items()
      }
    if isinstance(packed, (list, tuple)):
      items = [
        self.restore(item, _item(fresh, index), f'{name}[{index}]')
        for index, item in enumerate(packed)
      ]
      return items if isinstance(packed, list) else _tuple_like(fresh, items)
    return packed.copy() if isinstance(packed, np.ndarray) else packed

  def _keep(self, fresh: Any, packed: Any, name: str) -> Any:
    if fresh is _ABSENT or not _is_kept_from_fresh(fresh):
      raise _misfit(name, 'was a function when it was saved and is none in the fresh state')
    if _kind(packed) != 'fresh':
      raise _misfit(name, 'is a function in the fresh state and was none when it was saved')
    return fresh

  def _load(self, fresh: Any, packed: Any, name: str) -> Any:
    """Hands an object its saved state."""
    if not _has_state_dict(fresh) or _kind(packed) != 'state_dict':
      raise _misfit(name, 'is an object with state_dict in only one of them')
    is_module = isinstance(fresh, nn.Module)  # which copies into tensors of its own
    reader = _Overlay(self._device, keeps_sharing=False) if is_module else self
    state = reader.restore(packed['data'], _state_dict(fresh), name)
    target = unwrap(fresh) if is_module else fresh
    if is_module:
      _check_module(target, state, name)
    try:
      target.load_state_dict(state)
    except (KeyError, RuntimeError, ValueError) as error:
      raise _misfit(name, f'refuses the saved state ({error})') from error
    if isinstance(target, torch.optim.Optimizer):
      _undo_casts(target, state)
    self._note_tensors(_state_dict(fresh), name)
    return fresh

  def _set_generator(self, fresh: Any, packed: Any, name: str) -> torch.Generator:
    if not isinstance(fresh, torch.Generator) or _kind(packed) != 'generator':
      raise _misfit(name, 'is a random generator in only one of them')
    fresh.set_state(torch.tensor(packed['data']))
    return fresh

  def _fill_object(self, fresh: Any, packed: Any, name: str) -> Any:
    """Gives an object its attributes; it may have got further ones since it was made."""
    if fresh is _ABSENT or not _is_plain_object(fresh):
      raise _misfit(name, 'was an object with attributes when it was saved')
    attributes = vars(fresh)
    _check_paths(name, set(attributes), set(attributes) & set(packed['data']))
    for key, item in packed['data'].items():
      attributes[key] = (
        self.overlay(attributes[key], item, f'{name}[{key!r}]')
        if key in attributes
        else self.restore(item, _ABSENT, f'{name}[{key!r}]')
      )
    return fresh

  def _fill_tensor(self, fresh: Any, packed: Any, name: str) -> Any:
    if not isinstance(fresh, (torch.Tensor, np.ndarray)):
      raise _misfit(
        name, f'is a {type(fresh).__name__} in the fresh state and a tensor in the saved'
      )
    if isinstance(fresh, torch.Tensor) and self._may_fill(fresh, packed):
      value = self._plain_tensor(packed) if _kind(packed) == 'tensor' else packed
      _check_shape(name, _shape(value), tuple(fresh.shape))
      if isinstance(value, torch.Tensor) and value.dtype == fresh.dtype:
        fresh.detach().copy_(value)
        self._note_tensors(fresh, name)
        return fresh
    value = self.restore(packed, _ABSENT, name)
    _check_shape(name, _shape(value), tuple(fresh.shape))
    return value

  def _may_fill(self, fresh: torch.Tensor, packed: Any) -> bool:
    """Whether a fresh tensor shares memory with the same tensors as the saved one did."""
    if _kind(packed) != 'tensor' or 'shares' not in packed:  # as version 0.1.0 packed it
      return True
    shared = packed['shares'] if packed['shares'] in self._restored else None
    if shared is not None or self._memory.like(fresh) is not None:
      return self._memory.like(fresh) == shared
    return (self._memory.overlapping(fresh) is None) == (packed['overlaps'] is None)

  def _new_tensor(self, packed: dict[str, Any], name: str) -> torch.Tensor:
    """A tensor that the fresh state does not have, in the memory of another if it was so."""
    if not self._keeps_sharing:
      return self._plain_tensor(packed)
    overlapped = packed.get('overlaps')
    if overlapped is not None:
      raise _misfit(name, f'shares a part of its memory with {overlapped} in the saved state only')
    shares = packed.get('shares')
    tensor = self._restored[shares] if shares in self._restored else self._plain_tensor(packed)
    self._note_tensors(tensor, name)
    return tensor

  def _note_tensors(self, value: Any, name: str) -> None:
    """Takes note of restored tensors, with which later ones may share memory."""
    if type(value) in (torch.Tensor, nn.Parameter):
      self._restored[name] = value.detach()
      self._memory.add(value, name)
    elif isinstance(value, dict):
      for key, item in value.items():
        self._note_tensors(item, f'{name}[{key!r}]')
    elif isinstance(value, (list, tuple)):
      for index, item in enumerate(value):
        self._note_tensors(item, f'{name}[{index}]')

  def _fill_container(self, fresh: Any, packed: Any, name: str) -> Any:
    """Fills a dict, list or tuple item by item; an empty dict or list takes what comes."""
    if isinstance(fresh, dict) and isinstance(packed, dict):
      if not fresh:
        fresh.update(self.restore(packed, _ABSENT, name))
        return fresh
      self._check_items(name, set(fresh), set(packed))
      for key, item in packed.items():
        fresh[key] = self._item(fresh, key, item, name)
      return fresh
    kind = tuple if isinstance(packed, tuple) else list
    if isinstance(packed, dict) or not isinstance(fresh, kind):
      raise _misfit(name, f'is a {type(packed).__name__} in the saved state')
    if isinstance(fresh, list) and not fresh:
      fresh[:] = self.restore(packed, _ABSENT, name)
      return fresh
    check = self._check_items if kind is list else _check_paths
    check(name, set(range(len(fresh))), set(range(len(packed))))
    items = [self._item(fresh, index, item, name) for index, item in enumerate(packed)]
    if isinstance(fresh, list):
      fresh[:] = items
      return fresh
    return _tuple_like(fresh, items)

  def _item(self, fresh: Any, key: Any, packed: Any, name: str) -> Any:
    """The item of a container, over the fresh one if there is one."""
    below, old = f'{name}[{key!r}]', _item(fresh, key)
    return self.restore(packed, old, below) if old is _ABSENT else self.overlay(old, packed, below)

  def _check_items(self, name: str, wanted: set[Any], found: set[Any]) -> None:
    _check_paths(name, wanted, found & wanted if self.may_grow else found)

  def _array_or_scalar(self, fresh: Any, value: Any, name: str) -> Any:
    _check_shape(name, _shape(value), _shape(fresh))
    both_arrays = isinstance(fresh, np.ndarray) and isinstance(value, np.ndarray)
    if both_arrays and fresh.dtype == value.dtype and fresh.flags.writeable:
      fresh[...] = value
      return fresh
    return value

  def _plain_tensor(self, packed: dict[str, Any]) -> torch.Tensor:
    tensor = torch.tensor(packed['data'])
    if 'dtype' in packed:
      content = tensor
      tensor = torch.empty(packed['shape'], dtype=getattr(torch, packed['dtype']))
      tensor.reshape(-1).view(torch.uint8).copy_(content)
    return tensor if packed['on_host'] else tensor.to(self._device)


def _pack_tensor(tensor: torch.Tensor, name: str) -> dict[str, Any]:
  if type(tensor) not in (torch.Tensor, nn.Parameter) or tensor.layout != torch.strided:
    raise TypeError(
      f'A tensor that is kept must be a plain one; {_shown(name)} is a {type(tensor).__qualname__} '
      f'with the layout {tensor.layout}.'
    )
  packed = {_KIND: 'tensor', 'on_host': tensor.device.type == 'cpu'}
  try:
    host = tensor.detach().resolve_conj().resolve_neg().cpu().numpy()
  except TypeError:  # a type that numpy does not have, such as bfloat16
    dtype = str(tensor.dtype).removeprefix('torch.')
    shape = tuple(tensor.shape)
    return {**packed, 'data': raw_bytes(tensor).copy(), 'dtype': dtype, 'shape': shape}
  return {**packed, 'data': np.array(host, order='C')}


def _has_state_dict(value: Any) -> bool:
  return (
    not isinstance(value, type)
    and hasattr(value, 'state_dict')
    and hasattr(value, 'load_state_dict')
  )


def _is_plain_object(value: Any) -> bool:
  """Whether it is an object of a class written in Python that is nothing but its attributes."""
  return hasattr(value, '__dict__') and not isinstance(
    value, (type, types.ModuleType, enum.Enum, torch.Tensor, *_CONTAINERS)
  )


def _state_dict(value: Any) -> Any:
  state = (unwrap(value) if isinstance(value, nn.Module) else value).state_dict()
  return dict(state) if isinstance(state, dict) else state


def _is_kept_from_fresh(value: Any) -> bool:
  if isinstance(value, (torch.device, torch.dtype)):
    return True
  return callable(value) and not _has_state_dict(value)


def _kind(packed: Any) -> str | None:
  return packed.get(_KIND) if isinstance(packed, dict) else None


def _key(key: Any, name: str) -> str | int:
  if type(key) not in (str, int) or key == _KIND:
    raise TypeError(
      f'The keys of state must be strings or integers, and not {_KIND!r}; {_shown(name)} has the '
      f'key {key!r}.'
    )
  return key


def _item(fresh: Any, key: Any) -> Any:
  """The item of a fresh container, if there is one."""
  if isinstance(fresh, dict):
    return fresh.get(key, _ABSENT)
  if isinstance(fresh, (list, tuple)) and key < len(fresh):
    return fresh[key]
  return _ABSENT


def _tuple_like(fresh: Any, items: list[Any]) -> tuple:
  return type(fresh)(*items) if hasattr(fresh, '_fields') else tuple(items)


def _undo_casts(optimizer: torch.optim.Optimizer, state: Any) -> None:
  """Gives the state of every parameter its own type again.

  `Optimizer.load_state_dict` casts all of it to the type of the parameter, counters and halves
  included, and training would go on with other numbers.
  """
  parameters = [p for group in optimizer.param_groups for p in group['params']]
  saved = state.get('state') if isinstance(state, dict) else None
  for index, entries in (saved if isinstance(saved, dict) else {}).items():
    if isinstance(index, int) and isinstance(entries, dict) and index < len(parameters):
      loaded = optimizer.state[parameters[index]]
      for key in entries.keys() & loaded.keys():
        loaded[key] = _with_types_of(entries[key], loaded[key])


def _with_types_of(saved: Any, loaded: Any) -> Any:
  """`loaded`, but where a tensor in it has another type than in `saved`, that one."""
  if isinstance(saved, torch.Tensor) and isinstance(loaded, torch.Tensor):
    return loaded if saved.dtype == loaded.dtype else saved.to(loaded.device)
  if isinstance(saved, dict) and isinstance(loaded, dict):
    for key in saved.keys() & loaded.keys():
      loaded[key] = _with_types_of(saved[key], loaded[key])
  elif type(saved) is type(loaded) and isinstance(saved, (list, tuple)):
    items = [_with_types_of(*pair) for pair in zip(saved, loaded, strict=True)]
    return items if isinstance(saved, list) else _tuple_like(loaded, items)
  return loaded


def _check_module(module: nn.Module, state: Any, name: str) -> None:
  own = module.state_dict()
  _check_paths(name, set(own), set(state))
  for key, value in own.items():
    if isinstance(value, torch.Tensor):
      _check_shape(f'{name}[{key!r}]', _shape(state[key]), tuple(value.shape))


def _check_paths(name: str, wanted: set[Any], found: set[Any]) -> None:
  for problem, keys in (
    ('is not in the saved one', wanted - found),
    ('was saved but is not in it', found - wanted),
  ):
    if keys:
      key = min(keys, key=str)
      raise _misfit(f'{name}[{key!r}]', f'{problem} ({len(keys)} such paths)')


def _shape(value: Any) -> tuple[int, ...]:
  return tuple(value.shape) if isinstance(value, (torch.Tensor, np.ndarray)) else ()


def _check_shape(name: str, saved: tuple[int, ...], fresh: tuple[int, ...]) -> None:
  if saved != fresh:
    raise _misfit(name, f'has the shape {saved} in the saved state and {fresh} in the fresh one')


def _shown(name: str) -> str:
  return name or 'the state itself'


def _misfit(name: str, problem: str) -> ValueError:
  return ValueError(f'The saved state does not fit the fresh one: {_shown(name)} {problem}.')
