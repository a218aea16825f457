"""Submissions from an import name: an optimizer, called like a function.

`torch.optim.AdamW(lr=1e-3, weight_decay=0.1; schedule=warmup_cosine, warmup=0.05)` is accepted
wherever a submission is named. It becomes a submission folder with a module, its settings, and a
search space of one point. A dry run in a process of its own finds errors before a trial starts;
this process imports no framework.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import algorithmic_efficiency
from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.optimizers import arguments, settings
from algorithmic_efficiency.optimizers.settings import Settings
from algorithmic_efficiency.results import files

TEMPLATE = registry.HOME / 'submissions' / '_optimizer'
_LIBRARIES = ('torch', 'optax')  # in which most optimizers lie
_PARTS = ('*.py', '*.json')  # files of a folder that this module makes
_DRY_RUN_TIMEOUT_SEC = 300


@dataclass(frozen=True)
class OptimizerSubmission:
  """An optimizer as a submission, in a folder named by the optimizer and what it was given."""

  framework: str
  folder: Path

  @property
  def name(self) -> str:
    return self.folder.name

  @property
  def file(self) -> Path:
    return self.folder / registry.SUBMISSION_FILES[self.framework]

  def check_framework(self, framework: str) -> None:
    """Checks that the optimizer trains models of `framework`.

    Raises:
      UserError: it trains models of the other one.
    """
    if framework != self.framework:
      raise errors.UserError(
        f'{self.name} trains models in {self.framework}, not in {framework}; leave out '
        f'--framework {framework}.'
      )


def is_call(text: str) -> bool:
  """Returns True if `text` is the call of an optimizer and no name or path of a submission."""
  return arguments.is_call(text) and not os.path.exists(text)


def call(name: str, hyperparameters: Sequence[str], options: Sequence[str]) -> str:
  """Returns the text of a call of an optimizer.

  Args:
    name: its import name, or a call to which arguments are added.
    hyperparameters: texts such as 'lr=1e-3'.
    options: texts such as 'schedule=wsd'.

  Raises:
    UserError: the call is not closed.
  """
  name, bracket, inside = name.partition('(')
  if bracket and not inside.endswith(')'):
    raise errors.UserError(
      f'The call of an optimizer must be closed; {errors.shown(name + bracket + inside)} lacks its '
      'last bracket.'
    )
  own, more = _halves(inside.removesuffix(')'))
  own = ', '.join([own, *hyperparameters] if own else hyperparameters)
  more = ', '.join([more, *options] if more else options)
  return f'{name}({own}; {more})' if more else f'{name}({own})'


def split_submissions(text: str) -> list[str]:
  """Splits a list at its commas, but not within calls of optimizers."""
  return [part for part in arguments.split(text, ',') if part]


def parse(text: str) -> Settings:
  """Parses the call of an optimizer.

  Raises:
    UserError: the text is no call of an import name, or an option is invalid.
  """
  name, _, inside = text.partition('(')
  if not arguments.is_name(name):
    raise errors.UserError(
      'An optimizer is named as Python imports it, as in torch.optim.AdamW or optax.adamw; '
      f'{errors.shown(name)} is no such name.'
    )
  own, options = _halves(inside.removesuffix(')'))
  return Settings.of(name, _values(own, '--hparam'), _values(options, 'an option'))


def _halves(inside: str) -> tuple[str, str]:
  """Returns the text between the brackets before the semicolon, and the text after it."""
  parts = arguments.split(inside, ';')
  if len(parts) > 2:
    raise errors.UserError(
      f'Hyperparameters and options are parted by one semicolon; {inside!r} has {len(parts) - 1}.'
    )
  return parts[0], ''.join(parts[1:])


def _values(text: str, what: str) -> dict[str, object]:
  values: dict[str, object] = {}
  for part in filter(None, arguments.split(text, ',')):
    key, equals, value = (word.strip() for word in part.partition('='))
    if not equals or not key.isidentifier() or not value:
      raise errors.UserError(f'{what} must be NAME=VALUE; found {part!r}.')
    if key in values:
      raise errors.UserError(f'{key} is given twice; keep one.')
    values[key] = arguments.parse_value(value)
  return values


@functools.cache
def submission_for(text: str) -> OptimizerSubmission:
  """Returns the submission of an optimizer; makes its folder after a dry run if it is new.

  Raises:
    UserError: the optimizer cannot be imported, or the dry run failed.
  """
  wanted = parse(text)
  _check_installed(wanted.optimizer)
  parent = _home() / 'algoeff' / 'optimizers' / _key(wanted)
  folder = parent / wanted.label
  if folder.is_dir() and _is_pinned(wanted.optimizer):
    framework = next(
      name for name, file in registry.SUBMISSION_FILES.items() if (folder / file).is_file()
    )
    return OptimizerSubmission(framework, folder)
  framework = _dry_run(wanted)
  if not folder.is_dir():
    _write(wanted, framework, folder)
  return OptimizerSubmission(framework, folder)


def _check_installed(optimizer: str) -> None:
  root = optimizer.partition('.')[0]
  if root != '__main__' and importlib.util.find_spec(root) is not None:
    return
  near = difflib.get_close_matches(root, _LIBRARIES, n=1)
  hint = f' Did you mean {near[0]!r}?' if near and near[0] != root else ''
  raise arguments.absent_error(optimizer, root, hint)


def _home() -> Path:
  return Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser()


def _key(wanted: Settings) -> str:
  """Returns a key that changes whenever the folder or the result of the dry run may change."""
  roots = (wanted.optimizer.partition('.')[0], 'torch', 'jax', 'optax')
  template = [file.read_text(encoding='utf-8') for file in sorted(TEMPLATE.glob('*.py'))]
  facts = [_settings(wanted), sys.version, os.uname().nodename, algorithmic_efficiency.__version__]
  facts += [f'{root} {_version(root)}' for root in roots]
  return hashlib.sha256(json.dumps([*facts, *template]).encode()).hexdigest()[:16]


def _version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def _is_pinned(optimizer: str) -> bool:
  """Returns True if the optimizer is part of an installed package with a version."""
  return _version(optimizer.partition('.')[0]) is not None


def _settings(wanted: Settings) -> str:
  """Returns the content of the settings file, with a source hash if the optimizer may be edited.

  An edited optimizer is therefore another submission, as an edited folder is.
  """
  if _is_pinned(wanted.optimizer):
    return wanted.to_json()
  content = json.loads(wanted.to_json()) | {'source': _source_hash(wanted.optimizer)}
  return json.dumps(content, indent=2) + '\n'


def _source_hash(optimizer: str) -> str:
  """Returns a hash of the Python files of the module or package of an import name."""
  spec = importlib.util.find_spec(optimizer.partition('.')[0])
  folders = (spec.submodule_search_locations or []) if spec else []
  found = [file for folder in folders for file in sorted(Path(folder).rglob('*.py'))]
  if spec and spec.has_location and not found:
    found = [Path(str(spec.origin))]
  digest = hashlib.sha256()
  for file in found:
    digest.update(file.name.encode() + file.read_bytes())
  return digest.hexdigest()[:16]


def _dry_run(wanted: Settings) -> str:
  """Runs a dry run in a process of its own; returns the framework of the optimizer."""
  environment = {**os.environ, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
  environment['PYTHONPATH'] = os.pathsep.join(
    part for part in (str(registry.HOME), environment.get('PYTHONPATH', '')) if part
  )
  try:
    done = subprocess.run(
      [sys.executable, '-P', '-m', 'algorithmic_efficiency.optimizers.dry_run'],
      input=wanted.to_json(),
      capture_output=True,
      text=True,
      timeout=_DRY_RUN_TIMEOUT_SEC,
      env=environment,
    )
  except subprocess.TimeoutExpired:
    raise errors.UserError(
      f'{wanted.optimizer} did not finish its dry run within {_DRY_RUN_TIMEOUT_SEC} s.'
    ) from None
  if done.returncode != 0 or not done.stdout:  # an optimizer may end the process without an error
    last = (done.stderr.strip() or 'it printed nothing').splitlines()[-1]
    module = wanted.optimizer.partition('.')[0]
    raise errors.UserError(
      f'{wanted.optimizer} ended the process of its dry run, with exit code {done.returncode}: '
      f'{last}. Look at what its module does: python -c "import {module}"'
    )
  answer = json.loads(done.stdout)
  if 'error' in answer:
    raise errors.UserError(answer['error'])
  return answer['framework']


def _write(wanted: Settings, framework: str, folder: Path) -> None:
  """Makes the folder atomically."""
  scalars = {
    name: value
    for name, value in wanted.hyperparameters.items()
    if not isinstance(value, (list, dict))
  }
  module = registry.SUBMISSION_FILES[framework]
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as temporary:
      new = Path(temporary) / folder.name
      new.mkdir()
      shutil.copyfile(TEMPLATE / module, new / module)
      (new / settings.FILE).write_text(_settings(wanted), encoding='utf-8')
      space = json.dumps([scalars], indent=2)
      (new / 'tuning_search_space.json').write_text(f'{space}\n', encoding='utf-8')
      try:
        new.rename(folder)
      except OSError:
        if not folder.is_dir():  # else another process has made the same folder
          raise
  except OSError as error:
    raise files.storage_error(folder, error) from error


# The copy in the folder of a trial.


def keep(file: Path, trial_folder: Path) -> None:
  """Copies the folder of an optimizer into the folder of a trial, to be run again from there.

  Args:
    file: the submission module; without settings beside it, nothing is copied.
    trial_folder: folder of the trial.

  Raises:
    UserError: the copy cannot be written.
  """
  if not (file.parent / settings.FILE).is_file():
    return
  copy = trial_folder / file.parent.name
  try:
    copy.mkdir(exist_ok=True)
    for part in _parts(file.parent):
      shutil.copyfile(part, copy / part.name)
  except OSError as error:
    raise files.storage_error(copy, error) from error


def former_name(file: Path, runs: Path) -> str | None:
  """Returns the name that runs of an optimizer with these settings had before version 0.2.

  Args:
    file: the submission module.
    runs: the folder of the runs; None is returned if there are none of that name.
  """
  own = file.parent / settings.FILE
  name = Settings.read(own).optimizer if own.is_file() else file.parent.name
  if name == file.parent.name:
    return None
  begun = next((runs / name).glob(f'**/trial_*/{name}/{settings.FILE}'), None)
  if begun is None or begun.read_bytes() != own.read_bytes():
    return None
  errors.renamed(str(runs / name), str(runs / file.parent.name))
  return name


def check_resumable(file: Path, trial_folder: Path) -> None:
  """Checks that a trial resumes with the settings and source that it began with.

  Raises:
    UserError: the settings or the source have changed.
  """
  own = file.parent / settings.FILE
  begun = next(trial_folder.glob(f'*/{settings.FILE}'), None)
  if own.is_file() and begun is not None and begun.read_bytes() != own.read_bytes():
    raise errors.UserError(
      f'A trial must resume with the settings and source that it began with; {trial_folder} began '
      f'with another {file.parent.name} (see {begun}). Repeat the command that it began with, or '
      'start again with --overwrite.'
    )


def _parts(folder: Path) -> Iterable[Path]:
  return [path for pattern in _PARTS for path in sorted(folder.glob(pattern))]
