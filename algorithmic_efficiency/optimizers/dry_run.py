"""Runs the dry run of an optimizer: `python -m algorithmic_efficiency.optimizers.dry_run`.

It reads settings as JSON from standard input, and writes JSON to standard output: the framework of
the optimizer, or an error.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys

from algorithmic_efficiency import errors
from algorithmic_efficiency.optimizers import arguments, requirements
from algorithmic_efficiency.optimizers.settings import Settings

_DRY_RUNS = {'pytorch': 'torch_dry_run', 'jax': 'jax_dry_run'}
_GPU_WORDS = ('cuda', 'gpu', 'triton', 'nvidia')


def main() -> None:
  answers = os.dup(1)
  os.dup2(2, 1)  # keep what packages print at import out of the answer
  os.write(answers, json.dumps(answer(Settings.of(**json.load(sys.stdin)))).encode())


def answer(settings: Settings) -> dict[str, str]:
  """Runs the dry run in this process; returns the `framework` of the optimizer, or an `error`."""
  try:
    return {'framework': _dry_run(settings)}
  except errors.UserError as error:
    return {'error': str(error)}
  except SystemExit as error:
    text = f'{settings.optimizer} ended its dry run with sys.exit({error.code!r}).'
    return {'error': f'{text} Take that call out of its module, or name another optimizer.'}
  except Exception as error:  # an optimizer may raise any error, which is the answer
    return {'error': _message(settings.optimizer, error)}


def _dry_run(settings: Settings) -> str:
  optimizer = arguments.load(settings.optimizer)
  is_of_torch = arguments.has_torch_interface(optimizer)
  if not is_of_torch:
    _check_function(settings.optimizer, optimizer)
  needs = requirements.needs_of(optimizer)
  if needs.refused:
    raise errors.UserError(f'{settings.optimizer} cannot run here: {needs.refused}.')
  framework = 'pytorch' if is_of_torch else 'jax'
  module = importlib.import_module(f'algorithmic_efficiency.optimizers.{_DRY_RUNS[framework]}')
  module.run(settings)
  return framework


def _check_function(name: str, found: object) -> None:
  """Looks at what a name is before anything calls it.

  Raises:
    UserError: it is no function that may give an optimizer.
  """
  if inspect.isclass(found):
    raise requirements.not_an_optimizer_error(name, 'is a class without that interface')
  if not arguments.is_of_optax(found):
    raise requirements.not_an_optimizer_error(
      name, 'is a function that does not use optax, and was not called'
    )


def _message(name: str, error: Exception) -> str:
  if isinstance(error, ModuleNotFoundError):
    package = (error.name or '').partition('.')[0]
    return str(arguments.absent_error(name, package))
  text = f'{type(error).__name__}: {error}'.strip().splitlines()[0]
  if isinstance(error, SyntaxError):
    return f'{name} cannot be imported: {text}. Correct that file, or name another optimizer.'
  if any(word in text.lower() for word in _GPU_WORDS) and not _has_gpu():
    return f'{name} needs a GPU, and this machine has none ({text}).'
  return f'{name} cannot take a step: {text}'


def _has_gpu() -> bool:
  torch = sys.modules.get('torch')
  return torch is not None and torch.cuda.is_available()


if __name__ == '__main__':
  main()
