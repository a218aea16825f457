"""Finds workloads, submissions and suites by folder; imports a task's code only when it is used.

A root is a folder that holds `workloads/` and `submissions/`. The first root is the folder that
contains this package. `add_root` adds another root, `add_task` a single task folder.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.machinery
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import suite_file
from algorithmic_efficiency.benchmark.definition import Budget, WorkloadDefinition
from algorithmic_efficiency.benchmark.suites import SUITES, Ruleset, Suite
from algorithmic_efficiency.benchmark.task_folder import Task, forget_files
from algorithmic_efficiency.option_fields import check_folder

HOME = Path(__file__).resolve().parents[2]
OWN_PACKAGES = ('workloads', 'submissions', 'scoring')
RULESET_FOLDERS: Mapping[Ruleset, str] = {'external': 'external_tuning', 'self': 'self_tuning'}
SUBMISSION_FILES: Mapping[str, str] = {
  'jax': 'submission_jax.py',
  'pytorch': 'submission_pytorch.py',
}


class _OwnPackages:
  """Import finder that resolves our top-level packages from our folder, never from elsewhere."""

  @staticmethod
  def find_spec(name: str, path: object = None, target: object = None):
    if name in OWN_PACKAGES:
      return importlib.machinery.PathFinder.find_spec(name, [str(HOME)])
    return None


def pin_own_packages() -> None:
  """Makes `import workloads`, `submissions` and `scoring` find our packages. Idempotent."""
  if _OwnPackages not in sys.meta_path:
    sys.meta_path.insert(0, _OwnPackages)


@dataclass(frozen=True)
class SubmissionFolder:
  """A submission folder under `submissions/<ruleset>/`."""

  name: str
  ruleset: Ruleset
  folder: Path

  def file(self, framework: str) -> Path | None:
    """Returns the module for a framework: its own file, else `submission.py`, else None."""
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
_read_suites: dict[str, Suite] = {}  # suites read from files, by name


def add_root(folder: Path | str) -> None:
  """Adds a folder that holds `workloads/` or `submissions/` (`--path`).

  Raises:
    UserError: the folder does not exist or holds neither.
  """
  check_folder('--path', str(folder), must_exist=True)
  root = Path(folder).expanduser().resolve()
  if not any((root / name).is_dir() for name in ('workloads', 'submissions')):
    raise errors.UserError(
      f'--path must be a directory with workloads/ or submissions/ in it; {root} has neither.'
    )
  if root not in _roots:
    _roots.append(root)
    _forget()


def add_task(folder: Path | str) -> None:
  """Adds one task folder outside of all roots (`--workload_path`).

  Raises:
    UserError: the folder has no `definition.py`.
  """
  check_folder('--workload_path', str(folder), must_exist=True)
  path = Path(folder).expanduser().resolve()
  if not (path / 'definition.py').is_file():
    raise errors.UserError(
      f'--workload_path must be a task folder with a definition.py; {path} has none.'
    )
  if path not in _single_tasks:
    _single_tasks.append(path)
    _forget()


def roots() -> tuple[list[str], list[str]]:
  """Returns the added roots and task folders, for a child process that must find the same."""
  return [str(root) for root in _roots[1:]], [str(path) for path in _single_tasks]


def _forget() -> None:
  tasks.cache_clear()
  workloads.cache_clear()
  submissions.cache_clear()
  forget_files()


def _folders(parent: Path) -> Iterator[Path]:
  if parent.is_dir():
    for folder in sorted(parent.iterdir()):
      if folder.is_dir() and not folder.name.startswith(('_', '.')):
        yield folder


@functools.cache
def tasks() -> Mapping[str, Task]:
  """Returns every task folder by name.

  Raises:
    UserError: two folders have the same name.
  """
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
  """Returns the definitions of all base workloads and variants, by name.

  Raises:
    UserError: two definitions have the same name, or one is none or does not match its key or
      folder.
  """
  found: dict[str, WorkloadDefinition] = {}
  for task in tasks().values():
    for name, definition in task.definitions().items():
      if name in found:
        raise errors.UserError(
          f'Workload names must be unique; {name!r} is defined by {found[name].task!r} and '
          f'{task.name!r}.'
        )
      if definition.name != name or definition.task != task.name:
        raise errors.UserError(
          f'{task.folder}/definition.py: WORKLOADS[{name!r}] must have name={name!r} and '
          f'task={task.name!r}; it has {definition.name!r} and {definition.task!r}.'
        )
      for suite in definition.suites:
        if suite not in SUITES:
          raise errors.unknown('suite', suite, SUITES)
      found[name] = definition
  return found


def workload(name: str, suite_name: str | None = None) -> WorkloadDefinition:
  """Returns a definition; with a suite, the definition with that suite's target, sizes and budget.

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
  return dataclasses.replace(
    definition,
    suites={suite.name: definition.suites[suite.name]},
    aux_dropout_rates={
      name: rate for name, rate in definition.aux_dropout_rates.items() if name == suite.name
    },
  )


