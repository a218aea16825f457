"""Says in words why a submission failed, and which requirement was missing."""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Iterable
from pathlib import Path

_CUDA_SIGNS = (
  'not compiled with cuda',
  'no nvidia driver',
  'no cuda gpus are available',
  'no platforms that are instances of gpu',
)
_GROUP_SIGN = 'process group has not been initialized'

# Distributions whose name is not that of the package.
_DISTRIBUTIONS = {
  'absl': 'absl-py',
  'gin': 'gin-config',
  'haiku': 'dm-haiku',
  'sklearn': 'scikit-learn',
  'yaml': 'pyyaml',
}
_EXTRAS = {'jax': 'jax', 'flax': 'jax', 'optax': 'jax', 'torch': 'torch'}

_LONGEST_SUMMARY = 400  # characters


def missing_requirement(error: BaseException, file: Path, world_size: int = 1) -> str | None:
  """Says which requirement of a submission is missing; None if something else went wrong.

  Args:
    error: what was raised while the submission was imported or initialized, or in its first step.
    file: the submission module.
    world_size: processes of the trial.
  """
  if not _own_frames(error, file):
    return None
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
  if isinstance(error, (NotImplementedError, ValueError)) and _is_raised_by(error, file):
    return f'The submission refuses to run here, with {processes}: {one_line(error, file)}.'
  return None


def summary(error: BaseException) -> str:
  """An exception in one line: its class and all lines of its message, the first 400 characters."""
  text = ' '.join(f'{type(error).__name__}: {error}'.split()).rstrip('.: ')
  return text if len(text) <= _LONGEST_SUMMARY else f'{text[:_LONGEST_SUMMARY]} ...'


def one_line(error: BaseException, file: Path) -> str:
  """A one-line summary of an exception, with the innermost line of the submission that led to it.

  Characters that are not printable are escaped as in Python.
  """
  text = ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in summary(error))
  frames = _own_frames(error, file)
  return f'{text} ({frames[-1].filename}, line {frames[-1].lineno})' if frames else text


def last_own(frames: Iterable[traceback.FrameSummary], file: Path) -> tuple[str, int] | None:
  """File and line of the innermost of these frames that lies in the submission."""
  own = [frame for frame in frames if is_own(frame.filename, file)]
  return (own[-1].filename, own[-1].lineno or 0) if own else None


def _is_raised_by(error: BaseException, file: Path) -> bool:
  """Whether a `raise` statement of the submission raised it."""
  frame = traceback.extract_tb(error.__traceback__)[-1]
  return is_own(frame.filename, file) and (frame.line or '').startswith('raise ')


def _own_frames(error: BaseException, file: Path) -> list[traceback.FrameSummary]:
  frames = traceback.extract_tb(error.__traceback__)
  return [frame for frame in frames if is_own(frame.filename, file)]


def is_own(filename: str, file: Path) -> bool:
  """Whether a file belongs to the submission whose module is `file`."""
  path = Path(filename)
  return path.is_relative_to(file.resolve().parent) and 'site-packages' not in path.parts


def _missing_module(name: str, line: str, file: Path) -> str | None:
  top, _, below = name.partition('.')
  if below:
    if importlib.util.find_spec(top) is None:
      return None
    return f'The submission needs {name}, which the {top} found here does not have: {line}.'
  if top in _EXTRAS:
    install = f"pip install 'algorithmic-efficiency[{_EXTRAS[top]}]'"
  elif (requirements := file.with_name('requirements.txt')).is_file():
    install = f'pip install -r {requirements}'
  else:
    install = f'pip install {_DISTRIBUTIONS.get(top, top)}'
  return f'The submission needs {top}, which is not installed: {install}. {line}.'
