"""Shows how a trial gets on: one live line in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Self, TextIO

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.trial.config import TrialConfig, budget_of
from algorithmic_efficiency.trial.messages import Message, Progress
from algorithmic_efficiency.trial.stopping import StoppingRules

_LINE_PERIOD_SEC = 5.0
_STATUS_WORDS = {'finished': 'ended', 'failed': 'FAILED', 'invalid': 'INVALID'}


def say(text: str) -> None:
  """Prints a line, which may tell others' text.

  Lines go nowhere once the reader has gone (`algoeff run | head`), the output is closed, or its
  disk is full. A trial does not end for want of somebody who looks on.
  """
  _print(text, sys.stdout)


def _print(text: str, stream: TextIO | None) -> None:
  if stream is None or stream.closed:
    return
  try:
    print(errors.printable(text), file=stream, flush=True)
  except OSError:
    # What the stream still holds would fail again when the process ends.
    with open(os.devnull, 'w') as nowhere, contextlib.suppress(OSError):
      os.dup2(nowhere.fileno(), stream.fileno())


class TrialDisplay:
  """The progress of one trial, fed with the messages of its process."""

  def __init__(
    self, title: str, config: TrialConfig, number: int, total: int, *, quiet: bool = False
  ):
    self._title = title
    self._count = f'[{number}/{total}] ' if total > 1 else ''
    suite = registry.suite(config.suite)
    definition = registry.workload(config.workload, suite.name)
    self._target = definition.target
    self._rules = StoppingRules.of(
      config, suite, budget_of(definition, suite, config.ruleset, config.options.smoke)
    )
    self._quiet = quiet
    self._live: Any = None
    self._next_line = 0.0
    self._last: Progress | None = None
    self._said = ''

  def __enter__(self) -> Self:
    if self._quiet:
      return self
    if sys.stderr.isatty():
      from rich.console import Console
      from rich.status import Status

      self._live = Status(f'{self._heading()}: starting', console=Console(stderr=True))
      self._live.start()
    else:
      say(self._heading())
    return self

  def __exit__(self, *exception: object) -> None:
    if self._live is not None:
      self._live.stop()

  def message(self, message: Message) -> None:
    """Takes a message of the trial's process."""
    if not isinstance(message, Progress) or self._quiet:
      return
    self._last = message
    if self._live is not None:
      self._live.update(f'{self._heading()}  {self._line(message)}')
    elif message.eval and time.monotonic() >= self._next_line:
      self._next_line = time.monotonic() + _LINE_PERIOD_SEC
      self._say(self._line(message))

  def ended(self, outcome: Outcome) -> None:
    """Says how the trial ended; a quiet display says so only of a trial that did not finish."""
    if self._quiet and outcome.status == 'finished':
      return
    if self._quiet:
      _print(f'{self._heading()}\n{self._how_it_ended(outcome)}', sys.stderr)
      return
    if self._live is not None:
      self._live.stop()
      say(self._heading())
    if self._last:
      self._say(self._line(self._last))
    say(self._how_it_ended(outcome))

  def _how_it_ended(self, outcome: Outcome) -> str:
    word = _STATUS_WORDS[outcome.status]
    text = f'  {word}: {outcome.reason or outcome.stop_reason.replace("_", " ")}'
    file = outcome.folder / 'traceback.txt'
    is_there = outcome.status == 'failed' and file.exists()
    return f'{text}\n  The traceback is in {file}' if is_there else text

  def _say(self, line: str) -> None:
    if line != self._said:
      say(f'  {line}')
      self._said = line

  def _heading(self) -> str:
    return f'{self._count}{self._title}'

  def _line(self, state: Progress) -> str:
    parts = [f'step {state.global_step}', *self._metrics(state.metrics, state.global_step)]
    rules = self._rules
    seconds = state.submission_time
    if rules.axis == 'seconds' and rules.max_sec is not None:
      parts.append(f'{seconds:.1f} of {rules.max_sec:.0f} s')
      left: float | None = rules.max_sec - seconds
    else:
      end = rules.max_steps or rules.max_global_steps or 0
      parts.append(f'{state.charged_steps} of {end} steps in {seconds:.1f} s')
      rate = state.steps_per_sec
      left = (end - state.charged_steps) / rate if rate else None
    if left is not None:
      parts.append(f'at most {duration(max(0.0, left))} left')
    if state.steps_per_sec and state.batch_size:
      parts.append(f'{state.steps_per_sec * state.batch_size:,.0f} examples/s')
    return '  '.join(parts)

  def _metrics(self, values: Mapping[str, float], global_step: int) -> list[str]:
    """The last evaluation, with its step where that is not the present one."""
    target = self._target
    evaluated_at = values.get('global_step', global_step)
    when = '' if evaluated_at == global_step else f' at step {evaluated_at:.0f}'
    shown = []
    for split, target_value in (('validation', target.validation), ('test', target.test)):
      value = values.get(f'{split}/{target.metric}')
      if value is not None:
        aim = '' if target_value is None else f' (target {target_value:g})'
        shown.append(f'{split} {target.metric} {value:.4g}{when}{aim}')
    return shown


def title(config: TrialConfig) -> str:
  """What a trial is called in what users read."""
  where = f'{config.workload} ({config.framework})'
  return f'{config.submission} on {where}, study {config.study}, trial {config.trial}'


def duration(seconds: float) -> str:
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours} h {minutes} min'
  return f'{minutes} min {rest} s' if minutes else f'{rest} s'
