"""The data sets that definitions name: status, size, license and workloads of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import records

Status = Literal['bundled', 'prepared', 'missing', 'damaged', 'planned']


@dataclass(frozen=True, kw_only=True)
class DataSet:
  """One data set.

  Attributes:
    name: name of the set.
    status: 'bundled' needs no preparation; 'planned' cannot be prepared yet.
    num_bytes: bytes on this disk, or bytes that it will take; None if unknown.
    licence: license by name.
    origin: what it is and who made it.
    folder: its folder, present or future; None for a bundled set.
    problem: for a damaged set, or one whose code cannot be used, what is wrong and what to do.
    workloads: base workloads that use it.
    tfds: TensorFlow Datasets builder of the same data, if there is one; or several, by name.
    sources: names of the raw sources that `--source NAME=PATH` takes, if there are several.
  """

  name: str
  status: Status
  num_bytes: int | None
  licence: str
  origin: str
  folder: Path | None
  problem: str
  workloads: tuple[str, ...]
  tfds: str | Mapping[str, str] | None
  sources: tuple[str, ...]


def data_sets(data_dir: Path) -> list[DataSet]:
  """Returns every data set that a definition names, sorted by name."""
  return [_describe(group, data_dir) for _, group in sorted(_by_data_set().items())]


def definition_for(name: str) -> WorkloadDefinition:
  """Returns the definition that prepares a data set.

  Args:
    name: name of the data set or of a workload that uses it.

  Raises:
    UserError: there is no such data set.
  """
  groups = _by_data_set()
  if name in groups:
    return groups[name][0]
  workloads = registry.workloads()
  if name in workloads:
    return groups[workloads[name].dataset][0]
  raise errors.unknown('data set', name, groups)


def has_code(definition: WorkloadDefinition) -> bool:
  """Returns True if the data of a workload can be read and prepared."""
  return not registry.data_obstacle(definition)


def about_of(definition: WorkloadDefinition) -> records.About | None:
  """Returns the origin of the data of a workload; None if bundled data state none."""
  module = registry.module_of(definition, 'data')
  return module.about(definition) if hasattr(module, 'about') else None


def _by_data_set() -> Mapping[str, list[WorkloadDefinition]]:
  """Returns the base workloads of each data set; those that can run come first."""
  groups: dict[str, list[WorkloadDefinition]] = {}
  for definition in registry.workloads().values():
    if not definition.is_variant:
      groups.setdefault(definition.dataset, []).append(definition)
  return {
    name: sorted(group, key=lambda definition: not has_code(definition))
    for name, group in groups.items()
  }


def _describe(group: list[WorkloadDefinition], data_dir: Path) -> DataSet:
  definition = group[0]
  known = has_code(definition)
  about = about_of(definition) if known else None
  root = data_dir / definition.dataset
  if known:
    status, num_bytes, problem = _status(definition, root)
  else:
    unusable = '' if definition.smoke is None else registry.data_obstacle(definition)
    status, num_bytes, problem = 'planned', None, unusable
  return DataSet(
    name=definition.dataset,
    status=status,
    num_bytes=about.num_bytes if num_bytes is None and about is not None else num_bytes,
    licence=about.licence if about is not None else '',
    origin=about.origin if about is not None else '',
    folder=None if definition.bundled else root,
    problem=problem,
    workloads=tuple(workload.name for workload in group),
    tfds=definition.tfds,
    sources=about.sources if about is not None else (),
  )


def _status(definition: WorkloadDefinition, root: Path) -> tuple[Status, int | None, str]:
  if definition.bundled:
    return 'bundled', None, ''
  if not root.exists():
    return 'missing', None, ''
  try:
    manifest = records.read_manifest(root)
    records.check_sizes(root, manifest)
  except errors.UserError as error:
    return 'damaged', None, str(error)
  return 'prepared', sum(file['num_bytes'] for file in manifest['files'].values()), ''
