"""Checkpoints: exact, checksummed, all or nothing, safe to read because nothing in them is code.

A file has four parts, in this order:

- a magic word;
- the raw bytes of every array, each at a multiple of 64 bytes;
- an index in JSON: the structure, and for every array its offset, size in bytes and CRC-32;
- a trailer: offset, size and SHA-256 of the index, and the magic word again.

A file that was cut off anywhere has no trailer.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.results import files

_MAGIC = b'AEFFCKP1'
_TRAILER = struct.Struct('<QQ32s8s')  # offset and size of the index, its SHA-256, the magic word
_ALIGNMENT = 64
_CHUNK_BYTES = 1 << 20  # small enough to stay in the cache between the checksum and the copy
_PREFIX = 'checkpoint_'


@dataclass(frozen=True)
class Loaded:
  """A checkpoint as it was saved.

  Attributes:
    step: the number of steps done.
    problems: which newer checkpoints were damaged, and how; one sentence each.
  """

  step: int
  payload: dict[str, Any]
  problems: tuple[str, ...] = ()


class Checkpoints:
  """Keeps the last checkpoints of one trial, in files `checkpoint_<step>`.

  Args:
    keep: how many are kept, at least 1.
  """

  def __init__(self, folder: Path, keep: int = 2):
    if keep < 1:
      raise ValueError(f'At least one checkpoint is kept; keep is {keep}.')
    self._folder = folder
    self._keep = keep

  def save(self, step: int, payload: Mapping[str, Any]) -> None:
    """Writes a checkpoint, then removes those that are no longer needed.

    Until the new file is complete and on the disk, the old ones stay as they are. Files of a larger
    step come from a past that a resume undid, and go too.

    Args:
      step: the number of steps done.
      payload: None, bool, int, float, str, bytes, numpy arrays and scalars, in dicts (keys are
        strings or integers), lists and tuples.

    Raises:
      TypeError: something in it is of another type; the message names its path.
      UserError: the file could not be written.
    """
    files.make_folder(self._folder)
    self._remove_leftovers()
    with files.replacing(self._folder / f'{_PREFIX}{step}') as file:
      write_content(file, {'step': step, 'payload': dict(payload)})
    steps = self._steps()
    current = steps.index(step)
    for old in steps[:current] + steps[current + self._keep :]:
      files.remove(self._folder / f'{_PREFIX}{old}')

  def load(self) -> Loaded | None:
    """Loads the newest checkpoint that is intact; None if there is no checkpoint.

    Raises:
      UserError: there are checkpoints, and none of them is intact.
    """
    problems: list[str] = []
    for step in self._steps():
      path = self._folder / f'{_PREFIX}{step}'
      try:
        saved = read_content(path)
        if saved['step'] != step:
          raise DamagedError(f'it holds step {saved["step"]}')
        return Loaded(step, saved['payload'], tuple(problems))
      except (DamagedError, OSError) as error:
        problems.append(f'{path} is damaged ({error}); an older checkpoint was taken.')
    if problems:
      raise errors.UserError(
        f'A trial resumes from an intact checkpoint; none in {self._folder} is: '
        f'{" ".join(problems)} Start the trial again with --overwrite.'
      )
    return None

  def latest_step(self) -> int | None:
    """The step of the newest complete checkpoint; `load` checks its content."""
    for step in self._steps():
      try:
        with open(self._folder / f'{_PREFIX}{step}', 'rb') as file:
          _read_index(file)
        return step
      except (DamagedError, OSError):
        continue
    return None

  def _steps(self) -> list[int]:
    """The steps that have a file, newest first."""
    if not self._folder.is_dir():
      return []
    names = [path.name.removeprefix(_PREFIX) for path in self._folder.glob(f'{_PREFIX}*')]
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

  def _remove_leftovers(self) -> None:
    """Removes unfinished checkpoints of killed processes."""
    for path in self._folder.glob(f'{_PREFIX}*'):
      if files.is_leftover(path):
        files.remove(path)


class DamagedError(Exception):
  """A checkpoint is not what was written."""


# The structure: JSON values stand for themselves, but dicts, tuples and what JSON does not know are
# lists of a tag and a content.


class _Packer:
  """Turns a payload into JSON, and gathers its arrays on the way."""

  def __init__(self) -> None:
    self.blocks: list[np.ndarray] = []  # contiguous bytes, uint8 [num_bytes]

  def pack(self, value: Any, path: str = '') -> Any:
    kind = type(value)
    if value is None or kind in (bool, str):
      return value
    if kind is int:
      return value if -(2**63) <= value < 2**63 else ['int', hex(value)]
    if kind is float:
      return value if math.isfinite(value) else ['float', struct.pack('<d', value).hex()]
    if kind is list or kind is tuple:
      items = [self.pack(item, f'{path}/{index}') for index, item in enumerate(value)]
      return ['list' if kind is list else 'tuple', items]
    if kind is dict:
      return [
        'dict',
        [[_key(key, path), self.pack(item, f'{path}/{key}')] for key, item in value.items()],
      ]
    if kind is bytes:
      return ['bytes', self._block(np.frombuffer(value, np.uint8))]
    if isinstance(value, np.generic):
      array = np.asarray(value)
      return ['scalar', _dtype_name(array.dtype, path), array.tobytes().hex()]
    if kind is np.ndarray:
      name = _dtype_name(value.dtype, path)
      content = np.ascontiguousarray(value).reshape(-1).view(np.uint8) if value.size else _NO_BYTES
      return ['array', name, list(value.shape), self._block(content)]
    raise TypeError(
      f'A checkpoint holds plain containers, numbers, strings and numpy arrays; at {path or "/"} '
      f'there is a {kind.__module__}.{kind.__qualname__}.'
    )

  def _block(self, content: np.ndarray) -> int:
    self.blocks.append(content)
    return len(self.blocks) - 1


_NO_BYTES = np.empty(0, np.uint8)
_NUMERIC_KINDS = 'biufcmMSU'
_REGISTERED = 2  # what numpy says of a type that another package added


def _key(key: Any, path: str) -> str | int:
  if type(key) not in (str, int):
    raise TypeError(
      f'The keys of a checkpoint are strings or integers; at {path or "/"} one is {key!r}.'
    )
  return key


def _dtype_name(dtype: np.dtype, path: str) -> str:
  if dtype.isbuiltin == _REGISTERED:
    return dtype.name  # bfloat16 and its kin
  if dtype.kind not in _NUMERIC_KINDS:
    raise TypeError(
      f'A checkpoint holds arrays of numbers; at {path or "/"} there is one of {dtype}.'
    )
  return dtype.str


def _dtype(name: str) -> np.dtype:
  try:
    dtype = np.dtype(name)
  except TypeError:
    import ml_dtypes

    dtype = np.dtype(getattr(ml_dtypes, name))
  if dtype.hasobject:
    raise ValueError(f'{name} is no type of a number')
  return dtype


def _unpack(value: Any, blocks: list[np.ndarray]) -> Any:
  if not isinstance(value, list):
    return value
  tag, *content = value
  match tag:
    case 'list':
      return [_unpack(item, blocks) for item in content[0]]
    case 'tuple':
      return tuple(_unpack(item, blocks) for item in content[0])
    case 'dict':
      return {key: _unpack(item, blocks) for key, item in content[0]}
    case 'int':
      return int(content[0], 16)
    case 'float':
      return struct.unpack('<d', bytes.fromhex(content[0]))[0]
    case 'bytes':
      return blocks[content[0]].tobytes()
    case 'scalar':
      return np.frombuffer(bytes.fromhex(content[1]), _dtype(content[0]))[0]
    case 'array':
      name, shape, block = content
      return blocks[block].view(_dtype(name)).reshape(shape)
  raise ValueError(f'the tag {tag!r} is unknown')


# The file.


def write_content(file: BinaryIO, content: Any) -> None:
  """Writes a file of the form above; `content` is as the payload of a checkpoint.

  Raises:
    TypeError: something in it is of another type; the message names its path.
  """
  packer = _Packer()
  structure = packer.pack(content)
  file.write(_MAGIC)
  place = len(_MAGIC)
  blocks = []
  for block in packer.blocks:
    padding = -place % _ALIGNMENT
    file.write(bytes(padding))
    place += padding
    blocks.append([place, block.nbytes, _write_block(file, block)])
    place += block.nbytes
  index = json.dumps({'structure': structure, 'blocks': blocks}).encode()
  file.write(index)
  file.write(_TRAILER.pack(place, len(index), hashlib.sha256(index).digest(), _MAGIC))


def _write_block(file: BinaryIO, block: np.ndarray) -> int:
  """Writes a block and returns its CRC-32."""
  view, crc = block.data, 0
  for start in range(0, len(view), _CHUNK_BYTES):
    chunk = view[start : start + _CHUNK_BYTES]
    crc = zlib.crc32(chunk, crc)
    file.write(chunk)
  return crc


def read_content(path: Path) -> dict[str, Any]:
  """Reads what `write_content` wrote.

  Raises:
    DamagedError: the file is not what was written.
    OSError: it cannot be read.
  """
  with open(path, 'rb', buffering=0) as file:
    try:
      index = _read_index(file)
      blocks = [_read_block(file, *entry) for entry in index['blocks']]
      return _unpack(index['structure'], blocks)
    except (AttributeError, LookupError, TypeError, ValueError, struct.error) as error:
      raise DamagedError(f'its index makes no sense: {error}') from error


def _read_index(file: Any) -> dict[str, Any]:
  size = os.fstat(file.fileno()).st_size
  if size < len(_MAGIC) + _TRAILER.size or file.read(len(_MAGIC)) != _MAGIC:
    raise DamagedError('its beginning is missing')
  file.seek(size - _TRAILER.size)
  place, num_bytes, digest, magic = _TRAILER.unpack(file.read(_TRAILER.size))
  if magic != _MAGIC or place + num_bytes + _TRAILER.size != size:
    raise DamagedError('its end is missing')
  file.seek(place)
  text = file.read(num_bytes)
  if hashlib.sha256(text).digest() != digest:
    raise DamagedError('the checksum of its index is wrong')
  return json.loads(text)


def _read_block(file: Any, place: int, num_bytes: int, crc: int) -> np.ndarray:
  """A block as bytes, uint8 [num_bytes], of its own memory."""
  if place + num_bytes > os.fstat(file.fileno()).st_size:
    raise DamagedError('an array is cut off')
  block = np.empty(num_bytes, np.uint8)
  file.seek(place)
  view, found = block.data, 0
  for start in range(0, num_bytes, _CHUNK_BYTES):
    chunk = view[start : start + _CHUNK_BYTES]
    if file.readinto(chunk) != len(chunk):
      raise DamagedError('an array is cut off')
    found = zlib.crc32(chunk, found)
  if found != crc:
    raise DamagedError('the checksum of an array is wrong')
  return block