def task_of(definition: WorkloadDefinition) -> Task:
  return tasks()[definition.task]


def suites() -> Mapping[str, Suite]:
  """Returns every suite by name: the built-in ones, then those read from files."""
  return {**SUITES, **_read_suites}


def suite(name: str) -> Suite:
  """Returns a suite by name or TOML file; a file that was read is then known by its name too.

  Raises:
    UserError: there is no such suite, or the file is invalid.
  """
  if suite_file.is_file(name):
    found = suite_file.load(name, workloads())
    before = _read_suites.get(found.name)
    if before is not None and before.file != found.file:
      raise errors.UserError(
        f'{found.file}: the name of a suite must be unique; {before.file} has the name '
        f'{found.name!r}, too. Choose another name.'
      )
    _read_suites[found.name] = found
    return found
  try:
    return suites()[name]
  except KeyError:
    error = errors.unknown('suite', name, suites())
    raise errors.UserError(f'{error} Name a suite of your own by its .toml file.') from None


def members(suite_name: str) -> Mapping[str, WorkloadDefinition]:
  """Returns the base and held-out workloads of a suite, including those that cannot run yet."""
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
  """Returns the budget of a workload in a suite, before the factor of the ruleset."""
  found = suite(suite_name)
  return _raced(definition, found).suites[found.name]


def module_of(definition: WorkloadDefinition, kind: str) -> ModuleType:
  """Imports the code of a definition.

  Args:
    kind: 'data', 'parity', 'metrics', or the model in a framework: 'jax' or 'pytorch'.

  Raises:
    UserError: no file has it, or it cannot be used as it is.
  """
  return task_of(definition).code(definition, kind)


def metrics_of(definition: WorkloadDefinition) -> ModuleType | None:
  """Imports the metrics of a definition; None if its task has no file for them."""
  has_metrics = task_of(definition).code_file(definition, 'metrics') is not None
  return module_of(definition, 'metrics') if has_metrics else None


def data_obstacle(definition: WorkloadDefinition) -> str:
  """Says why the data of a workload cannot be read or prepared; '' if they can.

  A definition without a smoke record has no code yet, even if its task has code for others.
  """
  if definition.smoke is None:
    return f'There is no code for {definition.name} yet.'
  return task_of(definition).problem(definition, 'data')


def obstacle(definition: WorkloadDefinition, framework: str) -> str:
  """Says why a workload cannot run with a framework; '' if it can."""
  return data_obstacle(definition) or task_of(definition).problem(definition, framework)


def is_runnable(definition: WorkloadDefinition, framework: str | None = None) -> bool:
  """Returns True if the workload has code for `framework`, or for any framework if None."""
  frameworks = (framework,) if framework else tuple(SUBMISSION_FILES)
  return not all(obstacle(definition, name) for name in frameworks)


@functools.cache
def submissions() -> Mapping[tuple[Ruleset, str], SubmissionFolder]:
  """Returns every submission folder, by ruleset and name; the first root that has a name wins."""
  found: dict[tuple[Ruleset, str], SubmissionFolder] = {}
  for root in _roots:
    for ruleset, parent in RULESET_FOLDERS.items():
      for folder in _folders(root / 'submissions' / parent):
        candidate = SubmissionFolder(folder.name, ruleset, folder)
        if candidate.frameworks:
          found.setdefault((ruleset, folder.name), candidate)
  return found


def submission(name: str, ruleset: Ruleset) -> SubmissionFolder:
  """Returns a submission folder.

  Raises:
    UserError: the ruleset has no such submission.
  """
  try:
    return submissions()[ruleset, name]
  except KeyError:
    known = [other for kind, other in submissions() if kind == ruleset]
    raise errors.unknown(f'{ruleset}-tuning submission', name, known) from None
