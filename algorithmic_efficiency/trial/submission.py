"""Loads a submission module, checks it, and calls its functions the way AlgoPerf calls them."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from algorithmic_efficiency import errors, spec, trust
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.suites import Ruleset
from algorithmic_efficiency.compat import frameworks, submission_finder
from algorithmic_efficiency.optimizers import by_name, settings
from algorithmic_efficiency.trial import failure

REQUIRED = ('get_batch_size', 'init_optimizer_state', 'update_params', 'data_selection')


def locate(name_or_path: str, ruleset: Ruleset, framework: str) -> tuple[str, Path]:
  """Finds a submission by name, folder or file, or an optimizer by its call.

  Returns:
    Its name and its module file.

  Raises:
    UserError: there is none, or it is not written for this framework.
  """
  if by_name.is_call(name_or_path):
    optimizer = by_name.submission_for(name_or_path)
    optimizer.check_framework(framework)
    return optimizer.name, optimizer.file
  path = Path(name_or_path).expanduser()
  if path.suffix == '.py' or os.path.exists(path) or '/' in name_or_path:
    name, file = _locate_path(path, framework)
  else:
    name, file = name_or_path, _named(name_or_path, ruleset, framework)
  written_for = frameworks.written_for(file)
  if framework not in written_for:
    [other] = written_for
    raise errors.UserError(
      f'The submission {name!r} is written for {other}, by what {file} imports; {framework} was '
      f'asked for. Use --framework {other}.'
    )
  return name, file


def frameworks_of(
  name_or_path: str, ruleset: Ruleset, among: Sequence[str]
) -> dict[str, tuple[str, Path]]:
  """Locates a submission for each of these frameworks that it is written for.

  Raises:
    UserError: there is no such submission, or it is written for none of them.
  """
  found: dict[str, tuple[str, Path]] = {}
  mistake: errors.UserError | None = None
  for framework in among:
    try:
      found[framework] = locate(name_or_path, ruleset, framework)
    except errors.UserError as error:
      mistake = error
  if not found and mistake is not None:
    raise mistake
  return found


def _named(name: str, ruleset: Ruleset, framework: str) -> Path:
  entry = registry.submission(name, ruleset)
  file = entry.file(framework)
  if file is None:
    raise errors.UserError(
      f'The submission {name!r} has no {framework} version; it has: {", ".join(entry.frameworks)}.'
    )
  return file


def _locate_path(path: Path, framework: str) -> tuple[str, Path]:
  if os.path.isdir(path):
    entry = registry.SubmissionFolder(_given(path).name, 'external', path.resolve())
    file = entry.file(framework)
    if file is None:
      names = f'{registry.SUBMISSION_FILES[framework]} or submission.py'
      raise errors.UserError(f'A submission folder must hold {names}; {path} holds neither.')
    return entry.name, file
  if not os.path.exists(path):
    raise errors.UserError(f'The submission file {path} does not exist.')
  if path.suffix != '.py' or not os.path.isfile(path):
    raise errors.UserError(
      'A submission is a Python file, a folder that holds submission.py or '
      f'submission_{framework}.py, or a name of `algoeff list submissions`; {path} is none.'
    )
  generic = path.stem.startswith('submission')
  return (_given(path).parent.name if generic else path.stem), path.resolve()


def _given(path: Path) -> Path:
  """The absolute path under the name that was given: a link is called as the user calls it."""
  return Path(os.path.abspath(path))


def source_hash(file: Path) -> str:
  """A hash of a submission's files: 16 hexadecimal digits.

  It covers every Python file beside and below the module, and the settings of an optimizer. The
  folder of a module that is not called `submission` may hold others: there it covers the files that
  the module imports.
  """
  file = file.resolve()
  digest = hashlib.sha256()
  if file.stem.startswith('submission'):
    paths = sorted([*file.parent.rglob('*.py'), *file.parent.glob(settings.FILE)])
  else:
    paths = _imported(file)
  for path in paths:
    digest.update(path.relative_to(file.parent).as_posix().encode())
    digest.update(path.read_bytes())
  return digest.hexdigest()[:16]


def _imported(file: Path) -> list[Path]:
  """A module and the files beside it that it imports; itself alone if it is not valid Python."""
  try:
    return sorted(submission_finder.sources(file), key=lambda path: (path != file, path))
  except SyntaxError:
    return [file]


def load(file: Path, framework: str) -> Submission:
  """Imports a submission module with the import roots of AlgoPerf at hand.

  Whatever was done for the submission loaded before is undone: its modules are forgotten, and the
  names that a framework got for it are taken away.

  Raises:
    MissingRequirementError: it needs what this machine does not have, or refuses to run here.
    UserError: it does not compile, does not import, or lacks a required function.
  """
  try:
    with trust.submission():
      loaded = submission_finder.load(file)
  except SyntaxError as error:
    where = f'{error.filename}, line {error.lineno}'
    raise errors.UserError(f'The submission is not valid Python: {error.msg} ({where}).') from None
  except (Exception, SystemExit) as error:
    lack = failure.missing_requirement(error, file)
    if lack is not None:
      raise lack from None
    line = failure.one_line(error, file)
    raise errors.UserError(
      f'The submission {file} could not be imported for {framework}: {line}.'
    ) from error
  return Submission.of(loaded.module, file, frozenset(loaded.uses), tuple(loaded.restored))


def leave() -> None:
  """Undoes what was done for the submission that was loaded last."""
  submission_finder.leave()


@dataclass(frozen=True)
class Submission:
  """The functions of a submission module.

  Attributes:
    uses: full names that its sources take from other modules, such as 'jax.pmap'.
    restored: names that the framework no longer has and got for it, in words.
  """

  file: Path
  get_batch_size: Callable[..., Any]
  init_optimizer_state: Callable[..., Any]
  update_params: Callable[..., Any]
  data_selection: Callable[..., Any]
  prepare_for_eval: Callable[..., Any] | None
  get_eval_batch_size: Callable[..., Any] | None
  wants_train_state: bool
  uses: frozenset[str] = frozenset()
  restored: tuple[str, ...] = ()

  @classmethod
  def of(
    cls,
    module: ModuleType,
    file: Path,
    uses: frozenset[str] = frozenset(),
    restored: tuple[str, ...] = (),
  ) -> Submission:
    missing = [name for name in REQUIRED if not callable(getattr(module, name, None))]
    if missing:
      raise errors.UserError(
        f'A submission must define {", ".join(REQUIRED)}; {file} lacks {", ".join(missing)}.'
      )
    parameters = inspect.signature(module.update_params).parameters
    return cls(
      file=file,
      **{name: getattr(module, name) for name in REQUIRED},
      prepare_for_eval=getattr(module, 'prepare_for_eval', None),
      get_eval_batch_size=getattr(module, 'get_eval_batch_size', None),
      wants_train_state='train_state' in parameters,
      uses=uses,
      restored=restored,
    )

  def batch_size(self, names: tuple[str, ...], default: int, num_devices: int) -> tuple[int, str]:
    """The global training batch size, and the name under which the submission knows it.

    The submission is asked for each name in turn. If it knows none of them, the size is `default`
    and the name ''.

    Raises:
      UserError: the size is no positive integer, or not divisible by the devices.
    """
    for name in names:
      try:
        size = self.get_batch_size(name)
      except (ValueError, KeyError):
        continue
      return self._checked_size('get_batch_size', size, num_devices), name
    return self._checked_size('the default', default, num_devices), ''

  def eval_batch_size(self, names: tuple[str, ...], default: int, num_devices: int) -> int:
    """The global evaluation batch size.

    It is the submission's own for the first name that it knows, else `default`, rounded up to a
    multiple of the devices.

    Raises:
      UserError: the size is no positive integer, or not divisible by the devices.
    """
    for name in names:
      if self.get_eval_batch_size is None:
        break
      try:
        size = self.get_eval_batch_size(name)
      except (ValueError, KeyError):
        continue
      return self._checked_size('get_eval_batch_size', size, num_devices)
    return -(-default // num_devices) * num_devices

  def _checked_size(self, what: str, size: Any, num_devices: int) -> int:
    try:
      whole = int(size) == size and not isinstance(size, bool)
    except (TypeError, ValueError):
      whole = False
    if not whole or size <= 0:
      raise errors.UserError(
        f'The global batch size must be a positive integer; {what} of {self.file} gave {size!r}.'
      )
    if size % num_devices:
      raise errors.UserError(
        f'The global batch size must be divisible by the number of devices; {what} of {self.file} '
        f'gave {int(size)} and there are {num_devices} devices.'
      )
    return int(size)

  def unpack_update(self, function: str, result: Any) -> spec.UpdateReturn:
    """Checks what `update_params` or `prepare_for_eval` returned.

    Raises:
      UserError: it is not (optimizer_state, params, model_state).
    """
    if not isinstance(result, (tuple, list)) or len(result) != 3:
      found = (
        f'{len(result)} values' if isinstance(result, (tuple, list)) else type(result).__name__
      )
      raise errors.UserError(
        f'{function} must return (optimizer_state, params, model_state); that of {self.file} '
        f'returned {found}.'
      )
    return result[0], result[1], result[2]


def copied_results(results: list[tuple[int, Mapping[str, float]]]) -> list[tuple[int, Any]]:
  """Copies past evaluations for a submission, which may change its copy as it likes."""
  return [(step, dict(values)) for step, values in results]
