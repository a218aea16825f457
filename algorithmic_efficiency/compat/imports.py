"""The two import roots of submissions written for AlgoPerf: `algoperf`, `algorithmic_efficiency`.

Under either root, `spec` and the modules of `MODULES` are the same module objects. Enums and
exceptions are therefore equal under both. Importing this module sets up nothing; `install` does it
for the process, and `uninstall` undoes it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType

ROOT = 'algoperf'
_OURS = 'algorithmic_efficiency'
# AlgoPerf's modules, by the modules of this project that stand for them.
MODULES: Mapping[str, str] = {
  **{
    name: f'compat.{name}'
    for name in (
      *('pytorch_utils', 'jax_sharding_utils', 'jax_utils', 'random_utils', 'halton'),
      *('interop_utils', 'data_utils', 'profiler', 'checkpoint_utils', 'logger_utils'),
    )
  },
  'init_utils': 'compat.pytorch_init_utils',
  'param_utils': 'backends.param_utils',
}
ALIASES: Mapping[str, str] = {
  f'{ROOT}.spec': f'{_OURS}.spec',
  **{
    f'{root}.{name}': f'{_OURS}.{module}'
    for root in (ROOT, _OURS)
    for name, module in MODULES.items()
  },
}

_displaced: dict[
  str, ModuleType
] = {}  # an installed package named algoperf, while ours stands for it


class _Finder(importlib.abc.MetaPathFinder):
  """Finds the root, which is an empty package, and the aliases in it."""

  def find_spec(
    self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
  ) -> importlib.machinery.ModuleSpec | None:
    if fullname == ROOT:
      return importlib.machinery.ModuleSpec(ROOT, _Root(), is_package=True)
    if fullname in ALIASES:
      return importlib.machinery.ModuleSpec(fullname, Alias(ALIASES[fullname]))
    return None


class _Root(importlib.abc.Loader):
  def exec_module(self, module: ModuleType) -> None:
    module.__doc__ = f'The names of {_OURS} that entries written for AlgoPerf import.'


class Alias(importlib.abc.Loader):
  """Gives a module that exists under a second name, and leaves it as it was."""

  def __init__(self, real_name: str):
    self._real_name = real_name
    self._real_spec: importlib.machinery.ModuleSpec | None = None

  def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
    module = importlib.import_module(self._real_name)
    self._real_spec = module.__spec__
    return module

  def exec_module(self, module: ModuleType) -> None:
    module.__spec__ = self._real_spec  # the import system has put the alias's here


_FINDER = _Finder()


def install() -> None:
  """Makes both roots importable in this process, even where AlgoPerf itself is. Idempotent."""
  if _FINDER in sys.meta_path:
    return
  for name in [name for name in sys.modules if name.partition('.')[0] == ROOT]:
    _displaced[name] = sys.modules.pop(name)
  sys.meta_path.insert(0, _FINDER)


def uninstall() -> None:
  """Undoes `install`. Modules that were imported meanwhile keep what they imported. Idempotent."""
  if _FINDER not in sys.meta_path:
    return
  sys.meta_path.remove(_FINDER)
  for name in (*ALIASES, ROOT):
    module = sys.modules.pop(name, None)
    parent, _, child = name.rpartition('.')
    if module is not None and parent == _OURS:
      delattr(sys.modules[parent], child)
  sys.modules.update(_displaced)
  _displaced.clear()


def why_not(name: str) -> str | None:
  """Says why a module below one of the roots is not offered; None for modules elsewhere."""
  root, _, below = name.partition('.')
  if root not in (ROOT, _OURS) or not below:
    return None
  offered = ', '.join(sorted(('spec', *MODULES)))
  return (
    f'{name} is not offered: a submission gets the workload, batches and its clock as arguments, '
    f'and reaches no other part of the harness. Offered under {ROOT} and {_OURS}: {offered}'
  )


@contextlib.contextmanager
def installed() -> Iterator[None]:
  """Both roots, for the length of a `with` block."""
  install()
  try:
    yield
  finally:
    uninstall()
