"""Reads data sets that TensorFlow Datasets has prepared, without TensorFlow.

The formats array_record and tfrecord work without it, and give the same examples in the same order.
If a builder requires TensorFlow, the error says so.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.data import tf_records

_BLOCK_EXAMPLES = 512
_FORMATS = ('array_record', 'tfrecord')
_INSTALL = "pip install 'algorithmic-efficiency[data]'"

Progress = Callable[[str, int, int | None], None]


class Builder:
  """A builder whose data is on disk, as array_record or tfrecord.

  Attributes:
    title: name and version of the builder, such as 'mnist 3.0.1'.
    folder: folder of its files.
  """

  def __init__(self, builder: Any):
    self._builder = builder
    self.title = f'{builder.info.name} {builder.info.version}'
    self.folder = Path(builder.data_dir)

  def num_examples(self, split: str) -> int:
    """Returns the number of examples of a split.

    Raises:
      UserError: the builder has no such split.
    """
    splits = self._builder.info.splits
    if split not in splits:
      raise errors.unknown(f'split of {self.title}', split, splits)
    return splits[split].num_examples

  def stacked(self, split: str, names: Sequence[str], progress: Progress) -> dict[str, np.ndarray]:
    """Returns features of a split as arrays [num_examples, ...], in the builder's order.

    The data must fit in memory and have one shape a feature.

    Raises:
      UserError: as for `encoded`.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    examples = self._examples(split, names)
    while block := list(itertools.islice(examples, _BLOCK_EXAMPLES)):
      for name in names:
        parts[name].append(np.stack([example[name] for example in block]))
      read = sum(len(one) for one in parts[names[0]])
      progress(f'read {split}', read, self.num_examples(split))
    return {name: np.concatenate(blocks) for name, blocks in parts.items()}

  def encoded(
    self, split: str, names: Sequence[str], raw: Sequence[str]
  ) -> Iterator[dict[str, Any]]:
    """Yields features of each example of a split, in the builder's order.

    Args:
      names: the features.
      raw: those among them whose bytes are wanted as they are stored, such as encoded images.

    Raises:
      UserError: a split or feature is missing, or the files cannot be read or are incomplete.
    """
    for example in self._examples(split, names, raw):
      yield {name: example[name] for name in names}

  def texts(
    self, split: str, names: Sequence[str], progress: Progress
  ) -> Iterator[tuple[str, ...]]:
    """Yields text features of each example of a split, in the builder's order.

    Raises:
      UserError: a split or feature is missing, or the files cannot be read or are incomplete. A
        text is not UTF-8.
    """
    total = self.num_examples(split)
    for number, example in enumerate(self._examples(split, names), 1):
      yield tuple(self._text(example[name], name, split, number) for name in names)
      if not number % _BLOCK_EXAMPLES:
        progress(f'read {split}', number, total)

  def _examples(
    self, split: str, names: Sequence[str], raw: Sequence[str] = ()
  ) -> Iterator[Mapping[str, Any]]:
    """Yields all examples of a split, in the order in which they were written.

    Raises:
      UserError: as for `encoded`.
    """
    import tensorflow_datasets

    total = self.num_examples(split)
    self._check_features(names)
    skip = {name: tensorflow_datasets.decode.SkipDecoding() for name in raw}
    number = 0
    for example in self._read(split, skip):
      yield example
      number += 1
    if number != total:
      raise errors.UserError(
        f'The split {split} of {self.title} must hold {total} examples; the files in {self.folder} '
        f'hold {number}. Fetch or copy them again.'
      )

  def _read(self, split: str, decoders: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if _format(self._builder) == 'tfrecord':
      info = self._builder.info
      yield from _from_tf_records(info.splits[split].filepaths, info.features, decoders)
      return
    source = _data_source(self._builder, split, decoders=decoders)
    for start in range(0, len(source), _BLOCK_EXAMPLES):
      yield from source.__getitems__(range(start, min(start + _BLOCK_EXAMPLES, len(source))))

  def _text(self, content: bytes, name: str, split: str, number: int) -> str:
    """
    Raises:
      UserError: it is not UTF-8.
    """
    try:
      return content.decode()
    except UnicodeDecodeError as error:
      raise errors.UserError(
        f'{self.folder}, {split}, example {number}: the feature {name!r} must be UTF-8; it is not '
        f'({error.reason} at byte {error.start}). Fetch or copy the data again.'
      ) from None

  def _check_features(self, names: Sequence[str]) -> None:
    known = self._builder.info.features
    for name in names:
      if name not in known:
        raise errors.unknown(f'feature of {self.title}', name, known)


def _from_tf_records(
  paths: Sequence[Any], features: Any, decoders: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
  """
  Raises:
    UserError: a file is damaged, or a record does not have these features.
  """
  for path in paths:
    for content in tf_records.contents(Path(path)):
      try:
        example = features.deserialize_example_np(content, decoders=decoders)
      except ImportError as error:
        raise _needs_package(str(path), error) from error
      except Exception as error:  # decoders of damaged records raise errors of many kinds
        raise errors.UserError(
          f'{path} must hold examples with {" and ".join(features)}; one cannot be '
          f'read ({error!r}).'
        ) from None
      yield example


class Builders(Mapping[str, Builder]):
  """Several builders by the names that a definition gives them; each is opened when asked for.

  Args:
    names: builder of TensorFlow Datasets, by name.
    folders: folder of each, by name, as for `open_builder`; or one for all; None is the library's
      default.
  """

  def __init__(self, names: Mapping[str, str], folders: Path | Mapping[str, Path] | None):
    self._names = names
    self._folders = folders
    self._opened: dict[str, Builder] = {}

  def __getitem__(self, name: str) -> Builder:
    """Opens a builder. Raises what `open_builder` raises, and KeyError for an unknown name."""
    if name not in self._opened:
      builder, folders = self._names[name], self._folders
      folder = folders.get(name) if isinstance(folders, Mapping) else folders
      self._opened[name] = open_builder(builder, folder)
    return self._opened[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self._names)

  def __len__(self) -> int:
    return len(self._names)

  @property
  def title(self) -> str:
    """Names and versions of those that were opened, such as 'wmt14 1.0.0, wmt17 1.0.0'."""
    return ', '.join(self._opened[name].title for name in self._names if name in self._opened)


def open_builder(name: str, folder: Path | None) -> Builder:
  """Opens a builder; prepares its data first if it is not on disk.

  Args:
    name: name of the builder.
    folder: data folder of TensorFlow Datasets, or the folder of one prepared version (with
      `dataset_info.json`); None is the library's default.

  Raises:
    UserError: a required package is missing, the builder does not exist, preparing failed, or the
      data has another format.
  """
  for package in ('tensorflow_datasets', 'array_record'):
    if importlib.util.find_spec(package) is None:
      raise errors.UserError(f'--from tfds needs {package}, which is not installed: {_INSTALL}.')
  import tensorflow_datasets

  if folder is not None and (folder / 'dataset_info.json').is_file():
    builder = tensorflow_datasets.builder_from_directory(str(folder))
    if builder.info.name != re.split('[/:]', name)[0]:  # without configuration and version
      raise errors.UserError(
        f'--source must hold the builder {name!r} of TensorFlow Datasets; {folder} holds '
        f'{builder.info.name!r}.'
      )
  else:
    builder = _builder(tensorflow_datasets, name, folder)
  _check_format(builder)
  return Builder(builder)


def _builder(library: Any, name: str, folder: Path | None) -> Any:
  # What is in a folder has its own format; what the library is to prepare gets ours.
  options = {'file_format': 'array_record'} if folder is None else {'data_dir': str(folder)}
  try:
    builder = library.builder(name, **options)
    if folder is not None and not builder.is_prepared():
      raise errors.UserError(
        f'--source must hold the builder {name!r} of TensorFlow Datasets, prepared; {folder} does '
        "not. Leave out --source to download into that library's own folder."
      )
    if not builder.is_prepared():
      builder.download_and_prepare(file_format='array_record')
  except ImportError as error:
    raise _needs_package(name, error) from error
  except library.core.DatasetNotFoundError as error:
    raise errors.UserError(
      f'TensorFlow Datasets has no builder {name!r}, and {folder or "its data folder"} has no such '
      f'data: {str(error).splitlines()[0]}'
    ) from error
  except (OSError, library.core.download.DownloadError) as error:
    raise errors.UserError(
      f'TensorFlow Datasets could not download and prepare {name!r}: {error}. Prepare it with that '
      'library first, and name its folder with --source.'
    ) from error
  return builder


def _needs_package(name: str, error: ImportError) -> errors.UserError:
  # The library names a missing TensorFlow only in the text of the error.
  package = 'tensorflow' if 'tensorflow' in str(error) else error.name or str(error)
  return errors.UserError(
    f'The builder {name!r} of TensorFlow Datasets needs {package}, which is not installed: '
    f'pip install {package}. Or prepare the data on another machine, with '
    "file_format='array_record', and name its folder with --source."
  )


def _check_format(builder: Any) -> None:
  found = _format(builder)
  if found in _FORMATS:
    return
  raise errors.UserError(
    f'The data must be in the format {" or ".join(_FORMATS)}; {builder.data_dir} has '
    f'{found or "no format"}. Prepare it again: tensorflow_datasets.builder('
    f"{builder.info.name!r}).download_and_prepare(file_format='array_record')."
  )


def _format(builder: Any) -> str | None:
  found = builder.info.file_format
  return None if found is None else found.value


def _data_source(builder: Any, split: str, **options: Any) -> Any:
  try:
    return builder.as_data_source(split, **options)
  except ImportError as error:
    raise _needs_package(builder.info.name, error) from error
