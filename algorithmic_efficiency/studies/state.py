"""What has become of the trials of a race: read from the folder of runs, which is all there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from algorithmic_efficiency import errors, measurements, registry
from algorithmic_efficiency.measurements import TRIAL_FILE, TrialRecord
from algorithmic_efficiency.trial_plan import TrialPlan

Kind = Literal['absent', 'unfinished', 'failed', 'invalid', 'finished']

# Why a trial may have failed through no fault of its own: these go on when the race does.
_FROM_OUTSIDE = ('interrupted', 'out_of_memory')


@dataclass(frozen=True, kw_only=True)
class TrialState:
  """A planned trial and what has become of it.

  Attributes:
    record: None where it has not begun.
    kind: 'unfinished' is what was cut off from outside (an interrupt, a kill, exhausted memory) and
      goes on when the race does; 'failed' is what ended by its own fault.
  """

  plan: TrialPlan
  record: TrialRecord | None
  kind: Kind


def records(folder: Path) -> dict[Path, TrialRecord]:
  """The record of every trial in a folder of runs, by the trial's folder.

  Raises:
    UserError: one of them is damaged.
  """
  folder = folder.resolve()
  found = {}
  for depth in ('*/*', '*/*/*'):  # without folders of studies, and with them
    for path in sorted(folder.glob(f'{depth}/trial_*/{TRIAL_FILE}')):
      record = measurements.read_trial(path.parent)
      assert record is not None
      found[path.parent] = record
  return found


def scan(plans: Sequence[TrialPlan]) -> list[TrialState]:
  """What has become of each planned trial; every record is read once.

  Raises:
    UserError: a record is damaged.
  """
  return [_state(plan, measurements.read_trial(plan.path)) for plan in plans]


def _state(plan: TrialPlan, record: TrialRecord | None) -> TrialState:
  return TrialState(plan=plan, record=record, kind='absent' if record is None else _kind(record))


def _kind(record: TrialRecord) -> Kind:
  if record.status == 'finished':
    return 'finished'
  if record.status == 'invalid':
    return 'invalid'
  if record.status == 'running' or record.stop_reason in _FROM_OUTSIDE:
    return 'unfinished'
  return 'failed'


def check_kind(plan: TrialPlan, folder: Path, record: TrialRecord) -> None:
  """Makes sure that a trial in a folder of runs is of the same race as `plan`.

  Raises:
    UserError: it was run by other rules, with another seed, or on a workload since changed.
  """
  for name, begun, asked in (
    ('suite', record.suite, plan.suite),
    ('ruleset', record.ruleset, plan.ruleset),
    ('smoke', record.smoke, plan.smoke),
    ('seed', record.seeds.get('seed'), plan.root_seed),
  ):
    if begun != asked:
      raise errors.UserError(
        f'A folder holds the runs of one race; {folder} was run with {name} {begun}, and this race '
        f'has {asked}. Choose another --experiment_dir, or race as those runs did.'
      )
  definition = registry.workloads().get(record.workload)
  if definition is None or not record.definition_hash:
    return
  if record.smoke:
    definition = definition.for_smoke()
  if record.definition_hash != definition.fingerprint():
    raise errors.UserError(
      f'A race stays on the workloads that it began with; {record.workload} has been changed since '
      f'{folder} was run. Choose another --experiment_dir, or replace the runs with --overwrite.'
    )
