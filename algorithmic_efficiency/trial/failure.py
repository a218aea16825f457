"""Says in words why a submission failed, and which requirement was missing."""

from __future__ import annotations

import dis
import importlib.util
import traceback
from collections.abc import Iterable
from pathlib import Path

from algorithmic_efficiency import errors
from algorithmic_efficiency.compat import imports, packages

_CUDA_SIGNS = (
  'not compiled with cuda',
  'no nvidia driver',
  'no cuda gpus are available',
  'no platforms that are instances of gpu',
)
_GROUP_SIGN = 'process group has not been initialized'

_RAISE = dis.opmap['RAISE_VARARGS']  # what `raise` and a failed `assert` compile to

_LONGEST_SUMMARY = 400  # characters


class MissingRequirementError(errors.UserError):
  """A submission cannot run here.

  Attributes:
    file, line: the submission's own line that led to it.
  """

  def __init__(self, message: str, place: tuple[str, int] | None):
    super().__init__(message)
    self.file, self.line = place or ('', 0)


def missing_requirement(
  error: BaseException, file: Path, world_size: int = 1
) -> MissingRequirementError | None:
  """Names what is missing, if that is why a submission failed before its first step ended.

  An exception that the submission itself raises, by `raise`, `assert` or `sys.exit`, is a refusal.

  Args:
    error: raised while the submission was imported, initialized, or made its first step.
    file: the submission module.
    world_size: processes of the trial.
  """
  frames = _own_frames(error, file)
  if not frames:
    return None
  message = _message(error, file, world_size)
  return MissingRequirementError(message, last_own(frames, file)) if message else None


def _message(error: BaseException, file: Path, world_size: int) -> str | None:
  text = str(error).lower()
  if isinstance(error, ModuleNotFoundError) and error.name:
    return _missing_module(error.name, one_line(error, file), file)
  if any(sign in text for sign in _CUDA_SIGNS):
    return f'The submission needs a CUDA GPU, and there is none here: {one_line(error, file)}.'
  processes = '1 process' if world_size == 1 else f'{world_size} processes'
  if _GROUP_SIGN in text:
    return (
      f'The submission needs several processes, and the trial has {processes}: '
      f'{one_line(error, file)}. Give --num_devices.'
    )
  if _is_raised_by(error, file):
    return f'The submission refuses to run here, with {processes}: {one_line(error, file)}.'
  return None


def summary(error: BaseException) -> str:
  """An exception in one line: its class and all lines of its message, the first 400 characters."""
  text = ' '.join(f'{type(error).__name__}: {error}'.split()).rstrip('.: ')
  return text if len(text) <= _LONGEST_SUMMARY else f'{text[:_LONGEST_SUMMARY]} ...'


def one_line(error: BaseException, file: Path, task: Path | None = None) -> str:
  """An exception in one line, with the innermost line of the submission that led to it.

  Args:
    task: folder of the workload's code, whose innermost line is named, too.
  """
  frames = traceback.extract_tb(error.__traceback__)
  places = [last_own(frames, file), last_own(frames, task / 'definition.py') if task else None]
  named = ' and '.join(f'{name}, line {line}' for name, line in filter(None, places))
  text = errors.printable(summary(error))
  return f'{text} ({named})' if named else text


def last_own(frames: Iterable[traceback.FrameSummary], file: Path) -> tuple[str, int] | None:
  """File and line of the innermost of these frames that lies in the submission."""
  own = [frame for frame in frames if is_own(frame.filename, file)]
  return (own[-1].filename, own[-1].lineno or 0) if own else None


def _is_raised_by(error: BaseException, file: Path) -> bool:
  """Returns whether a statement of the submission's own raised it, not an operation that failed."""
  place = error.__traceback__
  assert place is not None
  while place.tb_next is not None:
    place = place.tb_next
  code = place.tb_frame.f_code
  raises = code.co_code[place.tb_lasti] == _RAISE
  return is_own(code.co_filename, file) and (raises or isinstance(error, SystemExit))


def _own_frames(error: BaseException, file: Path) -> list[traceback.FrameSummary]:
  frames = traceback.extract_tb(error.__traceback__)
  return [frame for frame in frames if is_own(frame.filename, file)]


def is_own(filename: str, file: Path) -> bool:
  """Whether a file belongs to the submission whose module is `file`."""
  path = Path(filename)
  return path.is_relative_to(file.resolve().parent) and 'site-packages' not in path.parts


def _missing_module(name: str, line: str, file: Path) -> str | None:
  top, _, below = name.partition('.')
  if (reason := imports.why_not(name)) is not None:
    return f'{reason}. {line}.'
  if below:
    if importlib.util.find_spec(top) is None:
      return None
    return f'The submission needs {name}, which the {top} found here does not have: {line}.'
  if not_installable := packages.why_not_installable(top):
    return f'The submission imports {top}, {not_installable}. Correct the import: {line}.'
  install = packages.install_command(top)
  requirements = file.with_name('requirements.txt')
  if top not in packages.EXTRAS and requirements.is_file():
    install = f'pip install -r {requirements}'
  return f'The submission needs {top}, which is not installed: {install}. {line}.'
