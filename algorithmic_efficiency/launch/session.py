"""Runs the trials of a request one after the other, shows how they get on, and sums up."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from algorithmic_efficiency.launch import local
from algorithmic_efficiency.launch.display import Display
from algorithmic_efficiency.launch.local import OnMessage
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.launch.pool import Event
from algorithmic_efficiency.launch.progress import say
from algorithmic_efficiency.launch.request import Request, configs
from algorithmic_efficiency.launch.tally import Tally
from algorithmic_efficiency.results import trial_record
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial.config import TrialConfig

DONE = ('finished', 'invalid')


def run(request: Request, *, quiet: bool = False) -> int:
  """Runs a request; 0 if every trial finished, else 1.

  Raises:
    UserError: the user made a mistake.
  """
  with interrupted_when_terminated():
    outcomes = run_trials(configs(request), quiet=quiet)
  bad = [outcome for outcome in outcomes if outcome.status != 'finished']
  if outcomes and not quiet:
    say(f'Results: {_common_folder([outcome.folder for outcome in outcomes])}')
  return 1 if bad else 0


@contextlib.contextmanager
def interrupted_when_terminated() -> Iterator[None]:
  """In the block, SIGTERM and SIGHUP are interrupts: trials are ended, and say so in their records.

  A signal that is ignored, as under `nohup`, stays ignored.
  """
  before = {
    number: signal.signal(number, _interrupt)
    for number in (signal.SIGTERM, signal.SIGHUP)
    if signal.getsignal(number) != signal.SIG_IGN
  }
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
  """Interrupts once: a closing terminal sends SIGHUP several times, and records take a moment."""
  signal.signal(number, signal.SIG_IGN)
  raise KeyboardInterrupt


def run_trials(trials: list[TrialConfig], *, quiet: bool = False) -> list[Outcome]:
  """Runs trials in order; one that fails does not keep the others from running."""
  finished = {index: record for index, one in enumerate(trials) if (record := _finished(one))}
  todo = [index for index in range(len(trials)) if index not in finished]
  tally = Tally(trials, todo, earlier=finished)
  with Display(tally, quiet=quiet) as display:
    for job, index in enumerate(todo):
      display.take(Event(index=job, kind='started'))
      outcome = local.run_trial(trials[index], _teller(display, job))
      display.take(Event(index=job, kind='ended', outcome=outcome))
  return [*tally.outcomes().values()]


def _teller(display: Display, job: int) -> OnMessage:
  return lambda message: display.take(Event(index=job, kind='message', message=message))


def _finished(config: TrialConfig) -> TrialRecord | None:
  """The record of a trial that a resumed request need not run again."""
  record = trial_record.read_trial(config.path) if config.resume else None
  return record if record is not None and record.status in DONE else None


def _common_folder(folders: list[Path]) -> Path:
  common = folders[0]
  while not all(folder.is_relative_to(common) for folder in folders):
    common = common.parent
  try:
    return common.relative_to(Path.cwd())
  except ValueError:
    return common
