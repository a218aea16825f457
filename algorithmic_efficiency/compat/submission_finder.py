"""Imports the files of one submission under all names that it uses, and undoes it for the next.

The folder of a submission becomes a package with a unique name, so that relative imports work with
or without an `__init__.py`. Submissions also import their files by absolute names. Such a name may
assume that their folder, or one inside it, is on the search path, or that it is at its place in the
official checkout. The finder reads the sources to find these names. A name means a file of the
submission if the path of the file ends like the name. All names of a file give one module object.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType

from algorithmic_efficiency.compat import imports
from algorithmic_efficiency.compat.source import Source, parsed

# Our own package, which has the name of the folder of submissions in the official checkout.
_SUBMISSIONS = 'submissions'
# Names that begin so never mean a file of the submission.
_NEVER_OWN = sys.stdlib_module_names | {
  *('algoperf', 'algorithmic_efficiency', 'workloads', 'scoring'),
  *('jax', 'jaxlib', 'flax', 'optax', 'chex', 'torch', 'numpy', 'absl'),
}

_active: SubmissionFinder | None = None


def load(file: Path) -> SubmissionFinder:
  """Imports the module of a submission, in place of the submission that was loaded before.

  Raises:
    Exception: any error of the import, which is then undone.
  """
  global _active
  leave()
  imports.install()
  _active = entry = SubmissionFinder(file.resolve())
  try:
    entry.enter()
  except BaseException:
    leave()
    raise
  return entry


def leave() -> None:
  """Undoes all changes for the submission that was loaded last. Idempotent."""
  global _active
  if _active is not None:
    _active.exit()
    _active = None


def sources(file: Path) -> dict[Path, ast.Module]:
  """Returns the files of a submission that its module imports, and itself, without executing them.

  Raises:
    SyntaxError: one of them is not valid Python.
  """
  entry = SubmissionFinder(file.resolve())
  found: dict[Path, ast.Module] = {}
  queue = [file.resolve()]
  while queue:
    current = queue.pop()
    if current not in found:
      found[current] = parsed(current.read_bytes(), current)
      queue += entry.imported_by(current, found[current])
  return found


class SubmissionFinder(importlib.abc.MetaPathFinder):
  """Finds the modules of one submission from `enter` to `exit`.

  Attributes:
    root: folder of the submission.
    module: the submission module.
    uses: full names that its imported files use from other modules.
    restored: descriptions of what was restored in a framework for it.
  """

  module: ModuleType

  def __init__(self, file: Path):
    self.root = file.parent
    self.uses: set[str] = set()
    self.restored: list[str] = []
    digest = hashlib.sha256(str(file).encode()).hexdigest()[:8]
    self._package = f'_algoeff_submission_{digest}'
    self._main = f'{self._package}.{file.stem.replace(".", "_")}'
    self._file = file
    self._aliases: dict[str, Path | None] = {}  # None: only a parent of other names
    self._stand_ins: set[str] = set()
    self._displaced: dict[str, ModuleType] = {}
    self._search_path: list[str] = []
    self._undo = contextlib.ExitStack()

  def enter(self) -> None:
    self._search_path = list(sys.path)
    sys.meta_path.insert(0, self)
    self.module = importlib.import_module(self._main)

  def exit(self) -> None:
    sys.meta_path.remove(self)
    self._undo.close()
    added = set(sys.path) - set(self._search_path)
    found_there = {name for name in list(sys.modules) if _search_folder(name) in added}
    sys.path[:] = self._search_path
    ours = {name for name, place in self._aliases.items() if place is not None} | self._stand_ins
    for name in list(sys.modules):
      if self._is_own(name) or name in ours or name.partition('.')[0] in found_there:
        _forget(name)
    for name, module in self._displaced.items():
      _remember(name, module)

  def _is_own(self, name: str) -> bool:
    return name.partition('.')[0] == self._package

  # Names that are imported.

  def find_spec(
    self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
  ) -> ModuleSpec | None:
    if fullname == self._main:
      return self._spec(fullname, self._file)
    if self._is_own(fullname):
      place = _module(self.root, fullname.split('.')[1:], or_folder=True)
      return None if place is None else self._spec(fullname, place)
    if fullname not in self._aliases:
      return self._spec_below_alias(fullname)
    place = self._aliases[fullname]
    if place is not None:
      return ModuleSpec(fullname, imports.Alias(self._name_of(place)))
    found = self._spec_of_others(fullname, path)
    if found is None:
      self._stand_ins.add(fullname)
    return found or _package(fullname, ())

  def _name_of(self, place: Path) -> str:
    """Returns the unique name under which a file or folder of the submission is imported."""
    if place == self._file:
      return self._main
    *folders, last = (self._package, *place.relative_to(self.root).parts)
    return '.'.join((*folders, last.removesuffix('.py')))

  def _spec(self, name: str, place: Path) -> ModuleSpec | None:
    """Returns the spec of a file, or of a folder with or without an `__init__.py`."""
    init = place / '__init__.py'
    if init.is_file():
      return importlib.util.spec_from_file_location(
        name, init, loader=_Loader(self, name, init), submodule_search_locations=[str(place)]
      )
    if place.is_dir():
      return _package(name, (place,))
    return importlib.util.spec_from_file_location(name, place, loader=_Loader(self, name, place))

  def _spec_below_alias(self, fullname: str) -> ModuleSpec | None:
    """Returns the spec of a module that no source names, in a folder that has an alias."""
    parent, _, child = fullname.rpartition('.')
    folder = self._aliases.get(parent)
    if folder is None or _module(folder, [child]) is None:
      return None
    return ModuleSpec(fullname, imports.Alias(f'{self._name_of(folder)}.{child}'))

  def _spec_of_others(self, fullname: str, path: Sequence[str] | None) -> ModuleSpec | None:
    others = (finder for finder in sys.meta_path if finder is not self)
    found = (finder.find_spec(fullname, path) for finder in others)
    return next((spec for spec in found if spec is not None), None)

  # Names that are read in sources.

  def imported_by(self, file: Path, tree: ast.Module) -> list[Path]:
    """Returns the files of the submission that one of its files may import."""
    places = []
    for name in Source.of(tree).imports:
      parts = name.split('.')
      if (found := self._resolve(parts, file)) is not None:
        base, start = found
        places += [_module(base, parts[start:end]) for end in range(start + 1, len(parts) + 1)]
    for node in ast.walk(tree):
      if isinstance(node, ast.ImportFrom) and node.level:
        base = file.parents[node.level - 1]
        below = node.module.split('.') if node.module else []
        places.append(_module(base, below))
        places += [_module(base, [*below, alias.name]) for alias in node.names]
    files = [place / '__init__.py' if place.is_dir() else place for place in filter(None, places)]
    return [path for path in files if path.is_file() and path.is_relative_to(self.root)]

  def learn(self, file: Path, source: Source) -> None:
    """Prepares for the imports and uses of a file that is about to be executed."""
    for name in sorted(source.imports):
      self._learn_name(name.split('.'), file)
    new = source.uses - self.uses
    self.uses |= new
    if any(name.startswith('jax.') for name in new):
      from algorithmic_efficiency.compat import jax_names

      self.restored += self._undo.enter_context(jax_names.restored(new))

  def _learn_name(self, parts: list[str], importer: Path) -> None:
    found = self._resolve(parts, importer)
    if found is None:
      return
    base, start = found
    for end in range(1, len(parts) + 1):
      name, place = '.'.join(parts[:end]), None
      if end > start or parts[end - 1] == self.root.name:
        place = _module(base, parts[start:end], or_folder=True)
      if self._aliases.get(name) is None:
        self._aliases[name] = place
      if place is not None and name in sys.modules and not self._is_own(sys.modules[name].__name__):
        self._displaced[name] = _forget(name)

  def _resolve(self, parts: list[str], importer: Path) -> tuple[Path, int] | None:
    """Resolves an absolute name to a file of the submission.

    It tries these folders in order:

    1. The folder of the importing file, and its parents.
    2. The folder of the submission, after the part of the name that is the folder's.
    3. Any folder of the submission, unless another module has the name. As few leading parts of the
       name as possible are left out.

    Returns:
      The folder and the number of leading parts to leave out; None if the name means no file.
    """
    if parts[0] in _NEVER_OWN:
      return None
    for base in importer.parents:
      if _module(base, parts) is not None:
        return base, 0
      if base == self.root:
        break
    for start, part in enumerate(parts, 1):
      if part == self.root.name and _module(self.root, parts[start:]) is not None:
        return self.root, start
    if parts[0] != _SUBMISSIONS and _is_importable(parts[0]):
      return None
    folders = self._folders()
    for start in range(len(parts)):
      for base in folders:
        if _module(base, parts[start:]) is not None:
          return base, start
    return None

  def _folders(self) -> list[Path]:
    """Returns the folder of the submission and its folders with code, outer ones first."""
    inner = {file.parent for file in self.root.rglob('*.py')}
    seen = {
      folder
      for folder in inner
      if not any(part.startswith('.') for part in folder.relative_to(self.root).parts)
    }
    return sorted({self.root, *seen}, key=lambda folder: (len(folder.parts), folder))


class _Loader(importlib.machinery.SourceFileLoader):
  """Reads a file of a submission before executing it; writes no compiled file."""

  def __init__(self, entry: SubmissionFinder, name: str, file: Path):
    super().__init__(name, str(file))
    self._entry = entry

  def get_code(self, fullname: str) -> CodeType:
    tree = parsed(self.get_data(self.path), self.path)
    self._entry.learn(Path(self.path), Source.of(tree))
    return compile(tree, self.path, 'exec', dont_inherit=True)


def _module(base: Path, parts: Sequence[str], *, or_folder: bool = False) -> Path | None:
  """Returns the file or package folder of a dotted name, relative to a folder; else None.

  Without `or_folder`, a folder counts only if it has an `__init__.py` or the name is empty, because
  other folders may hold no code.
  """
  place = base.joinpath(*parts)
  if not parts or (place / '__init__.py').is_file():
    return place
  file = place.with_name(f'{place.name}.py')
  if file.is_file():
    return file
  return place if or_folder and place.is_dir() else None


def _package(name: str, folders: Sequence[Path]) -> ModuleSpec:
  spec = ModuleSpec(name, None, is_package=True)
  spec.submodule_search_locations = [str(folder) for folder in folders]
  return spec


def _is_importable(top: str) -> bool:
  try:
    return importlib.util.find_spec(top) is not None
  except ValueError:  # a module without a spec
    return True


def _search_folder(name: str) -> str | None:
  """Returns the folder in which a top-level module was found."""
  spec = getattr(sys.modules[name], '__spec__', None)
  if '.' in name or spec is None:
    return None
  places = spec.submodule_search_locations or [spec.origin]
  return next((str(Path(place).parent) for place in places if place), None)


def _forget(name: str) -> ModuleType:
  """Removes a module from `sys.modules` and from its package."""
  module = sys.modules.pop(name)
  parent, _, child = name.rpartition('.')
  if getattr(sys.modules.get(parent), child, None) is module:
    delattr(sys.modules[parent], child)
  return module


def _remember(name: str, module: ModuleType) -> None:
  sys.modules[name] = module
  parent, _, child = name.rpartition('.')
  if parent in sys.modules:
    setattr(sys.modules[parent], child, module)
