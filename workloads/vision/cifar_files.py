"""Reads CIFAR-10 from each form in which it is given: pickles, binary files, parquet, archives."""

from __future__ import annotations

import io
import pickle
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.data.prepare import Progress

from . import pixels

Group = Literal['train', 'test']

SIDE = 32
_IMAGE_BYTES = 3 * SIDE * SIDE
_MAX_FILE_BYTES = 64 << 20  # a file of 10,000 images has 31 MB
_FOLDERS = ('', 'cifar-10-batches-py', 'cifar-10-batches-bin', 'plain_text', 'data')
_ARCHIVES = ('cifar-10-binary.tar.gz', 'cifar-10-python.tar.gz')
_NAMES: Mapping[Group, tuple[str, ...]] = {
  'train': tuple(f'data_batch_{number}' for number in range(1, 6)),
  'test': ('test_batch',),
}
# What a pickle of CIFAR-10 refers to; anything else could run code.
_PICKLED = {
  ('numpy.core.multiarray', '_reconstruct'),
  ('numpy._core.multiarray', '_reconstruct'),
  ('numpy', 'ndarray'),
  ('numpy', 'dtype'),
  ('_codecs', 'encode'),
}


class Labelled(NamedTuple):
  """Images, uint8 [n, 32, 32, 3], and their labels, int32 [n]."""

  images: np.ndarray
  labels: np.ndarray


def read(source: Path, group: Group, progress: Progress) -> Labelled:
  """Reads the training or the test images, in the order of the files.

  Args:
    source: folder of python pickles, binary files or parquet files, or of one of the two archives;
      or such an archive itself.

  Raises:
    UserError: a file is missing, truncated or of another form.
  """
  parts = list(_parts(source, group, progress))
  images, labels = zip(*parts, strict=True)
  return Labelled(np.concatenate(images), np.concatenate(labels))


def _parts(source: Path, group: Group, progress: Progress) -> Iterator[Labelled]:
  if source.is_file():
    return _of_archive(source, group, progress)
  for name in _FOLDERS:
    folder = source / name
    files = sorted(folder.glob(f'{group}*.parquet'))
    if files:
      return (_parquet(file, progress) for file in files)
    for suffix, parse in _PARSERS.items():
      paths = [folder / f'{one}{suffix}' for one in _NAMES[group]]
      if any(path.is_file() for path in paths):
        return (_of_file(path, parse, progress) for path in paths)
  for name in _ARCHIVES:
    if (source / name).is_file():
      return _of_archive(source / name, group, progress)
  raise errors.UserError(
    f'--source must be a folder with CIFAR-10: {_NAMES[group][0]}, {_NAMES[group][0]}.bin, '
    f'{group}*.parquet, or {" or ".join(_ARCHIVES)}. There is none of these in {source}.'
  )


def _of_file(path: Path, parse: Callable[[bytes], Labelled], progress: Progress) -> Labelled:
  progress(f'read {path.name}', 0, None)
  try:
    if path.stat().st_size > _MAX_FILE_BYTES:
      raise _damaged(path, f'it has {path.stat().st_size:,} bytes')
    content = path.read_bytes()
  except OSError as error:
    raise errors.UserError(f'{path} cannot be read: {error.strerror}.') from None
  return _parsed(path, content, parse)


def _of_archive(archive: Path, group: Group, progress: Progress) -> Iterator[Labelled]:
  """Yields the parts of an archive; it is read in one go, as a compressed one has no index."""
  progress(f'read {archive.name}, {group}', 0, None)
  found: dict[str, Labelled] = {}
  try:
    with tarfile.open(archive, 'r|*') as tar:
      for member in tar:
        path = Path(member.name)
        if path.stem in _NAMES[group] and path.suffix in _PARSERS and member.isfile():
          file = tar.extractfile(member) if member.size <= _MAX_FILE_BYTES else None
          content = b'' if file is None else file.read()
          found[path.stem] = _parsed(archive / path.name, content, _PARSERS[path.suffix])
  except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
    raise _damaged(archive, str(error)) from None
  for name in _NAMES[group]:
    if name not in found:
      raise _damaged(archive, f'it has no {name}')
    yield found[name]


def _parsed(path: Path, content: bytes, parse: Callable[[bytes], Labelled]) -> Labelled:
  try:
    return parse(content)
  except ValueError as error:
    raise _damaged(path, str(error)) from None


