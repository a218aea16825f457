"""The former name of `training` and `optimizers`, for submissions that still import it.

Every module below this name is the module of the new name itself. It goes with version 0.3.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType

from algorithmic_efficiency.compat.imports import Alias

FORMER: Mapping[str, str] = {
  **{name: f'training.{name}' for name in ('jax', 'torch', 'options', 'batch_size')},
  **{name: f'optimizers.{name}' for name in ('settings', 'arguments')},
  'optimizers': 'optimizers.requirements',
  'jax_optimizers': 'optimizers.jax',
  'torch_optimizers': 'optimizers.torch',
}


class _Finder(importlib.abc.MetaPathFinder):
  def find_spec(
    self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
  ) -> importlib.machinery.ModuleSpec | None:
    package, _, name = fullname.rpartition('.')
    if package != __name__ or name not in FORMER:
      return None
    new_name = f'algorithmic_efficiency.{FORMER[name]}'
    warnings.warn(f'{fullname} is now {new_name}.', DeprecationWarning, stacklevel=2)
    return importlib.machinery.ModuleSpec(fullname, Alias(new_name))


sys.meta_path.insert(0, _Finder())
