"""A task folder: which of its files has the code of a definition, and whether it can be used.

A file that is named after the record of a definition comes before the one that the task shares. A
definition whose `model` is a `ConvNet` has its models in `conv_net_jax.py` and `conv_net_torch.py`,
if they exist, else in `model_jax.py` and `model_torch.py`.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.machinery
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition


@dataclass(frozen=True, kw_only=True)
class _Kind:
  """A kind of code that a definition has.

  Attributes:
    record: field of the definition after whose record a file may be named.
    ending: what follows the name of the record in the name of such a file.
    shared: module of all records without a file of their own.
    exports: names of which the file must export one.
    required: names all of which it must export.
    former: what the first version of the contract had in their place.
    remedy: what the file must have, in words.
  """

  record: str
  ending: str
  shared: str
  exports: tuple[str, ...] = ()
  required: tuple[str, ...] = ()
  former: tuple[str, ...] = ()
  remedy: str = ''


_MODEL: Any = {
  'exports': ('eval_step',),
  'required': ('build', 'forward', 'loss'),
  'former': ('eval_sums', 'predict'),
  'remedy': 'eval_step(definition, batch, logits), which returns sums and outputs',
}
_KINDS: Mapping[str, _Kind] = {
  'data': _Kind(
    record='data',
    ending='data',
    shared='data',
    exports=('loader', 'source'),
    required=('fake_batch',),
    former=('train_stream', 'eval_stream'),
    remedy='loader(definition, root, split), or source(definition, root, split) with '
    'transform(definition, train)',
  ),
  'jax': _Kind(record='model', ending='jax', shared='model_jax', **_MODEL),
  'pytorch': _Kind(record='model', ending='torch', shared='model_torch', **_MODEL),
  'parity': _Kind(
    record='model', ending='parity', shared='parity', required=('to_torch', 'to_jax')
  ),
  'metrics': _Kind(record='model', ending='metrics', shared='metrics', required=('metrics',)),
}
KINDS = tuple(_KINDS)
PREPARATION = ('about', 'prepare')  # exports of data.py, which bundled data need not have


@dataclass(frozen=True)
class Task:
  """A task folder, under `workloads/` or given by path, with the code of a family of workloads.

  Attributes:
    name: name of the folder.
    folder: its path.
    package: its import name.
  """

  name: str
  folder: Path
  package: str

  def module(self, name: str) -> ModuleType:
    """Imports a file of the task, such as 'definition'; `code` imports that of a definition.

    Raises:
      UserError: it cannot be imported.
    """
    try:
      if self.package not in sys.modules and not self.package.startswith('workloads.'):
        _import_folder(self.package, self.folder)
      return importlib.import_module(f'{self.package}.{name}')
    except (errors.UserError, MemoryError):
      raise
    except Exception as error:  # code of the task
      raise errors.UserError(
        f'The task {self.name!r}: {name}.py cannot be imported: {type(error).__name__}: {error} '
        f'({_place(error, self.folder)}).'
      ) from error

  def definitions(self) -> Mapping[str, WorkloadDefinition]:
    """Imports the definitions of the task, by name.

    Raises:
      UserError: it has none.
    """
    found = getattr(self.module('definition'), 'WORKLOADS', None)
    where = f'{self.folder}/definition.py: WORKLOADS'
    if not isinstance(found, Mapping):
      raise errors.UserError(f'{where} must hold definitions by name; it is {errors.shown(found)}.')
    for name, definition in found.items():
      if not isinstance(definition, WorkloadDefinition):
        raise errors.UserError(
          f'{where}[{name!r}] must be a WorkloadDefinition; it is {errors.shown(definition)}.'
        )
    return found

  def has(self, name: str) -> bool:
    return (self.folder / f'{name}.py').is_file()

  def code(self, definition: WorkloadDefinition, kind: str) -> ModuleType:
    """Imports the code of a definition of a kind: one of `KINDS`.

    Raises:
      UserError: no file has it, or it cannot be used as it is.
    """
    name = self.code_file(definition, kind)
    if name is None:
      raise errors.UserError(self._missing(definition, kind))
    problem = self._problem_of(name, definition, kind)
    if problem:
      raise errors.UserError(problem)
    return self.module(name)

  def code_file(self, definition: WorkloadDefinition, kind: str) -> str | None:
    """Returns the module that has the code of a definition, not imported; None if none has.

    Raises:
      UserError: two files have it, of which one must be a leftover.
    """
    own, shared = _candidates(definition, kind)
    if not self.has(own):
      return shared if self.has(shared) else None
    if own != shared and self.has(shared) and not self._is_used(shared, kind):
      raise errors.UserError(
        f'{definition.name} must have one file for {kind}; the task {self.name!r} has {own}.py and '
        f'{shared}.py, which no other of its definitions uses. Remove one of them.'
      )
    return own

  def problem(self, definition: WorkloadDefinition, kind: str) -> str:
    """Says why the code of a definition cannot be used, without importing it; '' if it can."""
    try:
      name = self.code_file(definition, kind)
    except errors.UserError as error:
      return str(error)
    if name is None:
      return self._missing(definition, kind)
    return self._problem_of(name, definition, kind)

  def _is_used(self, shared: str, kind: str) -> bool:
    """Returns True if a definition of the task has no file of its own, and so uses `shared`."""
    return any(
      not self.has(_candidates(one, kind)[0])
      for one in self.definitions().values()
      if one.smoke is not None
    )

  def _missing(self, definition: WorkloadDefinition, kind: str) -> str:
    own, shared = _candidates(definition, kind)
    names = f'neither {own}.py nor {shared}.py' if own != shared else f'no {own}.py'
    return (
      f'{definition.name} has no code for {kind}: the task {self.name!r} has {names} in '
      f'{self.folder}.'
    )

  def _problem_of(self, name: str, definition: WorkloadDefinition, kind: str) -> str:
    problem = self._export_problem(name, _KINDS[kind])
    exported = _exported(self.folder / f'{name}.py')
    if problem or exported is None:
      return problem
    required = list(_KINDS[kind].required)
    remedy = ''
    if kind == 'data' and 'source' in exported:
      required.append('transform')
    if kind == 'data' and not definition.bundled:
      required += PREPARATION
      remedy = f', or set bundled=True if {definition.name} needs no preparation'
    missing = [one for one in required if one not in exported]
    if not missing:
      return ''
    return (
      f'The task {self.name!r}: {name}.py must export {", ".join(required)}; it lacks '
      f'{", ".join(missing)}. Add what is missing{remedy}.'
    )

  def _export_problem(self, name: str, kind: _Kind) -> str:
    exported = _exported(self.folder / f'{name}.py')
    if exported is None or not kind.exports or exported & set(kind.exports):
      return ''
    former = [one for one in kind.former if one in exported]
    found = (
      f'has {" and ".join(former)}, of the first version of the contract'
      if former
      else ('has neither' if len(kind.exports) > 1 else 'has none')
    )
    return (
      f'The task {self.name!r}: {name}.py must export {kind.remedy}; it {found}. Change '
      f'{self.folder / name}.py as CONTRIBUTING.md says.'
    )


def _candidates(definition: WorkloadDefinition, kind: str) -> tuple[str, str]:
  """Returns the modules in which the code of a definition may be, the first choice first."""
  facts = _KINDS[kind]
  record = getattr(definition, facts.record)
  if record is None:
    return facts.shared, facts.shared
  return f'{_snake_case(type(record).__name__)}_{facts.ending}', facts.shared


def _snake_case(name: str) -> str:
  return re.sub(r'(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])', '_', name).lower()


@functools.cache
def _exported(file: Path) -> frozenset[str] | None:
  """Returns the names that the top level of a file binds, not run; None if that cannot be told."""
  try:
    body = ast.parse(file.read_bytes()).body
  except (SyntaxError, ValueError):  # its import will say
    return None
  names = frozenset(_bound(body))
  return None if '*' in names else names


def _bound(body: Iterable[ast.AST]) -> Iterator[str]:
  """Yields the names that statements bind; '*' for an import of all names."""
  for node in body:
    match node:
      case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
        yield name
      case ast.Assign(targets=targets):
        yield from (target.id for target in targets if isinstance(target, ast.Name))
      case ast.AnnAssign(target=ast.Name(id=name)):
        yield name
      case ast.ImportFrom(names=imported) | ast.Import(names=imported):
        yield from (one.asname or one.name for one in imported)
      case ast.If() | ast.Try() | ast.With() | ast.ExceptHandler():
        yield from _bound(ast.iter_child_nodes(node))


def forget_files() -> None:
  """Forgets what was read of files, which may have changed."""
  _exported.cache_clear()


def _place(error: Exception, folder: Path) -> str:
  """The innermost line of the folder that led to an error, such as `model_jax.py, line 3`."""
  if isinstance(error, SyntaxError) and error.filename:
    return f'{error.filename}, line {error.lineno}'
  frames = traceback.extract_tb(error.__traceback__)
  own = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)]
  return f'{own[-1].filename}, line {own[-1].lineno}' if own else str(folder)


def _import_folder(package: str, folder: Path) -> None:
  """Imports `folder` as the package `package`."""
  init = folder / '__init__.py'
  locations = [str(folder)]
  if init.is_file():
    spec = importlib.util.spec_from_file_location(
      package, init, submodule_search_locations=locations
    )
    assert spec is not None and spec.loader is not None
  else:
    spec = importlib.machinery.ModuleSpec(package, None, is_package=True)
    spec.submodule_search_locations = locations
  module = importlib.util.module_from_spec(spec)
  sys.modules[package] = module
  if spec.loader is not None:
    spec.loader.exec_module(module)
