"""Data sets that TensorFlow Datasets has prepared, read without TensorFlow.

Only the random-access format array_record can be read without it; what a builder needs TensorFlow
for is said in one sentence.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency import errors

_BLOCK_EXAMPLES = 512
_INSTALL = "pip install 'algorithmic-efficiency[data]'"

Progress = Callable[[str, int, int | None], None]


class Builder:
  """A builder whose data is on disk as array_record.

  Attributes:
    title: the builder's name and version, such as 'mnist 3.0.1'.
    folder: where its files lie.
  """

  def __init__(self, builder: Any):
    self._builder = builder
    self.title = f'{builder.info.name} {builder.info.version}'
    self.folder = Path(builder.data_dir)

  def num_examples(self, split: str) -> int:
    """
    Raises:
      UserError: the builder has no such split.
    """
    splits = self._builder.info.splits
    if split not in splits:
      raise errors.unknown(f'split of {self.title}', split, splits)
    return splits[split].num_examples

  def stacked(self, split: str, names: Sequence[str], progress: Progress) -> dict[str, np.ndarray]:
    """Whole features of a split, [num_examples, ...], in the order in which the builder keeps them.

    For data that fits in memory and has one shape per feature.

    Raises:
      UserError: a split or feature is missing, or the files cannot be read.
    """
    total = self.num_examples(split)
    known = self._builder.info.features
    for name in names:
      if name not in known:
        raise errors.unknown(f'feature of {self.title}', name, known)
    source = _data_source(self._builder, split)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for start in range(0, total, _BLOCK_EXAMPLES):
      stop = min(start + _BLOCK_EXAMPLES, total)
      examples = source.__getitems__(range(start, stop))
      for name in names:
        parts[name].append(np.stack([example[name] for example in examples]))
      progress(f'read {split}', stop, total)
    return {name: np.concatenate(blocks) for name, blocks in parts.items()}


def open_builder(name: str, folder: Path | None) -> Builder:
  """The builder of that name, prepared first if its data is not on disk.

  Args:
    folder: the data folder of TensorFlow Datasets, or the folder of one prepared version (with
      `dataset_info.json`); None takes the library's own default.

  Raises:
    UserError: the library, or TensorFlow where the builder needs it, is missing; or the data is
      kept in a format that has no random access.
  """
  for package in ('tensorflow_datasets', 'array_record'):
    if importlib.util.find_spec(package) is None:
      raise errors.UserError(f'--from tfds needs {package}, which is not installed: {_INSTALL}.')
  import tensorflow_datasets

  if folder is not None and (folder / 'dataset_info.json').is_file():
    builder = tensorflow_datasets.builder_from_directory(str(folder))
    if builder.info.name != name:
      raise errors.UserError(
        f'The data set is the builder {name!r} of TensorFlow Datasets; {folder} holds '
        f'{builder.info.name!r}.'
      )
  else:
    builder = _builder(tensorflow_datasets, name, folder)
  _check_format(builder)
  return Builder(builder)


def _builder(library: Any, name: str, folder: Path | None) -> Any:
  options = {} if folder is None else {'data_dir': str(folder)}
  try:
    builder = library.builder(name, file_format='array_record', **options)
    if not builder.is_prepared():
      builder.download_and_prepare(file_format='array_record')
  except ImportError as error:
    raise _needs_package(name, error) from error
  except library.core.DatasetNotFoundError as error:
    raise errors.UserError(
      f'TensorFlow Datasets knows no builder {name!r}, and {folder or "its data folder"} holds '
      f'none: {str(error).splitlines()[0]}'
    ) from error
  except (OSError, library.core.download.DownloadError) as error:
    raise errors.UserError(
      f'TensorFlow Datasets could not fetch and prepare {name!r}: {error}. Prepare it with that '
      'library first, and name its folder with --source.'
    ) from error
  return builder


def _needs_package(name: str, error: ImportError) -> errors.UserError:
  # The library reports a missing TensorFlow in the text alone.
  package = 'tensorflow' if 'tensorflow' in str(error) else error.name or str(error)
  return errors.UserError(
    f'The builder {name!r} of TensorFlow Datasets needs {package}, which is not installed: '
    f'pip install {package}. Or prepare it where that is installed, with '
    "file_format='array_record', and name its folder with --source."
  )


def _check_format(builder: Any) -> None:
  found = builder.info.file_format
  if found is None or found.value != 'array_record':
    raise errors.UserError(
      f'Only array_record can be read at random; {builder.data_dir} holds '
      f'{"no format" if found is None else found.value}. Prepare it anew: '
      f'tensorflow_datasets.builder({builder.info.name!r}).download_and_prepare('
      "file_format='array_record')."
    )


def _data_source(builder: Any, split: str) -> Any:
  try:
    return builder.as_data_source(split)
  except ImportError as error:
    raise _needs_package(builder.info.name, error) from error
