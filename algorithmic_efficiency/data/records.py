"""Prepared data on disk: memory-mapped numpy files and a manifest.

A prepared set is a folder with `manifest.json` and the files that it lists. A field is named
`<split>/<name>`. A field whose examples have one shape is a `.npy` file. A field of varying length
(encoded images, audio, text) is a `.bin` file of all values and a `.npy` file of int64 offsets.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.results import files

OnBadImage = Literal['fail', 'skip']

FORMAT = 1
MANIFEST = 'manifest.json'
_JOURNAL = 'journal.json'
DOWNLOADS = 'downloads'
_BLOCK_BYTES = 1 << 22

# A process compares sets up to this size with their checksums when it first opens them, in about a
# tenth of a second at most. For larger sets it compares sizes only; `verify` reads everything.
_CHECKED_ON_OPENING_BYTES = 128 << 20


@dataclass(frozen=True, kw_only=True)
class About:
  """Origin of a data set.

  Attributes:
    origin: what it is and who made it.
    licence: license by name.
    num_bytes: bytes of the prepared set or of the bundled file.
    sources: names of its raw sources, if `prepare` takes several; they are given as
      `--source NAME=PATH`.
  """

  origin: str
  licence: str
  num_bytes: int
  sources: tuple[str, ...] = ()


class Ragged:
  """One-dimensional arrays of one type and varying length; `ragged[i]` is a copy of the i-th.

  Attributes:
    values: all arrays, one after the other.
    offsets: where each begins and the last one ends, int64 [num_examples + 1].
  """

  def __init__(self, values: np.ndarray, offsets: np.ndarray):
    self.values = values
    self.offsets = offsets

  def __len__(self) -> int:
    return len(self.offsets) - 1

  def __getitem__(self, index: int) -> np.ndarray:
    return np.array(self.values[self.offsets[index] : self.offsets[index + 1]])

  @property
  def lengths(self) -> np.ndarray:
    """Length of each array, int64 [num_examples]."""
    return np.diff(self.offsets)


class Records:
  """One split of a prepared set: `records[i]` is a dict of arrays. Pickled as its path."""

  def __init__(self, prepared: Prepared, split: str):
    self._prepared = prepared
    self._split = split
    self.fields = {
      field.partition('/')[2]: prepared.field(field)
      for field in prepared.manifest['fields']
      if field.partition('/')[0] == split
    }

  def __len__(self) -> int:
    return self._prepared.num_examples(self._split)

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    return {name: np.array(values[index]) for name, values in self.fields.items()}

  def __reduce__(self) -> tuple[Any, ...]:
    return _reopen, (self._prepared.root, self._split)


def _reopen(root: Path, split: str) -> Records:
  return Records(open_prepared(root), split)


class Prepared:
  """An open prepared set: its manifest, and its fields memory-mapped read-only."""

  def __init__(self, root: Path, manifest: Mapping[str, Any]):
    self.root = root
    self.manifest = manifest
    self._fields = {
      name: _map_field(root, description) for name, description in manifest['fields'].items()
    }

  @property
  def num_bytes(self) -> int:
    return sum(file['num_bytes'] for file in self.manifest['files'].values())

  @property
  def skipped(self) -> dict[str, int]:
    """Number of raw images that were left out, by field; without fields that lack none."""
    fields = self.manifest['fields']
    return {name: len(field['skipped']) for name, field in fields.items() if 'skipped' in field}

  @property
  def left_out(self) -> dict[str, dict[str, int]]:
    """Number of raw examples that were left out of each field, by reason; see `Writer.leave_out`.

    Fields that lack none are not there.
    """
    fields = self.manifest['fields']
    return {name: dict(field['left_out']) for name, field in fields.items() if 'left_out' in field}

  def num_examples(self, split: str) -> int:
    return self.manifest['splits'][split]

  def field(self, name: str) -> Any:
    """Returns a field, `<split>/<name>`: an array [num_examples, ...] or `Ragged`."""
    return self._fields[name]

  def split(self, name: str) -> Records:
    return Records(self, name)


def open_prepared(root: Path) -> Prepared:
  """Opens a prepared set, once a process.

  Raises:
    UserError: the set is missing, incomplete or damaged.
  """
  path = root / MANIFEST
  try:
    stat = path.stat()
  except OSError:
    raise errors.UserError(
      f'The data set {root.name} is not prepared: there is no {path}. Prepare it with: '
      f'{prepare_line(root)}'
    ) from None
  return _open(root, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=8)
def _open(root: Path, _mtime_ns: int, _size: int) -> Prepared:
  manifest = read_manifest(root)
  check_sizes(root, manifest)
  if sum(file['num_bytes'] for file in manifest['files'].values()) <= _CHECKED_ON_OPENING_BYTES:
    check_content(root, manifest)
  return Prepared(root, manifest)


def prepare_line(root: Path, *flags: str) -> str:
  """Returns the command that prepares the set at `root`."""
  return ' '.join(['algoeff data prepare', root.name, *flags, '--data_dir', str(root.parent)])


def damaged(root: Path, what: str) -> errors.UserError:
  """Returns the error for a set that does not match its manifest."""
  return errors.UserError(
    f'The data set {root.name} is damaged: {what}. Prepare it again with: '
    f'{prepare_line(root, "--overwrite")}'
  )


def read_manifest(root: Path) -> dict[str, Any]:
  """Reads and validates the manifest of a prepared set.

  Raises:
    UserError: the manifest cannot be read, was changed, or has another format.
  """
  path = root / MANIFEST
  try:
    manifest = json.loads(path.read_bytes())
    checksum = manifest.pop('checksum')
  except FileNotFoundError:
    raise errors.UserError(
      f'The data set {root.name} is not prepared: there is no {path}. Prepare it with: '
      f'{prepare_line(root)}'
    ) from None
  except (OSError, ValueError, KeyError, AttributeError) as error:
    raise damaged(root, f'{path} cannot be read ({error})') from None
  if checksum != _checksum(manifest):
    raise damaged(root, f'{path} does not match its own checksum')
  if manifest['format'] != FORMAT:
    raise damaged(root, f'{path} has format {manifest["format"]}, and this version reads {FORMAT}')
  return manifest


def check_sizes(root: Path, manifest: Mapping[str, Any]) -> None:
  """Compares the sizes of all files with the manifest.

  Raises:
    UserError: a file is missing or has another size than in the manifest.
  """
  for name, expected in manifest['files'].items():
    try:
      size = (root / name).stat().st_size
    except OSError:
      raise damaged(root, f'{root / name} is missing') from None
    if size != expected['num_bytes']:
      raise damaged(
        root, f'{root / name} has {size} bytes and had {expected["num_bytes"]} when prepared'
      )


def check_content(
  root: Path, manifest: Mapping[str, Any], progress: Callable[[str, int, int], None] | None = None
) -> None:
  """Reads every file and compares it with its checksum.

  Args:
    root: folder of the set.
    manifest: its manifest.
    progress: called with 'verify', the bytes read and the bytes in total.

  Raises:
    UserError: a file was altered.
  """
  total = sum(file['num_bytes'] for file in manifest['files'].values())
  done = 0
  for name, expected in manifest['files'].items():
    digest = hashlib.sha256()
    with open(root / name, 'rb') as file:
      while block := file.read(_BLOCK_BYTES):
        digest.update(block)
        done += len(block)
        if progress is not None:
          progress('verify', done, total)
    if digest.hexdigest() != expected['sha256']:
      raise damaged(root, f'{root / name} has changed since it was prepared')


class Writer:
  """Fills a folder field by field; after a restart, complete fields are not written again.

  Args:
    folder: folder to fill; `finish` turns it into a prepared set.
    dataset: name of the set.
    about: origin of the set, for the manifest.
    inputs: description of the inputs, for the manifest.
    key: changes with the inputs; fields written under another key are written again.
    on_bad_image: what `skip` does.
  """

  def __init__(
    self,
    folder: Path,
    *,
    dataset: str,
    about: About,
    inputs: str,
    key: str,
    on_bad_image: OnBadImage = 'fail',
  ):
    self.folder = folder
    self._dataset = dataset
    self._about = about
    self.inputs = inputs
    self._key = key
    self._fields: dict[str, Any] = {}
    self._files: dict[str, Any] = {}
    self._on_bad_image = on_bad_image
    self._skipped: dict[str, list[str]] = {}
    self._left_out: dict[str, dict[str, int]] = {}
    self._resume()

  @property
  def downloads(self) -> Path:
    """A folder for downloads; `finish` removes it."""
    path = self.folder / DOWNLOADS
    _make_folder(path)
    return path

  def has(self, name: str) -> bool:
    """Returns True if the field or file is complete, from this run or an earlier one."""
    return name in self._fields or name in self._files

  def field(self, name: str) -> Any:
    """Returns a complete field, memory-mapped: an array [num_examples, ...] or `Ragged`."""
    return _map_field(self.folder, self._fields[name])

  def drop(self, prefix: str) -> None:
    """Removes the fields whose names begin with `prefix`; they were temporary.

    Raises:
      UserError: writing failed.
    """
    for name in [name for name in self._fields if name.startswith(prefix)]:
      description = self._fields.pop(name)
      for key in {'file', 'offsets'} & set(description):
        del self._files[description[key]]
    self._write_journal()
    # Also removes files that an interrupted earlier attempt has removed from the journal.
    for path in self.folder.glob(f'{prefix}*'):
      path.unlink()

  def file(self, name: str, content: bytes) -> None:
    """Writes a file that is part of the set and no field.

    Raises:
      UserError: writing failed.
    """
    with self._file(name) as file:
      file.write(content)
    self._write_journal()

  def skip(self, field: str, name: str, reason: str) -> None:
    """Notes that a raw image was left out of a field which is being written.

    Args:
      name: name of its file.
      reason: why it cannot be used.

    Raises:
      UserError: the command asks to fail.
    """
    if self._on_bad_image == 'fail':
      raise errors.UserError(
        f'{name} {reason}. Replace the file, or leave such images out with --on_bad_image skip.'
      )
    self._skipped.setdefault(field, []).append(f'{name} {reason}')

  def leave_out(self, field: str, reason: str, number: int) -> None:
    """Notes in the manifest that raw examples are left out of a field, before it is written.

    Args:
      reason: what they are, such as 'pairs with an empty sentence'.
      number: how many there are; nothing is noted of 0.
    """
    if number:
      self._left_out.setdefault(field, {})[reason] = number

  def array(
    self,
    field: str,
    blocks: Iterable[np.ndarray],
    *,
    shape: tuple[int, ...],
    dtype: Any,
  ) -> None:
    """Writes a field [num_examples, ...] from blocks [rows, ...].

    Raises:
      ValueError: the blocks do not add up to `shape`.
      UserError: writing failed.
    """
    name = _file_name(field, 'npy')
    num_rows = 0
    with self._file(name) as file:
      header = {'descr': np.dtype(dtype).str, 'fortran_order': False, 'shape': shape}
      np.lib.format.write_array_header_1_0(file, header)
      for block in blocks:
        if block.shape[1:] != shape[1:]:
          raise ValueError(f'{field}: a block has rows of {block.shape[1:]}, not {shape[1:]}.')
        file.write(np.ascontiguousarray(block, dtype).data.cast('B') if block.size else b'')
        num_rows += len(block)
      if num_rows != shape[0]:
        raise ValueError(f'{field}: {num_rows} rows were given for {shape[0]}.')
    self._complete(field, {'kind': 'array', 'file': name, 'num_examples': num_rows})

  def ragged(self, field: str, arrays: Iterable[np.ndarray], *, dtype: Any) -> None:
    """Writes a field of one-dimensional arrays of varying length.

    Raises:
      ValueError: an array does not have one dimension.
      UserError: writing failed.
    """
    values, offsets = _file_name(field, 'bin'), _file_name(field, 'offsets.npy')
    self._skipped.pop(field, None)  # of an attempt that failed
    ends = [0]
    with self._file(values) as file:
      for array in arrays:
        if array.ndim != 1:
          raise ValueError(f'{field}: records must have one dimension; one has {array.ndim}.')
        file.write(np.ascontiguousarray(array, dtype).tobytes())
        ends.append(ends[-1] + len(array))
    with self._file(offsets) as file:
      np.lib.format.write_array(file, np.array(ends, np.int64))
    self._complete(
      field,
      {
        'kind': 'ragged',
        'file': values,
        'offsets': offsets,
        'dtype': np.dtype(dtype).str,
        'num_examples': len(ends) - 1,
      },
    )

  def discard(self) -> None:
    """Removes all that was written, when the inputs turn out to be useless; downloads stay."""
    self._fields, self._files = {}, {}
    for path in self.folder.iterdir():
      if path.is_file():
        path.unlink()

  def finish(self) -> None:
    """Writes the manifest and removes journal and downloads.

    Raises:
      ValueError: two fields of a split differ in their number of examples.
    """
    splits: dict[str, int] = {}
    for field, description in self._fields.items():
      number = description['num_examples']
      if splits.setdefault(field.partition('/')[0], number) != number:
        raise ValueError(
          f'All fields of a split must have the same number of examples; {field} has {number}.'
        )
    manifest = {
      'format': FORMAT,
      'dataset': self._dataset,
      'origin': self._about.origin,
      'licence': self._about.licence,
      'inputs': self.inputs,
      'splits': splits,
      'fields': self._fields,
      'files': self._files,
    }
    self._write_json(MANIFEST, {**manifest, 'checksum': _checksum(manifest)})
    (self.folder / _JOURNAL).unlink(missing_ok=True)
    downloads = self.folder / DOWNLOADS
    if downloads.is_dir():
      for path in downloads.iterdir():
        path.unlink()
      downloads.rmdir()

  def _resume(self) -> None:
    _make_folder(self.folder)
    try:
      journal = json.loads((self.folder / _JOURNAL).read_bytes())
    except (OSError, ValueError):
      return
    if self._on_bad_image == 'fail' and any('skipped' in one for one in journal['fields'].values()):
      return
    if (journal['format'], journal['key']) == (FORMAT, self._key) and all(
      _has_size(self.folder / name, file) for name, file in journal['files'].items()
    ):
      self._fields, self._files = journal['fields'], journal['files']

  def _complete(self, field: str, description: dict[str, Any]) -> None:
    if self._skipped.get(field):
      description = {**description, 'skipped': self._skipped[field]}
    if field in self._left_out:
      description = {**description, 'left_out': self._left_out[field]}
    self._fields[field] = description
    self._write_journal()

  def _write_journal(self) -> None:
    self._write_json(
      _JOURNAL,
      {
        'format': FORMAT,
        'key': self._key,
        'fields': self._fields,
        'files': self._files,
      },
    )

  @contextlib.contextmanager
  def _file(self, name: str) -> Iterator[BinaryIO]:
    with _writing(self.folder / name) as file:
      hashed = _Hashed(file)
      yield hashed  # type: ignore[misc]  # all that its users need is `write`
    self._files[name] = {'num_bytes': hashed.num_bytes, 'sha256': hashed.digest.hexdigest()}

  def _write_json(self, name: str, value: Any) -> None:
    with _writing(self.folder / name) as file:
      file.write((json.dumps(value, indent=2) + '\n').encode())


class _Hashed:
  """Computes hash and size of a file while it is written."""

  def __init__(self, file: BinaryIO):
    self._file = file
    self.digest = hashlib.sha256()
    self.num_bytes = 0

  def write(self, data: Any) -> None:
    self._file.write(data)
    self.digest.update(data)
    self.num_bytes += len(data)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[BinaryIO]:
  with files.replacing(path, then='repeat the command') as file:
    yield file


def _make_folder(path: Path) -> None:
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise files.storage_error(path, error, then='repeat the command') from error


def _map_field(root: Path, description: Mapping[str, Any]) -> Any:
  path = root / description['file']
  if description['kind'] == 'array':
    return np.load(path, mmap_mode='r', allow_pickle=False)
  offsets = np.load(root / description['offsets'], mmap_mode='r', allow_pickle=False)
  if not os.path.getsize(path):  # an empty file cannot be mapped
    return Ragged(np.empty(0, description['dtype']), offsets)
  return Ragged(np.memmap(path, description['dtype'], 'r'), offsets)


def _has_size(path: Path, expected: Mapping[str, Any]) -> bool:
  return path.is_file() and path.stat().st_size == expected['num_bytes']


def _file_name(field: str, suffix: str) -> str:
  return f'{field.replace("/", ".")}.{suffix}'


def _checksum(manifest: Mapping[str, Any]) -> str:
  return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
