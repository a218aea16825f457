"""Images of handwritten digits that several tasks read: those of scikit-learn, and MNIST.

Both are compared with a hash, so that a target never changes its meaning.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.util
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.data import fetch, records

DIGITS_ABOUT = records.About(
  origin='Optical recognition of handwritten digits, E. Alpaydin and C. Kaynak 1998, UCI; the '
  'test part, as scikit-learn ships it',
  licence='CC BY 4.0',
  num_bytes=57_523,
)
MNIST_ABOUT = records.About(
  origin='MNIST, Y. LeCun, C. Cortes and C. J. C. Burges',
  licence='CC BY-SA 3.0',
  num_bytes=55_160_768,
)

_DIGITS_FILE = 'datasets/data/digits.csv.gz'
_DIGITS_SHA256 = '68aea062d35a127749050fa0e52dca09d6569ac08092c925610e0954e172dde2'


@dataclass(frozen=True)
class IdxFile:
  """One of MNIST's original files: name, dimensions, compressed file, hash of its content."""

  name: str
  shape: tuple[int, ...]
  packed_bytes: int
  packed_sha256: str
  sha256: str

  def download(self, places: Sequence[str]) -> fetch.Download:
    """Returns its download from folders on the web, in the order in which to try them."""
    name = f'{self.name}.gz'
    return fetch.Download(
      name=name,
      urls=tuple(place + name for place in places),
      sha256=self.packed_sha256,
      num_bytes=self.packed_bytes,
    )


# Images and labels, by the name of the split in file names.
MNIST_FILES = {
  'train': (
    IdxFile(
      'train-images-idx3-ubyte',
      (60_000, 28, 28),
      9_912_422,
      '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609',
      'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db',
    ),
    IdxFile(
      'train-labels-idx1-ubyte',
      (60_000,),
      28_881,
      '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c',
      '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5',
    ),
  ),
  'test': (
    IdxFile(
      't10k-images-idx3-ubyte',
      (10_000, 28, 28),
      1_648_877,
      '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6',
      '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7',
    ),
    IdxFile(
      't10k-labels-idx1-ubyte',
      (10_000,),
      4_542,
      'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6',
      'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2',
    ),
  ),
}


@functools.cache
def digits() -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
  """Returns images, uint8 [n, 8, 8, 1] from 0 to 16, and labels, int32 [n], by split.

  Image i is validation if i % 5 is 4, test if it is 3, and train otherwise.

  Raises:
    UserError: scikit-learn is missing, or its file differs from the one of the definition.
  """
  spec = importlib.util.find_spec('sklearn')
  if spec is None or not spec.submodule_search_locations:
    raise errors.UserError(
      'The digits are read from the data files of scikit-learn, which is not installed: '
      "pip install 'algorithmic-efficiency[quick]'"
    )
  path = Path(spec.submodule_search_locations[0]) / _DIGITS_FILE
  try:
    with gzip.open(path, 'rt') as file:
      table = np.loadtxt(file, np.uint8, delimiter=',')
  except (OSError, EOFError, zlib.error, ValueError) as error:
    raise errors.UserError(
      f'The digits cannot be read from {path} ({error}); reinstall scikit-learn.'
    ) from None
  if hashlib.sha256(table.tobytes()).hexdigest() != _DIGITS_SHA256:
    raise errors.UserError(
      f'{path} does not hold the digits that targets are defined on; reinstall scikit-learn.'
    )
  inputs = table[:, :-1].reshape(-1, 8, 8, 1)
  targets = table[:, -1].astype(np.int32)
  residue = np.arange(len(table)) % 5
  chosen = {'train': residue < 3, 'test': residue == 3, 'validation': residue == 4}
  return {split: (inputs[rows], targets[rows]) for split, rows in chosen.items()}


def mnist(group: str, folder: Path, progress: fetch.Progress) -> tuple[np.ndarray, np.ndarray]:
  """Reads images, uint8 [n, 28, 28], and labels, uint8 [n], of MNIST's group 'train' or 'test'.

  Args:
    folder: holds the four idx files, compressed or not.

  Raises:
    UserError: a file is missing, truncated or not MNIST's.
  """
  images, labels = (_read_idx(folder, file, progress) for file in MNIST_FILES[group])
  return images, labels


def _read_idx(folder: Path, file: IdxFile, progress: fetch.Progress) -> np.ndarray:
  """Reads the uint8 array of an idx file: four bytes of type and rank, big-endian sizes, values.

  Raises:
    UserError: the file is missing, truncated or not MNIST's.
  """
  path = next(
    (path for path in (folder / f'{file.name}.gz', folder / file.name) if path.is_file()), None
  )
  if path is None:
    raise errors.UserError(
      f'--source must name a folder with the four idx files of MNIST; {folder} has no '
      f'{file.name}.gz, packed or unpacked.'
    )
  progress(f'read {path.name}', 0, None)
  try:
    content = gzip.decompress(path.read_bytes()) if path.suffix == '.gz' else path.read_bytes()
  except (OSError, EOFError, zlib.error) as error:
    raise errors.UserError(f'{path} is truncated or damaged ({error}); fetch it again.') from None
  header = struct.pack(f'>HBB{len(file.shape)}I', 0, 8, len(file.shape), *file.shape)
  expected = len(header) + math.prod(file.shape)
  if len(content) != expected:
    raise errors.UserError(
      f'{path} must hold {expected} bytes when unpacked; it holds {len(content)}: it is truncated '
      'or another file. Fetch it again.'
    )
  if hashlib.sha256(content).hexdigest() != file.sha256 or not content.startswith(header):
    raise errors.UserError(
      f"{path} is not MNIST's file: its content has been changed. Fetch it again."
    )
  return np.frombuffer(content, np.uint8, offset=len(header)).reshape(file.shape)
