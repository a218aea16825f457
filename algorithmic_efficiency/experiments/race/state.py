"""What has become of the trials of a race: read from the folder of runs, which is all there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.suites import Suite
from algorithmic_efficiency.results import trial_record
from algorithmic_efficiency.results.trial_record import TRIAL_FILE, TrialRecord
from algorithmic_efficiency.trial.config import TrialConfig

Kind = Literal['absent', 'unfinished', 'failed', 'invalid', 'finished']

_MOST_OUT_OF_MEMORY = 2  # times in a row; then it is not the neighbours who took the memory


@dataclass(frozen=True, kw_only=True)
class TrialState:
  """A planned trial and what has become of it.

  Attributes:
    record: None where it has not begun.
    kind: 'unfinished' is what was cut off from outside (an interrupt, a kill, exhausted memory for
      the first time) and goes on when the race does; 'failed' is what ended by its own fault.
  """

  config: TrialConfig
  record: TrialRecord | None
  kind: Kind

  def is_to_run(self, *, retry_failed: bool) -> bool:
    """Whether a race runs it, or lets it go on."""
    return self.kind in ('absent', 'unfinished') or (retry_failed and self.kind != 'finished')

  @property
  def config_to_run(self) -> TrialConfig:
    """How it is run: what is invalid is replaced, as its rows may not be its own."""
    anew = self.kind == 'invalid'
    return replace(self.config, resume=False, overwrite=True) if anew else self.config


def records(folder: Path) -> dict[Path, TrialRecord]:
  """The record of every trial in a folder of runs, by the trial's folder.

  Raises:
    UserError: one of them is damaged.
  """
  folder = folder.resolve()
  found = {}
  for depth in ('*/*', '*/*/*'):  # without folders of studies, and with them
    for path in sorted(folder.glob(f'{depth}/trial_*/{TRIAL_FILE}')):
      record = trial_record.read_trial(path.parent)
      assert record is not None
      found[path.parent] = record
  return found


def scan(configs: Sequence[TrialConfig]) -> list[TrialState]:
  """What has become of each planned trial; every record is read once.

  Raises:
    UserError: a record is damaged.
  """
  return [_state(config, trial_record.read_trial(config.path)) for config in configs]


def begun_anew(configs: Sequence[TrialConfig]) -> list[TrialState]:
  """The trials as if there were nothing yet: those that replace what is there."""
  return [_state(config, None) for config in configs]


def _state(config: TrialConfig, record: TrialRecord | None) -> TrialState:
  return TrialState(
    config=config, record=record, kind='absent' if record is None else _kind(record)
  )


def _kind(record: TrialRecord) -> Kind:
  if record.status == 'finished':
    return 'finished'
  if record.status == 'invalid':
    return 'invalid'
  if record.status == 'running' or record.stop_reason == 'interrupted':
    return 'unfinished'
  if record.stop_reason == 'out_of_memory' and record.num_out_of_memory < _MOST_OUT_OF_MEMORY:
    return 'unfinished'
  return 'failed'


def check_belongs(found: Mapping[Path, TrialRecord], config: TrialConfig) -> None:
  """Makes sure that the trials in a folder of runs are of the same race as `plan`.

  Raises:
    UserError: one was run by other rules, with another seed, or on a workload changed since.
  """
  suite = registry.suite(config.suite)
  rules = suite.rules_hash(config.ruleset)
  members: dict[str, str] = {}
  for folder, record in found.items():
    for name, begun, asked in (
      ('suite', record.suite, config.suite),
      ('ruleset', record.ruleset, config.ruleset),
      ('smoke', record.smoke, config.options.smoke),
      ('seed', record.seeds.get('seed'), config.root_seed),
    ):
      if begun != asked:
        raise errors.UserError(
          f'A folder holds the runs of one race; {folder} was run with {name} {begun}, and this '
          f'race has {asked}. Choose another --experiment_dir, or race as those runs did.'
        )
    if record.workload not in members:
      members[record.workload] = _definition_hash(record, suite)
    for what, known, now in (
      (f'the suite {suite.name}', record.suite_hash, rules),
      (f'the workload {record.workload}', record.definition_hash, members[record.workload]),
    ):
      if known and now and known != now:
        raise errors.UserError(
          f'A race ends by the rules that it began with; {what} has been changed since {folder} '
          'was run. Choose another --experiment_dir, or replace the runs with --overwrite.'
        )


def _definition_hash(record: TrialRecord, suite: Suite) -> str:
  """That of a workload as it is now; empty for one that is not known here."""
  if record.workload not in registry.workloads():
    return ''
  definition = registry.workload(record.workload, suite.name)
  return (definition.for_smoke() if record.smoke else definition).content_hash()
