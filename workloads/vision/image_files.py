"""Finds the images of ImageNet: in folders of classes, or in the official archives.

| split | folder of classes | archive |
|---|---|---|
| train | `train` | `ILSVRC2012_img_train.tar` |
| validation | `val` or `validation` | `ILSVRC2012_img_val.tar`, `ILSVRC2012_devkit_t12.tar.gz` |
| test | `imagenetv2-matched-frequency-format-val` | `imagenetv2-matched-frequency.tar.gz` |

Each class of train and validation is a folder (or archive) named by its WordNet number. A label is
the position of that number in `imagenet_classes.txt`. In ImageNet-v2, folders have the labels as
their names.
"""

from __future__ import annotations

import functools
import gzip
import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from algorithmic_efficiency import errors
from algorithmic_efficiency.data import records
from algorithmic_efficiency.data.prepare import Progress

from . import pixels

_CLASSES = Path(__file__).with_name('imagenet_classes.txt')
_DEVKIT = 'ILSVRC2012_devkit_t12.tar.gz'
_META, _GROUND_TRUTH = 'meta.mat', 'ILSVRC2012_validation_ground_truth.txt'
_NUM_SHOWN = 3  # classes that a message names


@dataclass(frozen=True, kw_only=True)
class _Layout:
  """Where the images of a split may be: names of folders of classes, or of an archive."""

  folders: tuple[str, ...]
  archive: str


_LAYOUTS: Mapping[str, _Layout] = {
  'train': _Layout(folders=('train',), archive='ILSVRC2012_img_train.tar'),
  'validation': _Layout(folders=('val', 'validation'), archive='ILSVRC2012_img_val.tar'),
  'test': _Layout(
    folders=('imagenetv2-matched-frequency-format-val',),
    archive='imagenetv2-matched-frequency.tar.gz',
  ),
}


@dataclass(frozen=True, kw_only=True)
class RawImage:
  """An encoded image.

  Attributes:
    name: its file, for messages.
    label: number of its class.
    read: returns its bytes. Raises UserError if the file or archive cannot be read. Threads may
      call it.
  """

  name: str
  label: int
  read: Callable[[], bytes]


def classes(num_classes: int) -> tuple[str, ...]:
  """Returns the WordNet numbers of the first classes, by label."""
  return tuple(_CLASSES.read_text().split()[:num_classes])


def find(
  source: Path, split: str, num_classes: int, out: records.Writer, progress: Progress
) -> list[RawImage]:
  """Finds the images of a split; those of a class follow each other, sorted by name.

  Args:
    source: folder that has what the table above says.
    split: 'train', 'validation' or 'test'.
    num_classes: number of classes, the first ones of the list.
    out: holds what is unpacked, until the set is complete.
    progress: called with the activity.

  Raises:
    UserError: the images are not there, a class is missing or unknown, or an archive is damaged.
  """
  layout = _LAYOUTS[split]
  names = classes(num_classes)
  if split == 'test':
    names = tuple(str(label) for label in range(num_classes))
  progress(f'find the images of {split}', 0, None)
  for folder in layout.folders:
    if (source / folder).is_dir():
      return _in_folders(source / folder, names)
  archive = source / layout.archive
  if not archive.is_file():
    raise errors.UserError(
      f'--source must be a folder with the images of {split}, in the folder '
      f'{" or ".join(layout.folders)} or in {layout.archive}; there is neither in {source}.'
    )
  if split == 'train':
    return _in_archive_of_archives(archive, names)
  if split == 'validation':
    return _in_flat_archive(archive, source / _DEVKIT, names)
  return _in_archive_of_folders(_unpacked(archive, out, progress), archive, names)


def _in_folders(folder: Path, names: Sequence[str]) -> list[RawImage]:
  found = [one.name for one in folder.iterdir() if one.is_dir() and not _is_hidden(one.name)]
  _check_classes(folder, found, names)
  return [
    RawImage(name=str(path), label=label, read=functools.partial(_read_file, path))
    for label, name in enumerate(names)
    for path in sorted((folder / name).iterdir())
    if not _is_hidden(path.name)
  ]


def _is_hidden(name: str) -> bool:
  return name.startswith('.')


def _read_file(path: Path) -> bytes:
  try:
    return path.read_bytes()
  except OSError as error:
    raise errors.UserError(f'{path} cannot be read: {error.strerror}.') from None


def _check_classes(where: Path, found: Iterable[str], expected: Sequence[str]) -> None:
  """
  Raises:
    UserError: a class is missing, or there is one that is unknown.
  """
  present, known = set(found), set(expected)
  for what, names in (
    ('is without', sorted(known - present)),
    ('has beside them', sorted(present - known)),
  ):
    if names:
      more = f' and {len(names) - _NUM_SHOWN:,} more' if len(names) > _NUM_SHOWN else ''
      raise errors.UserError(
        f'{where} must hold the {len(expected):,} classes {expected[0]} to {expected[-1]}; it '
        f'{what} {", ".join(names[:_NUM_SHOWN])}{more}.'
      )


# Archives. Members are read by their position, so that threads can share a file.


@dataclass(frozen=True, kw_only=True)
class _Member:
  """A file in an archive: its name, and where its bytes begin; `shown` is the user's archive."""

  archive: Path
  shown: Path
  name: str
  offset: int
  num_bytes: int

  def read(self) -> bytes:
    """
    Raises:
      UserError: the archive ends before.
    """
    with open(self.archive, 'rb') as file:
      content = os.pread(file.fileno(), self.num_bytes, self.offset)
    if len(content) < self.num_bytes:
      raise _truncated(self.shown, f'{self.name} is not complete')
    return content

  def image(self, label: int) -> RawImage:
    return RawImage(name=f'{self.shown}, {self.name}', label=label, read=self.read)


