"""Finds workloads, submissions and suites by folder; imports a task's code only when it is used.

A root is a folder that holds `workloads/` and `submissions/`. The first root is the one this
package was installed into; `add_root` adds others, `add_task` a single task folder outside any.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import suite_file
from algorithmic_efficiency.benchmark.definition import Budget, WorkloadDefinition
from algorithmic_efficiency.benchmark.suites import SUITES, Ruleset, Suite

HOME = Path(__file__).resolve().parents[2]
OWN_PACKAGES = ('workloads', 'submissions', 'scoring')
RULESET_FOLDERS: Mapping[Ruleset, str] = {'external': 'external_tuning', 'self': 'self_tuning'}
SUBMISSION_FILES: Mapping[str, str] = {
  'jax': 'submission_jax.py',
  'pytorch': 'submission_pytorch.py',
}
MODEL_FILES: Mapping[str, str] = {'jax': 'model_jax', 'pytorch': 'model_torch'}


class _OwnPackages:
  """Resolves our top-level packages from our own folder, whatever the working directory holds."""

  @staticmethod
  def find_spec(name: str, path: object = None, target: object = None):
    if name in OWN_PACKAGES:
      return importlib.machinery.PathFinder.find_spec(name, [str(HOME)])
    return None


def pin_own_packages() -> None:
  """Makes `workloads`, `submissions` and `scoring` mean ours in this process. Idempotent."""
  if _OwnPackages not in sys.meta_path:
    sys.meta_path.insert(0, _OwnPackages)


@dataclass(frozen=True)
class Task:
  """A folder under `workloads/`, or one given by path: code and data of a family of workloads."""

  name: str
  folder: Path
  package: str  # the import name of the folder

  def module(self, name: str) -> ModuleType:
    """Imports one of the task's files, such as 'definition', 'data', 'model_jax' or 'parity'."""
    if self.package not in sys.modules and not self.package.startswith('workloads.'):
      _import_folder(self.package, self.folder)
    return importlib.import_module(f'{self.package}.{name}')

  def has(self, name: str) -> bool:
    return (self.folder / f'{name}.py').is_file()

  def supports(self, framework: str) -> bool:
    return self.has('data') and self.has(MODEL_FILES[framework])


@dataclass(frozen=True)
class SubmissionFolder:
  """A submission folder found under `submissions/<ruleset>/`."""

  name: str
  ruleset: Ruleset
  folder: Path

  def file(self, framework: str) -> Path | None:
    """The submission module for a framework: its own file, or `submission.py` for both."""
    for name in (SUBMISSION_FILES[framework], 'submission.py'):
      if (self.folder / name).is_file():
        return self.folder / name
    return None

  @property
  def frameworks(self) -> tuple[str, ...]:
    return tuple(name for name in SUBMISSION_FILES if self.file(name))

  @property
  def tuning_search_space(self) -> Path | None:
    path = self.folder / 'tuning_search_space.json'
    return path if path.is_file() else None


_roots: list[Path] = [HOME]
_single_tasks: list[Path] = []
_read_suites: dict[str, Suite] = {}  # those of files, by name


def add_root(folder: Path | str) -> None:
  """Adds a folder with `workloads/` and `submissions/` of its own (`--path`)."""
  root = Path(folder).expanduser().resolve()
  if not root.is_dir():
    raise errors.UserError(f'--path must name a folder; {root} is none.')
  if not any((root / name).is_dir() for name in ('workloads', 'submissions')):
    raise errors.UserError(
      f'--path must name a folder that holds workloads/ or submissions/; {root} holds neither.'
    )
  if root not in _roots:
    _roots.append(root)
    _forget()


def add_task(folder: Path | str) -> None:
  """Adds one task folder outside any root (`--workload_path`)."""
  path = Path(folder).expanduser().resolve()
  if not (path / 'definition.py').is_file():
    raise errors.UserError(
      f'--workload_path must name a task folder with a definition.py; {path} has none.'
    )
  if path not in _single_tasks:
    _single_tasks.append(path)
    _forget()


def roots() -> tuple[list[str], list[str]]:
  """The added roots and task folders, for a process that must find the same things."""
  return [str(root) for root in _roots[1:]], [str(path) for path in _single_tasks]


def _forget() -> None:
  tasks.cache_clear()
  workloads.cache_clear()
  submissions.cache_clear()


def _folders(parent: Path) -> Iterator[Path]:
  if parent.is_dir():
    for folder in sorted(parent.iterdir()):
      if folder.is_dir() and not folder.name.startswith(('_', '.')):
        yield folder


def _import_folder(package: str, folder: Path) -> None:
  """Imports a folder as a package under a name of our choosing."""
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


@functools.cache
def tasks() -> Mapping[str, Task]:
  """Every task folder found, by name; a later root may not reuse a name."""
  found: dict[str, Task] = {}
  pin_own_packages()
  candidates = [(folder, root) for root in _roots for folder in _folders(root / 'workloads')] + [
    (folder, None) for folder in _single_tasks
  ]
  for folder, root in candidates:
    if not (folder / 'definition.py').is_file():
      continue
    if folder.name in found:
      raise errors.UserError(
        f'Task names must be unique; {folder.name!r} is in {found[folder.name].folder} and in '
        f'{folder}.'
      )
    if root == HOME:
      package = f'workloads.{folder.name}'
    else:
      digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
      package = f'_algoeff_task_{digest}_{folder.name}'
    found[folder.name] = Task(folder.name, folder, package)
  return found


