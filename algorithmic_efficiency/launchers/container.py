"""The command that starts Python in an image of Apptainer."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from algorithmic_efficiency import errors
from algorithmic_efficiency.trial.config import TrialConfig

_ENGINES = ('apptainer', 'singularity')


def python(
  image: str,
  *,
  has_gpus: bool,
  writable: Iterable[str | Path],
  read_only: Iterable[str | Path],
) -> str:
  """Gives a shell command that starts the Python of an image.

  Folders keep their paths inside. The code is that of the image.

  Args:
    image: a file, or an address such as docker://NAME.

  Raises:
    UserError: there is no such file.
  """
  if '://' not in image and not Path(image).expanduser().exists():
    raise errors.UserError(
      f'--container must be an image of Apptainer, or an address such as docker://NAME; '
      f'{errors.shown(image)} does not exist. docker/README.md says how to build one.'
    )
  engine = next(filter(shutil.which, _ENGINES), _ENGINES[0])  # compute nodes alone may have it
  words = [engine, 'exec']
  if has_gpus:
    words.append('--nv')
  binds = {_bound(path): 'ro' for path in read_only}
  for path in writable:
    binds[_bound(path)] = 'rw'
  for path, mode in binds.items():
    words += ['--bind', f'{path}:{path}:{mode}']
  where = image if '://' in image else str(Path(image).expanduser().resolve())
  return shlex.join([*words, where, 'python3'])


def inputs(configs: Iterable[TrialConfig]) -> Iterator[Path]:
  """The folders that trials read, as far as they exist."""
  for config in configs:
    found = [config.data_dir, Path(config.submission_path).parent]
    found += [Path(folder) for folder in (*config.roots, *config.task_folders)]
    if config.suite_file:
      found.append(Path(config.suite_file).parent)
    yield from (folder for folder in found if folder.is_dir())


def caches(configs: Iterable[TrialConfig]) -> Iterator[Path]:
  """The folders of the compilation caches of trials, as far as they exist."""
  folders = {config.devices.compilation_cache for config in configs}
  yield from (Path(folder) for folder in folders if folder is not None and Path(folder).is_dir())


def _bound(path: str | Path) -> str:
  return str(Path(path).expanduser().resolve())
