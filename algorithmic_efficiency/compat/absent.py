"""Stands for names of AlgoPerf that are not offered: they can be imported and not used."""

from __future__ import annotations

from typing import Any, NoReturn

from algorithmic_efficiency import errors


class Absent:
  """One such name. A submission may import it without using it."""

  def __init__(self, name: str, reason: str):
    self._message = f"AlgoPerf's {name} is not offered here: {reason}."

  def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
    """Refuses to be called, or to be a base class.

    Raises:
      UserError: always.
    """
    raise errors.UserError(self._message)


def named(module: str, name: str, reason: str) -> Absent:
  """Returns the stand-in of `module.name`, for the `__getattr__` of a module.

  Raises:
    AttributeError: the name is one of Python's own, which are asked for and not expected.
  """
  if name.startswith('__'):
    raise AttributeError(f'{module} has no attribute {name!r}.')
  return Absent(f'{module}.{name}', reason)