@functools.cache
def workloads() -> Mapping[str, WorkloadDefinition]:
  """Every definition of every task, base workloads and variants, by name."""
  found: dict[str, WorkloadDefinition] = {}
  for task in tasks().values():
    for name, definition in task.module('definition').WORKLOADS.items():
      if name in found:
        raise errors.UserError(
          f'Workload names must be unique; {name!r} is defined by {found[name].task!r} and '
          f'{task.name!r}.'
        )
      if definition.name != name or definition.task != task.name:
        raise errors.UserError(
          f'{task.folder}/definition.py: the entry {name!r} says name={definition.name!r}, '
          f'task={definition.task!r}; they must be {name!r} and {task.name!r}.'
        )
      for suite in definition.suites:
        if suite not in SUITES:
          raise errors.unknown('suite', suite, SUITES)
      found[name] = definition
  return found


def workload(name: str, suite_name: str | None = None) -> WorkloadDefinition:
  """A definition; with a suite, as that suite races it: with its target, sizes and budget alone.

  Raises:
    UserError: there is no such workload, or it has no budget in the suite.
  """
  try:
    definition = workloads()[name]
  except KeyError:
    raise errors.unknown('workload', name, workloads()) from None
  return definition if suite_name is None else _raced(definition, suite(suite_name))


def _raced(definition: WorkloadDefinition, suite: Suite) -> WorkloadDefinition:
  if suite.workloads:
    if definition.name not in suite.workloads:
      raise errors.unknown(f'workload of the suite {suite.name}', definition.name, suite.workloads)
    return suite.workloads[definition.name]
  if suite.name not in definition.suites:
    raise errors.UserError(
      f'{definition.name} has no budget in the suite {suite.name!r}; it has one in: '
      f'{", ".join(definition.suites) or "none"}.'
    )
  return dataclasses.replace(definition, suites={suite.name: definition.suites[suite.name]})


def task_of(definition: WorkloadDefinition) -> Task:
  return tasks()[definition.task]


def suites() -> Mapping[str, Suite]:
  """Every suite, by name: ours, then those of the files that were read."""
  return {**SUITES, **_read_suites}


def suite(name: str) -> Suite:
  """A suite by its name, or by its TOML file, which is read, and then known by its name too.

  Raises:
    UserError: there is no such suite, or something is wrong in the file.
  """
  if suite_file.is_file(name):
    found = suite_file.load(name, workloads())
    before = _read_suites.get(found.name)
    if before is not None and before.file != found.file:
      raise errors.UserError(
        f'{found.file}: the name of a suite must be its own; {found.name!r} is that of '
        f'{before.file}. Choose another.'
      )
    _read_suites[found.name] = found
    return found
  try:
    return suites()[name]
  except KeyError:
    error = errors.unknown('suite', name, suites())
    raise errors.UserError(f'{error} A suite of your own is named by its .toml file.') from None


def members(suite_name: str) -> Mapping[str, WorkloadDefinition]:
  """The base and held-out workloads of a suite as it races them, also those that cannot run yet."""
  found = suite(suite_name)
  candidates = found.workloads or {
    name: _raced(definition, found)
    for name, definition in workloads().items()
    if found.name in definition.suites
  }
  return {
    name: definition
    for name, definition in candidates.items()
    if definition.suites[found.name].role != 'extra'
  }


def budget(definition: WorkloadDefinition, suite_name: str) -> Budget:
  """What a trial of the workload may spend in a suite, before the factor of the ruleset."""
  found = suite(suite_name)
  return _raced(definition, found).suites[found.name]


def is_runnable(definition: WorkloadDefinition, framework: str | None = None) -> bool:
  """Whether the workload's code exists, for one framework or for any.

  A definition without a smoke record has figures only, even if its task has code for others.
  """
  if definition.smoke is None:
    return False
  frameworks = (framework,) if framework else tuple(MODEL_FILES)
  return any(task_of(definition).supports(name) for name in frameworks)


@functools.cache
def submissions() -> Mapping[tuple[Ruleset, str], SubmissionFolder]:
  """Every submission folder found, by ruleset and name."""
  found: dict[tuple[Ruleset, str], SubmissionFolder] = {}
  for root in _roots:
    for ruleset, parent in RULESET_FOLDERS.items():
      for folder in _folders(root / 'submissions' / parent):
        entry = SubmissionFolder(folder.name, ruleset, folder)
        if entry.frameworks:
          found.setdefault((ruleset, folder.name), entry)
  return found


def submission(name: str, ruleset: Ruleset) -> SubmissionFolder:
  try:
    return submissions()[ruleset, name]
  except KeyError:
    known = [entry for kind, entry in submissions() if kind == ruleset]
    raise errors.unknown(f'{ruleset}-tuning submission', name, known) from None
