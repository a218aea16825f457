"""Decides how a trial ended: from the reports of its processes, and from what their parent saw."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from algorithmic_efficiency.launch.account import Account
from algorithmic_efficiency.results import measurements
from algorithmic_efficiency.results.trial_record import Status, StopReason, TrialRecord
from algorithmic_efficiency.trial.config import TrialConfig

CLOCK_TOLERANCE = 0.01
CLOCK_TOLERANCE_SEC = 0.5
"""The clocks of a trial and of its parent may differ by this share or this time: the larger one."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
  """How a trial ended, as its parent saw it.

  Attributes:
    stop_reason: empty for a job of the pool that is no trial.
    parent_wall_sec: the trial's wall time by its parent's clock; None where it was not measured.
  """

  folder: Path
  status: Status
  stop_reason: StopReason | Literal['']
  reason: str
  parent_wall_sec: float | None = None


def recorded(folder: Path, record: TrialRecord) -> Outcome:
  """Gives the outcome in the record of a trial that ended before."""
  return Outcome(
    folder=folder,
    status=record.status,
    stop_reason=record.stop_reason or '',
    reason=record.reason,
    parent_wall_sec=record.parent_wall_sec,
  )


def mistaken(config: TrialConfig, mistake: str) -> Outcome:
  """Gives the outcome of a trial that the user's mistake has ended, or kept from starting."""
  return _failed(config, 'failed', mistake)


def interrupted(config: TrialConfig) -> Outcome:
  """Gives the outcome of a trial that was interrupted."""
  return _failed(config, 'interrupted', 'The trial was interrupted; continue it with --resume.')


def _failed(config: TrialConfig, stop_reason: StopReason, reason: str) -> Outcome:
  return Outcome(folder=config.path, status='failed', stop_reason=stop_reason, reason=reason)


def outcome_of(config: TrialConfig, accounts: Sequence[Account], *, timed_out: bool) -> Outcome:
  """Decides the outcome of a trial whose processes are gone.

  Args:
    accounts: accounts of all processes that this host started; the first writes the rows.
    timed_out: true if they were ended because of the heartbeat timeout.
  """
  first = accounts[0]
  garbled = next((one.rank.garbled for one in accounts if one.rank.garbled), None)
  if garbled is not None:
    return Outcome(folder=config.path, status='invalid', stop_reason='failed', reason=garbled)
  dead = _dead(accounts)
  if dead is not None:
    return _silence(config) if timed_out else _death(config, dead)
  teller = _teller(accounts)
  assert teller.ended is not None, 'else it would be dead'
  ended = teller.ended
  doubt = None
  if ended.status == 'finished':
    doubt = _clock_doubt(first) or _rows_doubt(config, first)
  return Outcome(
    folder=config.path,
    status=ended.status if doubt is None else 'invalid',
    stop_reason=ended.stop_reason if doubt is None else 'failed',
    reason=ended.reason if doubt is None else doubt,
    parent_wall_sec=first.wall_sec,
  )


def _dead(accounts: Sequence[Account]) -> Account | None:
  """Finds the process that ended without a report and so ended the trial; None if none did."""
  unreported = [one for one in accounts if one.ended is None]
  killed = [one for one in unreported if (one.rank.exit_code or 0) < 0]
  if killed:
    return killed[0]
  if any(one.ended is not None and one.ended.status != 'finished' for one in accounts):
    return None  # its report says why; those without one waited for it
  gone = [one for one in unreported if one.rank.exit_code is not None]
  return next(iter([*gone, *unreported]), None)


def _teller(accounts: Sequence[Account]) -> Account:
  """Finds the process whose report counts: the first that failed, or else rank 0."""
  failed = [
    (one.ended_at, one.rank.index, one)
    for one in accounts
    if one.ended is not None and one.ended_at is not None and one.ended.status != 'finished'
  ]
  return min(failed)[2] if failed else accounts[0]


def _silence(config: TrialConfig) -> Outcome:
  return _failed(
    config,
    'heartbeat_timeout',
    f'No process of the trial gave a sign of life for {config.heartbeat_timeout_sec:g} s, the '
    'heartbeat timeout. output.txt shows where it stood.',
  )


def _death(config: TrialConfig, dead: Account) -> Outcome:
  code, who = dead.rank.exit_code, dead.rank.name
  if code is None:
    return _failed(config, 'failed', f'{who} did not come to an end; see output.txt')
  if code >= 0:
    return _failed(config, 'failed', f'{who} ended with exit code {code}; see output.txt')
  name = signal.Signals(-code).name
  if code == -signal.SIGKILL:
    reason = f'{who} was killed ({name}), most likely for its memory'
    return _failed(config, 'out_of_memory', reason)
  if -code in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # by somebody
    return _failed(config, 'interrupted', f'{who} was ended by {name}')
  return _failed(config, 'failed', f'{who} was ended by {name}; output.txt shows where it stood')


def _clock_doubt(account: Account) -> str | None:
  """Says by how much the clocks of trial and parent differ, if that is more than allowed."""
  assert account.ended is not None
  child_sec, parent_sec = account.ended.wall_sec, account.wall_sec
  if parent_sec is None:
    return 'The trial has ended without a message of its start, so its clock cannot be checked.'
  allowed = max(CLOCK_TOLERANCE * parent_sec, CLOCK_TOLERANCE_SEC) + account.doubtful_sec
  if abs(child_sec - parent_sec) <= allowed:
    return None
  return (
    f'The clock of the trial is off: its buckets sum to {child_sec:.2f} s, its parent measured '
    f'{parent_sec:.2f} s.'
  )


def _rows_doubt(config: TrialConfig, account: Account) -> str | None:
  """Says which rows on disk differ from those that were reported while the trial ran, if any do.

  The tables that are made of the rows, and scored, must hold the same rows.
  """
  if config.devices.rank != 0:
    return None
  assert account.ended is not None
  found = hashlib.sha256()
  try:
    with open(config.path / measurements.LOG_FILE, 'rb') as file:
      file.seek(account.ended.log_offset)
      for line in file:
        found.update(line)
  except OSError as error:
    return f'The rows that the trial reported cannot be read any more: {error.strerror}.'
  if found.digest() != account.rows.digest():
    return 'The rows on disk are not those that the trial reported while it ran.'
  altered = measurements.altered_views(config.path)
  return f'{altered[0]} does not hold the rows of the log.' if altered else None
