"""Chooses the parameters of a definition that are not trained, by name."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition


def chosen(
  definition: WorkloadDefinition, framework: str, names: Iterable[str], separator: str
) -> list[str]:
  """Returns the names that `frozen_params` of the definition names, directly or by a module.

  Args:
    names: every parameter of the model.
    separator: what stands between the names of modules, '/' in JAX and '.' in PyTorch.

  Raises:
    UserError: an entry of `frozen_params` matches no parameter, or all of them are named.
  """
  names = list(names)
  entries = definition.frozen_params.get(framework, ())
  for entry in entries:
    if not any(_lies_in(name, [entry], separator) for name in names):
      raise errors.UserError(
        f'Each entry of frozen_params must name a parameter or a module; in the {framework} model '
        f'of {definition.name} nothing is called {entry!r}. Its parameters: {", ".join(names)}.'
      )
  found = [name for name in names if _lies_in(name, entries, separator)]
  if entries and len(found) == len(names):
    raise errors.UserError(
      f'frozen_params must leave a parameter that is trained; in the {framework} model of '
      f'{definition.name} it names all of them.'
    )
  return found


def not_frozen_error(definition: WorkloadDefinition, name: str) -> errors.UserError:
  """Returns the error for the initial value of a parameter that is trained, or that is none."""
  return errors.UserError(
    f'Only frozen parameters can be made again by themselves; {name!r} is none of '
    f'{definition.name}. Choose one that frozen_params of the definition names.'
  )


def _lies_in(name: str, entries: Collection[str], separator: str) -> bool:
  return any(name == entry or name.startswith(entry + separator) for entry in entries)
