"""Tallies of trials that never ran, for tests of what is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from fake_trial import FakeClock
from test_local_launch import config

from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.launch.pool import Event
from algorithmic_efficiency.launch.tally import Tally, Timing
from algorithmic_efficiency.results import measurements
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.messages import Message, Progress

PROGRESS = Progress(
  global_step=20,
  charged_steps=20,
  submission_time=0.5,
  total_duration=1.0,
  eval=None,
  steps_per_sec=None,
  batch_size=0,
  is_evaluating=False,
)


def progress(**changes: Any) -> Progress:
  return msgspec.structs.replace(PROGRESS, **changes)


def trial(
  submission: str, study: int, *, workload: str = 'quick_vision', folder: Path = Path('absent')
) -> TrialConfig:
  place = folder / submission / f'study_{study}' / workload
  return config(place, submission=submission, study=study, workload=workload)


def record(of: TrialConfig, seconds: float = 0.0, *, status: str = 'finished') -> TrialRecord:
  reason = '' if status == 'finished' else 'the cause'
  changes: Mapping[str, Any] = {'status': status, 'reason': reason, 'buckets': {'update': seconds}}
  return dataclasses.replace(of.record(), **changes)


def tally(
  trials: Sequence[TrialConfig],
  clock: FakeClock,
  *,
  timings: Sequence[Timing] = (),
  earlier: Mapping[int, TrialRecord] | None = None,
  num_slots: int = 1,
) -> Tally:
  """A tally in which the timings come first, and then the trials without a record, in order."""
  earlier = earlier or {}
  jobs = [*timings, *(index for index in range(len(trials)) if index not in earlier)]
  return Tally(trials, jobs, earlier=earlier, num_slots=num_slots, now=clock)


def started(job: int) -> Event:
  return Event(index=job, kind='started')


def said(job: int, message: Message) -> Event:
  return Event(index=job, kind='message', message=message)


def ended(
  job: int,
  *,
  stop_reason: str = 'targets_reached',
  status: str = 'finished',
  reason: str = '',
  folder: Path = Path('absent'),
) -> Event:
  outcome: Any = {'folder': folder, 'status': status, 'stop_reason': stop_reason, 'reason': reason}
  return Event(index=job, kind='ended', outcome=Outcome(**outcome))


def write_rows(of: TrialConfig, *rows: Mapping[str, float]) -> None:
  """Writes a log of evaluations into the folder of a trial."""
  log = measurements.RunLog.open(of.path, header={})
  for row in rows:
    log.append_eval(row, int(row['global_step']))
  log.close()
