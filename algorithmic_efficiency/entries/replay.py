"""Runs a trial of an entry again from its seed, and holds its losses against honest runs.

The trial runs once as it is and three times with initial parameters that differ in their last bits.
The four show how far rounding lets runs of one seed drift apart. Their 99 % prediction interval is
what the packed losses must lie in. Where chaos has made it wide, nothing is proved either way.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from algorithmic_efficiency import backends, errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.entries.checks import Entry
from algorithmic_efficiency.entries.manifest import CODE
from algorithmic_efficiency.entries.trials import EntryTrial
from algorithmic_efficiency.entries.verdict import Finding, Severity
from algorithmic_efficiency.experiments.reproduction import prediction_band, reference_logs
from algorithmic_efficiency.experiments.reproduction.prediction_band import Agreement, Band
from algorithmic_efficiency.experiments.reproduction.reference_logs import Log
from algorithmic_efficiency.experiments.reproduction.run import PROTOCOL
from algorithmic_efficiency.launch import request, session
from algorithmic_efficiency.launch.request import Request
from algorithmic_efficiency.results import trial_record
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.run_options import RunOptions

NUM_CHANGED = 3  # runs with other last bits, beside the one as it is
_SPREAD_FLOOR = 1e-4  # of the range of a loss; replays differ in their last bits alone
_FLOOR = 1e-5  # of a loss: sums over examples in another order differ by less
_FAR = 1.0  # widths of the band from its middle: at no step a loss may lie further away


@dataclass(frozen=True, kw_only=True)
class Replay:
  """A trial that ran again.

  Attributes:
    steps: steps of the rows that were compared.
    is_equal: whether its losses are those of the package to the last bit.
    losses: the position of each packed loss in the band of the replays.
    diverged: losses that are finite in the package and in no replay.
    differs: what sets this machine apart from that of the trial, in words.
  """

  trial: str
  steps: tuple[int, ...]
  is_equal: bool
  losses: tuple[Agreement, ...]
  diverged: tuple[str, ...]
  differs: tuple[str, ...]


def run(
  entry: Entry,
  folder: Path,
  *,
  steps: int,
  trial: str | None,
  options: RunOptions,
  devices: Devices,
  quiet: bool,
) -> tuple[Replay | None, list[Finding]]:
  """Runs a trial again.

  Args:
    folder: where the runs are written.
    steps: number of steps.
    trial: name of the trial; None draws one.

  Returns:
    The replay, or None if it came to no rows, and what was found.

  Raises:
    UserError: there is no such trial, or it cannot run on this machine.
  """
  if steps < 1:
    raise errors.UserError(f'--replay must be at least 1; it is {steps}.')
  one = _chosen(entry, trial)
  if one is None or one.record is None:
    text = 'No trial can run again: none states its seeds.'
    return None, [_finding('unchecked', 'runs', text)]
  config = _config(entry, one, one.record, folder, steps, options, devices)
  outcomes = session.run_trials(list(_variations(config)), quiet=quiet)
  for outcome in outcomes:
    if outcome.status != 'finished':
      text = f'It cannot run again here: {outcome.reason or outcome.stop_reason}.'
      return None, [_finding('doubtful', one.name, text)]
  logs = [reference_logs.read(outcome.folder) for outcome in outcomes]
  again = trial_record.read_trial(outcomes[0].folder)
  assert again is not None
  found = _compared(one, logs, _differences(one.record, again))
  return found, list(_findings(found))


def _finding(severity: Severity, where: str, text: str) -> Finding:
  return Finding(check='replay', severity=severity, where=where, text=text)


def _chosen(entry: Entry, name: str | None) -> EntryTrial | None:
  """The trial of that name, else one drawn from those that can run again; None if none can."""
  known = {one.name: one for one in entry.trials}
  if name is not None:
    if name not in known:
      raise errors.unknown('trial in the package', name, known)
    return known[name]
  able = [one for one, _ in entry.recorded if one.rows and one.workload in entry.rules.definitions]
  return secrets.choice(able) if able else None


def _config(
  entry: Entry,
  one: EntryTrial,
  record: TrialRecord,
  folder: Path,
  steps: int,
  options: RunOptions,
  devices: Devices,
) -> TrialConfig:
  """The trial as it ran, up to its last row within so many steps."""
  own = record.environment.get('devices', {})
  num_devices, num_threads = devices.num_devices, devices.num_threads
  if own.get('platform') == 'cpu':  # which simulates as many devices as it is asked for
    num_devices = num_devices or own.get('num_devices')
    num_threads = num_threads or own.get('num_threads')
  rows = tuple(int(row['global_step']) for row in one.rows if row['global_step'] <= steps)
  if not rows:
    raise errors.UserError(f'{one.name} has no row within its first {steps} steps.')
  world_size = backends.num_processes(
    record.framework, platform=devices.platform, num_devices=num_devices, num_processes=None
  )
  [config] = request.configs(
    Request(
      workload=record.workload,
      framework=record.framework,
      submission=str(entry.folder / CODE),
      suite=entry.rules.scoring.suite.file or entry.rules.scoring.suite.name,
      ruleset=entry.manifest.ruleset,
      trials=entry.rules.num_trials,
      study=record.study,
      seed=record.seeds['seed'],
      hparam_start_index=record.trial - 1,
      hparam_end_index=record.trial,
      experiment_dir=str(folder),
      experiment='replay',
      options=dataclasses.replace(
        options,
        **PROTOCOL,
        eval_steps=rows,
        save_checkpoints=False,
      ),
      devices=dataclasses.replace(
        devices, num_devices=num_devices, num_threads=num_threads, world_size=world_size
      ),
    )
  )
  return dataclasses.replace(config, hyperparameters=record.hyperparameters)


def _variations(config: TrialConfig) -> list[TrialConfig]:
  """The trial as it is, and with other last bits; each in a folder of its own."""
  changed = [
    dataclasses.replace(config, folder=f'{config.folder}_rounded_{seed}', rounding_seed=seed)
    for seed in range(1, NUM_CHANGED + 1)
  ]
  return [config, *changed]


def _differences(record: TrialRecord, again: TrialRecord) -> tuple[str, ...]:
  """What sets the machine of a replay apart from that of the trial, in words."""
  before, now = (
    {'cpu_model': one.environment.get('cpu_model'), **one.environment.get('devices', {})}
    for one in (record, again)
  )
  names = ('cpu_model', 'platform', 'device_kind', 'num_devices', 'num_threads', 'versions')
  return tuple(
    f'{name} {before.get(name)}, here {now.get(name)}'
    for name in names
    if before.get(name) != now.get(name)
  )


def _compared(one: EntryTrial, logs: Sequence[Log], differs: tuple[str, ...]) -> Replay:
  steps = logs[0].steps
  own = reference_logs.read(one.folder)
  names = [name for name in logs[0].curves if name.endswith('loss') and name in own.curves]
  packed = Log(
    folder=own.folder,
    point=own.point,
    suite=own.suite,
    steps=steps,
    curves={name: own.at(name, steps) for name in names},
  )
  bands = prediction_band.bands(logs, steps, floor=_SPREAD_FLOOR)
  finite = {name: np.isfinite([log.curves[name] for log in logs]).any(axis=0) for name in names}
  diverged = [bool((~finite[name] & np.isfinite(packed.curves[name])).any()) for name in names]
  return Replay(
    trial=one.name,
    steps=tuple(map(int, steps)),
    is_equal=all(
      np.array_equal(packed.curves[name], logs[0].curves[name], equal_nan=True) for name in names
    ),
    losses=tuple(
      prediction_band.agreements(
        packed, {name: _widened(bands[name]) for name in names if name in bands}
      )
    ),
    diverged=tuple(name for name, is_so in zip(names, diverged, strict=True) if is_so),
    differs=differs,
  )


def _widened(band: Band) -> Band:
  """A band that is as wide as the order of summation asks for."""
  middle = (band.low + band.high) / 2
  half = np.maximum((band.high - band.low) / 2, _FLOOR * np.abs(middle))
  return dataclasses.replace(band, low=middle - half, high=middle + half)


def is_inside(one: Agreement) -> bool:
  """Whether a packed loss is one that the trial gives: nine of ten steps in the band, none far."""
  far = abs(one.value - (one.low + one.high) / 2) <= _FAR * (one.high - one.low)
  return one.is_inside and far


def _findings(found: Replay) -> list[Finding]:
  if not (found.losses or found.diverged):
    return [_finding('unchecked', found.trial, 'It has no loss to compare.')]
  if found.is_equal:
    text = f'It gives the same losses to the last bit, up to step {found.steps[-1]}.'
    return [_finding('note', found.trial, text)]
  outside = [one for one in found.losses if not is_inside(one)]
  severity: Severity = 'doubtful' if found.differs else 'refused'
  machine = f' The machines differ: {"; ".join(found.differs)}.' if found.differs else ''
  texts = [
    f'{one.metric} is {one.value:.6g} at step {one.step}; a replay gives {one.low:.6g} to '
    f'{one.high:.6g}.'
    for one in outside
  ]
  texts += [f'{name} is not finite when the trial runs again.' for name in found.diverged]
  findings = [_finding(severity, found.trial, text + machine) for text in texts]
  if not findings:
    text = f'Its losses lie among those of {NUM_CHANGED + 1} replays, up to step {found.steps[-1]}.'
    findings.append(_finding('note', found.trial, text))
  return findings
