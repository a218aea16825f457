"""Finds the state of each trial of a race in the folder of runs, which is the only record of it."""

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

_MOST_OUT_OF_MEMORY = 2  # times in a row; other trials may have taken the memory once


@dataclass(frozen=True, kw_only=True)
class TrialState:
  """A trial of a race and its state.

  Attributes:
    record: its record; None before it has begun.
    kind: its state. An 'unfinished' trial was cut off: by an interrupt, by a kill, or by exhausted
      memory for the first time. It continues with the race. A 'failed' one ended by its own fault.
  """

  config: TrialConfig
  record: TrialRecord | None
  kind: Kind

  def is_to_run(self, *, retry_failed: bool) -> bool:
    """Tells whether the race starts or continues it."""
    return self.kind in ('absent', 'unfinished') or (retry_failed and self.kind != 'finished')

  @property
  def config_to_run(self) -> TrialConfig:
    """The config to run it with: an invalid trial is replaced, as its rows cannot be trusted."""
    anew = self.kind == 'invalid'
    return replace(self.config, resume=False, overwrite=True) if anew else self.config


def records(folder: Path) -> dict[Path, TrialRecord]:
  """Reads the record of every trial in a folder of runs, by the trial's folder.

  Raises:
    UserError: a record is damaged.
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
  """Finds the state of each trial; reads every record once.

  Raises:
    UserError: a record is damaged.
  """
  return [_state(config, trial_record.read_trial(config.path)) for config in configs]


def begun_anew(configs: Sequence[TrialConfig]) -> list[TrialState]:
  """Gives the state of trials that replace what is there: all are absent."""
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
  """Makes sure that the trials in a folder of runs are of the same race as `config`.

  Raises:
    UserError: a trial was run by other rules, with another seed, or on a workload changed since.
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
  """Gives the present hash of a record's workload; empty for a workload that is not known here."""
  if record.workload not in registry.workloads():
    return ''
  definition = registry.workload(record.workload, suite.name)
  return (definition.for_smoke() if record.smoke else definition).content_hash()