def _damaged(path: Path, what: str) -> errors.UserError:
  return errors.UserError(
    f'{path} is not a file of CIFAR-10, or it is truncated: {what}. Fetch it again.'
  )


def _binary(content: bytes) -> Labelled:
  """Parses records of a label and the red, green and blue values of an image.

  Raises:
    ValueError: the size is not that of whole records.
  """
  size = 1 + _IMAGE_BYTES
  if not content or len(content) % size:
    raise ValueError(f'its {len(content):,} bytes are not whole records of {size:,}')
  table = np.frombuffer(content, np.uint8).reshape(-1, size)
  return Labelled(_images(table[:, 1:]), table[:, 0].astype(np.int32))


def _pickled(content: bytes) -> Labelled:
  """
  Raises:
    ValueError: it is no pickle of images and labels, or refers to anything else than arrays.
  """
  try:
    found = _ArraysOnly(io.BytesIO(content), encoding='bytes').load()
    data, labels = (_entry(found, name) for name in ('data', 'labels'))
    values, labels = np.asarray(data), np.asarray(labels)
  except Exception as error:  # damaged pickles raise errors of many kinds
    raise ValueError(str(error) or type(error).__name__) from None
  if values.dtype != np.uint8 or values.ndim != 2 or values.shape[1] != _IMAGE_BYTES:
    raise ValueError(f'its data are {values.dtype}{list(values.shape)}')
  if labels.dtype.kind not in 'iu' or labels.shape != values.shape[:1]:
    raise ValueError(f'its labels are {labels.dtype}{list(labels.shape)}')
  return Labelled(_images(values), labels.astype(np.int32))


def _entry(found: Any, name: str) -> Any:
  if not isinstance(found, dict):
    raise ValueError(f'it holds {type(found).__name__}, not a dict')
  for key in (name.encode(), name):
    if key in found:
      return found[key]
  raise ValueError(f'it has no {name}')


class _ArraysOnly(pickle.Unpickler):
  """Unpickles arrays of numbers and plain values, and refuses all else."""

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in _PICKLED:
      raise pickle.UnpicklingError(f'it refers to {module}.{name}, which has no place in it')
    return super().find_class(module.replace('numpy.core', 'numpy._core'), name)


# By the suffix of the file.
_PARSERS: Mapping[str, Callable[[bytes], Labelled]] = {'': _pickled, '.bin': _binary}


def _images(planes: np.ndarray) -> np.ndarray:
  """Returns values [n, 3 * 32 * 32] as images [n, 32, 32, 3]."""
  return np.ascontiguousarray(planes.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))


def _parquet(path: Path, progress: Progress) -> Labelled:
  """Reads a file with a column of labels and one of encoded images, as data hubs have them."""
  pixels.require('pyarrow', 'pyarrow')
  import pyarrow
  import pyarrow.parquet

  progress(f'read {path.name}', 0, None)
  try:
    with pyarrow.parquet.ParquetFile(path) as file:
      [column] = [name for name in ('img', 'image') if name in file.schema_arrow.names]
      table = file.read([column, 'label'])
    encoded = table.column(column).combine_chunks().field('bytes').to_pylist()
    labels = np.asarray(table.column('label').to_numpy(), np.int32)
  except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
    raise _damaged(path, str(error)) from None
  images = np.empty((len(encoded), SIDE, SIDE, 3), np.uint8)
  for row, content in enumerate(encoded):
    images[row] = _decoded(content, f'{path}, row {row}')
  return Labelled(images, labels)


def _decoded(content: bytes | None, where: str) -> np.ndarray:
  try:
    image = pixels.decode(np.frombuffer(content or b'', np.uint8))
  except pixels.BadImage as error:
    raise errors.UserError(f'{where}, {error}. Fetch the file again.') from None
  if image.shape != (SIDE, SIDE, 3):
    raise errors.UserError(
      f'{where} must be an image of {SIDE}x{SIDE} pixels; it is {list(image.shape)}.'
    )
  return image


def binary_form(images: np.ndarray, labels: np.ndarray) -> bytes:
  """Returns images and labels as a binary file of CIFAR-10 has them."""
  planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
  return np.concatenate([labels[:, None].astype(np.uint8), planes], axis=1).tobytes()


def number_of(name: str) -> int:
  """Returns the number at the end of a text such as `train_00042`.

  Raises:
    ValueError: there is none.
  """
  match = re.search(r'(\d+)$', name)
  if match is None:
    raise ValueError(f'{name!r} has no number at its end.')
  return int(match.group(1))