def _members(
  archive: Path, within: _Member | None = None, shown: Path | None = None
) -> list[_Member]:
  """Lists the files of an archive, or of one within it, sorted by name.

  Args:
    shown: archive to name in messages; None for `archive` itself.

  Raises:
    UserError: it is no archive, or is truncated.
  """
  start, size = (within.offset, within.num_bytes) if within else (0, archive.stat().st_size)
  where = f'{within.name}: ' if within else ''
  found = []
  try:
    with open(archive, 'rb') as file:
      file.seek(start)
      with tarfile.open(fileobj=file, mode='r:') as tar:
        for member in tar:
          if member.offset_data + member.size > start + size:
            raise tarfile.ReadError(f'{member.name} is not complete')
          if member.isfile() and not _is_hidden(PurePosixPath(member.name).name):
            found.append(
              _Member(
                archive=archive,
                shown=shown or archive,
                name=member.name,
                offset=member.offset_data,
                num_bytes=member.size,
              )
            )
  except (tarfile.TarError, EOFError, OSError) as error:
    raise _truncated(shown or archive, f'{where}{error}') from None
  return sorted(found, key=lambda one: one.name)


def _truncated(archive: Path, what: str) -> errors.UserError:
  return errors.UserError(
    f'{archive} is truncated, or is another archive ({what}). Fetch it again.'
  )


def _in_archive_of_archives(archive: Path, names: Sequence[str]) -> list[RawImage]:
  """Lists images of an archive that holds one for each class."""
  by_name = {PurePosixPath(one.name).stem: one for one in _members(archive)}
  _check_classes(archive, by_name, names)
  return [
    image.image(label)
    for label, name in enumerate(names)
    for image in _members(archive, by_name[name])
  ]


def _in_flat_archive(archive: Path, devkit: Path, names: Sequence[str]) -> list[RawImage]:
  """Lists the validation images, whose labels are in the development kit, by class and name."""
  images = _members(archive)
  labels = _validation_labels(devkit, names)
  if len(images) != len(labels):
    raise errors.UserError(
      f'{archive} must hold an image for each of the {len(labels):,} labels in {devkit}; it holds '
      f'{len(images):,}.'
    )
  labeled = [image.image(label) for image, label in zip(images, labels, strict=True)]
  return sorted(labeled, key=lambda image: image.label)  # as folders of classes are listed


def _in_archive_of_folders(unpacked: Path, archive: Path, names: Sequence[str]) -> list[RawImage]:
  """Lists images in folders of classes within an archive."""
  by_class: dict[str, list[_Member]] = {}
  for member in _members(unpacked, shown=archive):
    by_class.setdefault(PurePosixPath(member.name).parent.name, []).append(member)
  _check_classes(archive, by_class, names)
  return [image.image(label) for label, name in enumerate(names) for image in by_class[name]]


def _unpacked(archive: Path, out: records.Writer, progress: Progress) -> Path:
  """Decompresses an archive into the folder for downloads, whose members can then be found."""
  progress(f'decompress {archive.name}', 0, None)
  target = out.downloads / archive.stem
  try:
    with gzip.open(archive) as packed, open(target, 'wb') as file:
      shutil.copyfileobj(packed, file, 1 << 20)
  except (EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise _truncated(archive, str(error)) from None
  return target


def _validation_labels(devkit: Path, names: Sequence[str]) -> list[int]:
  """Reads the labels of the validation images, in the order of their names.

  The kit numbers classes in an order of its own, and has the WordNet number of each.

  Raises:
    UserError: the kit is missing, damaged or another one.
  """
  if not devkit.is_file():
    raise errors.UserError(
      f'The labels of the validation images are in {_DEVKIT}; there is none in {devkit.parent}. '
      'Add it, or sort the images into folders of classes.'
    )
  pixels.require('scipy', 'SciPy')
  import scipy.io

  files = _read_members(devkit, (_META, _GROUND_TRUTH))
  try:
    table = scipy.io.loadmat(io.BytesIO(files[_META]), squeeze_me=True)['synsets']
    # Those above the classes are groups of them, such as 'animal'.
    wordnet = {int(row['ILSVRC2012_ID']): str(row['WNID']) for row in table}
    found = [wordnet[int(line)] for line in files[_GROUND_TRUTH].split()]
    by_name = {name: label for label, name in enumerate(names)}
    return [by_name[name] for name in found]
  except Exception as error:  # a damaged table raises errors of many kinds
    raise errors.UserError(
      f'{devkit} is not the development kit of ImageNet 2012 ({type(error).__name__}: {error}).'
    ) from None


def _read_members(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
  """Reads files of a compressed archive, by the ends of their names.

  Raises:
    UserError: it is truncated, or has no such file.
  """
  found: dict[str, bytes] = {}
  try:
    with tarfile.open(archive, 'r:gz') as tar:
      for member in tar:
        name, file = PurePosixPath(member.name).name, tar.extractfile(member)
        if name in names and file is not None:
          found[name] = file.read()
  except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
    raise _truncated(archive, str(error)) from None
  for name in names:
    if name not in found:
      raise _truncated(archive, f'it has no {name}')
  return found
