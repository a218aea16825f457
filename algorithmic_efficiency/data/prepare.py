"""Prepares data sets atomically, and verifies prepared ones.

Preparation works in `<dataset>.partial` beside the final folder and renames it when it is complete.
After an interruption, the next run continues from the same inputs.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import catalog, records, streams, tfds
from algorithmic_efficiency.results import files

# Called with the name of the activity, the amount done, and the total, or None if unknown.
Progress = Callable[[str, int, int | None], None]

Raw = Path | Mapping[str, Path]
"""Raw file or folder; or several, by name."""

Source = Raw | tfds.Builder | Mapping[str, tfds.Builder] | None
"""Raw files, a TensorFlow Datasets builder or several by name, or None to download."""


def prepare(
  definition: WorkloadDefinition,
  data_dir: Path,
  *,
  source: Raw | None,
  from_tfds: bool,
  overwrite: bool,
  progress: Progress,
  on_bad_image: records.OnBadImage = 'fail',
) -> records.Prepared:
  """Prepares the data set of a definition in `<data_dir>/<dataset>`.

  Args:
    definition: definition of a workload that uses the set.
    data_dir: folder of all prepared sets.
    source: raw file or folder, or several by name; with `from_tfds`, the folder of TensorFlow
      Datasets; None downloads.
    from_tfds: True to read from TensorFlow Datasets.
    overwrite: True to replace an existing set, once the new one is complete.
    progress: called with the activity, the amount done and the total.
    on_bad_image: 'fail' at an image that cannot be used, or 'skip' it and note it in the manifest.

  Raises:
    UserError: the set exists already; there is no code for it; the source is missing or damaged;
      or writing failed.
  """
  root = data_dir / definition.dataset
  if definition.bundled:
    raise errors.UserError(
      f'The data set {definition.dataset} is bundled and needs no preparation.'
    )
  _check_code(definition)
  _check_apart(root, source)
  if root.exists() and not overwrite:
    raise errors.UserError(
      f'{root} exists already; check it with `algoeff data verify {definition.dataset} --data_dir '
      f'{data_dir}`, or replace it with --overwrite.'
    )
  opened = _open_source(definition, source, from_tfds)
  module = registry.module_of(definition, 'data')
  staging = data_dir / f'{definition.dataset}.partial'
  with _only_one(staging):
    out = records.Writer(
      staging,
      dataset=definition.dataset,
      about=module.about(definition),
      inputs=opened.title,
      key=f'{opened.key} {definition.data!r} {definition.splits!r}',
      on_bad_image=on_bad_image,
    )
    module.prepare(definition, opened.source, out, progress)
    if isinstance(opened.source, tfds.Builders):  # which were opened is known by now
      out.inputs = _tfds_title(opened.source.title)
    out.finish()
    _put_in_place(staging, root)
  return records.open_prepared(root)


def _check_apart(root: Path, source: Raw | None) -> None:
  """
  Raises:
    UserError: a source lies where the set is written, so that --overwrite would remove it.
  """
  parts = source.values() if isinstance(source, Mapping) else [] if source is None else [source]
  for path in parts:
    if path.resolve().is_relative_to(root.resolve()):
      raise errors.UserError(
        f'--source must lie outside of {root}, to which the prepared set is written; it is {path}. '
        'Choose another --data_dir.'
      )


def verify(definition: WorkloadDefinition, data_dir: Path, progress: Progress) -> dict[str, int]:
  """Reads a data set completely and compares it with its checksums.

  Opening a bundled set compares it with its checksum.

  Returns:
    `num_files` and `num_bytes`, the amount read.

  Raises:
    UserError: the set is missing, incomplete or altered; the message names the file.
  """
  _check_code(definition)
  root = data_dir / definition.dataset
  module = registry.module_of(definition, 'data')
  if definition.bundled:
    streams.train_stream(module, definition, root, 1, 0).close()
    about = catalog.about_of(definition)  # generated data have no file
    return {'num_files': int(about is not None), 'num_bytes': about.num_bytes if about else 0}
  manifest = records.read_manifest(root)
  records.check_sizes(root, manifest)
  records.check_content(root, manifest, progress)
  streams.train_stream(module, definition, root, 1, 0).close()
  sizes = [file['num_bytes'] for file in manifest['files'].values()]
  return {'num_files': len(sizes), 'num_bytes': sum(sizes)}


def _check_code(definition: WorkloadDefinition) -> None:
  obstacle = registry.data_obstacle(definition)
  if obstacle:
    raise errors.UserError(
      f'The data set {definition.dataset} cannot be prepared or read. {obstacle}'
    )


def sources(definition: WorkloadDefinition, words: Sequence[str], *, from_tfds: bool) -> Raw | None:
  """Returns the raw files that a command names: PATH, or NAME=PATH for each of several sources.

  Args:
    words: values of `--source`, in order.

  Raises:
    UserError: there is no code for the set, it has no source of such a name, or the form is wrong.
  """
  _check_code(definition)
  if not words:
    return None
  names = _source_names(definition, from_tfds)
  if not names or (from_tfds and len(words) == 1 and '=' not in words[0]):
    if len(words) > 1:
      raise errors.UserError(
        f'The data set {definition.dataset} takes one --source; {len(words)} were given.'
      )
    return Path(words[0]).expanduser()
  found: dict[str, Path] = {}
  for word in words:
    name, sign, path = word.partition('=')
    if not sign or name in found:
      raise errors.UserError(
        f'The data set {definition.dataset} has several sources; give each once, as --source '
        f'NAME=PATH with a name of {", ".join(names)}. One is {errors.shown(word)}.'
      )
    if name not in names:
      raise errors.unknown(f'source of the data set {definition.dataset}', name, names)
    found[name] = Path(path).expanduser()
  return found


def _source_names(definition: WorkloadDefinition, from_tfds: bool) -> tuple[str, ...]:
  """Returns the names of several sources; none if the data set has a single one."""
  if from_tfds:
    return tuple(definition.tfds) if isinstance(definition.tfds, Mapping) else ()
  return registry.module_of(definition, 'data').about(definition).sources


class _Given(dict[str, Path]):
  """Raw sources by name; one that was not given is named with the flag that gives it."""

  def __init__(self, dataset: str, sources: Mapping[str, Path]):
    super().__init__(sources)
    self._dataset = dataset

  def __missing__(self, name: str) -> Path:
    raise errors.UserError(
      f'The data set {self._dataset} needs its source {name!r}; give it with --source {name}=PATH.'
    )


@dataclass(frozen=True, kw_only=True)
class _Opened:
  """A source that `prepare` reads.

  Attributes:
    title: description for the manifest.
    key: changes with the source.
  """

  source: Source
  title: str
  key: str


def _open_source(definition: WorkloadDefinition, source: Raw | None, from_tfds: bool) -> _Opened:
  parts = source if isinstance(source, Mapping) else {} if source is None else {'': source}
  for path in parts.values():
    if not path.exists():
      raise errors.UserError(f'--source must be a file or directory; {path} does not exist.')
  if from_tfds:
    return _open_tfds(definition, source, parts)
  if source is None:
    return _Opened(source=None, title='fetched', key='fetched')
  given = _Given(definition.dataset, source) if isinstance(source, Mapping) else source
  return _Opened(source=given, title='given files', key=f'given {_key(parts)}')


def _open_tfds(
  definition: WorkloadDefinition, source: Raw | None, parts: Mapping[str, Path]
) -> _Opened:
  if definition.tfds is None:
    raise errors.UserError(
      f'The data set {definition.dataset} has no builder in TensorFlow Datasets; leave out '
      '--from tfds.'
    )
  if isinstance(definition.tfds, Mapping):
    builders = tfds.Builders(definition.tfds, source)
    title = _tfds_title(', '.join(definition.tfds.values()))
    return _Opened(source=builders, title=title, key=f'{title} {_key(parts)}')
  assert not isinstance(source, Mapping)
  builder = tfds.open_builder(definition.tfds, source)
  title = _tfds_title(builder.title)
  return _Opened(source=builder, title=title, key=f'{title} {_source_hash(builder.folder)}')


def _tfds_title(builders: str) -> str:
  return f'TensorFlow Datasets, {builders}'


def _key(parts: Mapping[str, Path]) -> str:
  """Returns a text that changes with the files of named sources."""
  return ' '.join(
    f'{name}{"=" if name else ""}{path.resolve()} {_source_hash(path)}'
    for name, path in sorted(parts.items())
  )


def _source_hash(source: Path) -> str:
  """Returns a hash of the names, sizes and modification times of the files of a source."""
  paths = sorted(source.rglob('*')) if source.is_dir() else [source]
  digest = hashlib.sha256()
  for path in paths:
    if path.is_file():
      stat = path.stat()
      digest.update(f'{path.relative_to(source)} {stat.st_size} {stat.st_mtime_ns}\n'.encode())
  return digest.hexdigest()


@contextlib.contextmanager
def _only_one(staging: Path) -> Iterator[None]:
  """Creates and locks the staging folder.

  Raises:
    UserError: another process holds it, or the folder cannot be created.
  """
  try:
    staging.mkdir(parents=True, exist_ok=True)
    handle = os.open(staging, os.O_RDONLY | os.O_CLOEXEC)
  except OSError as error:
    raise files.storage_error(staging, error, then='repeat the command') from error
  try:
    if not _lock(handle) or not _is_still(staging, handle):
      raise errors.UserError(f'Another process is preparing {staging}; wait for it to end.')
    try:
      yield
    finally:
      _remove_if_empty(staging)
  finally:
    os.close(handle)


def _lock(handle: int) -> bool:
  try:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  return True


def _is_still(folder: Path, handle: int) -> bool:
  """Returns True if the opened folder still has its name; its last owner may have renamed it."""
  return folder.is_dir() and os.path.samestat(folder.stat(), os.fstat(handle))


def _remove_if_empty(staging: Path) -> None:
  """Removes the staging folder if preparation failed before it completed a file."""
  for folder in (staging / records.DOWNLOADS, staging):
    if folder.is_dir() and not any(folder.iterdir()):
      folder.rmdir()


def _put_in_place(staging: Path, root: Path) -> None:
  """Renames the complete set; an older one goes first, and is removed last."""
  old = root.with_name(f'{root.name}.old')
  try:
    if old.exists():
      shutil.rmtree(old)
    if root.exists():
      os.rename(root, old)
    os.rename(staging, root)
    files.sync_folder(root.parent)
    if old.exists():
      shutil.rmtree(old)
  except OSError as error:
    raise files.storage_error(root, error, then='repeat the command') from error
