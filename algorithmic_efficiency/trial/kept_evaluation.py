"""Evaluates the parameters that a trial has kept, on any split or probe of a definition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithmic_efficiency import backends, errors, seeds
from algorithmic_efficiency.backends.base import Devices, TaskCode
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Budget, WorkloadDefinition
from algorithmic_efficiency.results import trial_record
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial import evaluation, kept_params
from algorithmic_efficiency.trial.run_options import ALL_SPLITS

_NO_BUDGET = Budget(step_hint=1)  # nothing is trained


@dataclass(frozen=True, kw_only=True)
class KeptTrial:
  """A trial that has kept parameters, and its folder."""

  folder: Path
  record: TrialRecord


@dataclass(frozen=True, kw_only=True)
class Evaluated:
  """What an evaluation of kept parameters gave, as `algoeff evaluate --output` writes it.

  Attributes:
    trained_on: workload of the trial; `workload` is the one that was evaluated.
    definition_hash, trained_on_hash: hashes of their definitions, now and when the trial ran.
    global_step: steps after which the parameters were kept.
    values: metric by `<split>/<metric>`, named as in the rows of a trial.
  """

  trial: str
  workload: str
  trained_on: str
  framework: str
  smoke: bool
  global_step: int
  batch_size: int
  definition_hash: str
  trained_on_hash: str
  values: dict[str, float]


def find(run: Path, framework: str | None = None) -> KeptTrial:
  """Finds the trial in a folder: that of the trial itself, or one that holds a single trial.

  Args:
    framework: None takes the trial of either framework.

  Raises:
    UserError: there is no such trial, or there are several.
  """
  folders = [run] if (run / trial_record.TRIAL_FILE).is_file() else _below(run)
  found = [
    KeptTrial(folder=folder, record=record)
    for folder in folders
    if (record := trial_record.read_trial(folder)) is not None
    and framework in (None, record.framework)
  ]
  if len(found) == 1:
    return found[0]
  of_framework = f' of {framework}' if framework else ''
  if not found:
    raise errors.UserError(
      f'The run must be a trial folder, or hold one{of_framework}; {run} does not.'
    )
  listed = ', '.join(str(one.folder) for one in found)
  raise errors.UserError(
    f'The run must hold one trial{of_framework}; {run} holds {len(found)}: {listed}. Name one of '
    'them.'
  )


def _below(run: Path) -> list[Path]:
  """The trial folders below a folder, but for backups, which are hidden."""
  folders = (path.parent for path in sorted(run.rglob(trial_record.TRIAL_FILE)))
  return [
    folder
    for folder in folders
    if not any(part.startswith('.') for part in folder.relative_to(run).parts)
  ]


def evaluate(
  trial: KeptTrial,
  splits: Sequence[Any],
  *,
  workload: str | None = None,
  data_dir: Path,
  batch_size: int | None = None,
  devices: Devices,
) -> Evaluated:
  """Evaluates the kept parameters of a trial; imports its framework.

  A trial of a smoke run is evaluated at the sizes, and on the generated data, of a smoke run.

  Args:
    splits: names of splits and probes.
    workload: a workload with the same model; None takes that of the trial.
    data_dir: folder of the prepared data sets.
    batch_size: examples of an evaluation batch; None takes that of the trial on its own workload,
      else that of the definition.

  Raises:
    UserError: there are no such parameters or splits, or the parameters do not fit the model.
  """
  record = trial.record
  kept = kept_params.load(trial.folder, record)
  definition = definition_of(record, workload)
  check_splits(definition, splits)
  obstacle = registry.obstacle(definition, record.framework)
  if obstacle:
    raise errors.UserError(f'{definition.name} cannot be evaluated. {obstacle}')
  if batch_size is None and definition.name == record.workload:
    batch_size = kept.eval_batch_size
  backend = backends.start(record.framework, devices)
  task = TaskCode.of(definition, record.framework)
  evaluated = backend.workload(definition, task, _NO_BUDGET, eval_batch_size=batch_size)
  fresh = evaluated.init_model_fn(backend.key(seeds.key_data(0, 'init')))
  params, model_state = _restored(backend, fresh, kept, record, definition)
  values = evaluation.evaluate(
    backend,
    evaluated,
    task,
    params=params,
    model_state=model_state,
    root=None if record.smoke else data_dir / definition.dataset,
    key_data=seeds.key_data(record.seeds['trial'], 'eval', kept.global_step),
    splits=splits,
  )
  return Evaluated(
    trial=str(trial.folder),
    workload=definition.name,
    trained_on=record.workload,
    framework=record.framework,
    smoke=record.smoke,
    global_step=kept.global_step,
    batch_size=evaluated.eval_batch_size,
    definition_hash=definition.content_hash(),
    trained_on_hash=record.definition_hash,
    values=values,
  )


def definition_of(record: TrialRecord, workload: str | None) -> WorkloadDefinition:
  """Returns the definition on which the parameters of a trial are evaluated.

  Raises:
    UserError: there is no such workload.
  """
  name = workload or record.workload
  has_sizes_of_suite = name == record.workload and record.suite in registry.suites()
  definition = registry.workload(name, record.suite if has_sizes_of_suite else None)
  return definition.for_smoke() if record.smoke else definition


def check_splits(definition: WorkloadDefinition, names: Sequence[str]) -> None:
  """
  Raises:
    UserError: a name is neither a split nor a probe of the definition.
  """
  splits = [name for name in ALL_SPLITS if definition.splits.num_examples(name) is not None]
  known = (*splits, *definition.probes)
  for name in names:
    if name not in known:
      raise errors.unknown(f'split or probe of {definition.name}', name, known)


def _restored(
  backend: backends.base.Backend,
  fresh: tuple[Any, Any],
  kept: kept_params.Kept,
  record: TrialRecord,
  definition: WorkloadDefinition,
) -> tuple[Any, Any]:
  """The kept parameters and model state, placed as fresh ones are."""
  names = ('params', 'model_state')
  try:
    trees = backend.overlay(dict(zip(names, fresh, strict=True)), kept.trees, fixed=names)
  except ValueError as error:
    raise errors.UserError(
      f'Parameters are evaluated by a model with the same names and shapes; those of '
      f'{record.workload} do not fit {definition.name}. {error}'
    ) from error
  return trees['params'], trees['model_state']
