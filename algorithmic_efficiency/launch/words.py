"""Says in words how trials get on and how they end, for lines and for the live view."""

from __future__ import annotations

import math
from typing import Literal

from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.launch.progress import duration, title
from algorithmic_efficiency.launch.tally import Left, Tally, Timing
from algorithmic_efficiency.results.trial_record import StopReason
from algorithmic_efficiency.trial.messages import Progress

_ENDINGS: dict[StopReason | Literal[''], str] = {
  'targets_reached': 'reached',
  'validation_target_reached': 'reached',
  'budget_spent': 'out of budget',
  'training_complete': 'stopped by itself',
  'step_limit': 'at the step limit',
  'diverged': 'diverged',
}
_MINUTE, _HOUR = 60, 3600
_ROUND_SEC = (
  *(5, 10, 15, 20, 30, 45, 60, 90),
  *(minutes * _MINUTE for minutes in (2, 3, 4, 5, 7, 10, 15, 20, 30, 45, 60, 90)),
  *(hours * _HOUR for hours in (2, 3, 4, 6, 8, 12, 18, 24)),
)
_UNITS = {'h': _HOUR, 'min': _MINUTE, 's': 1}
_FEWEST = 2  # of a unit; below, the next smaller one is taken


def time_left(left: Left | None) -> str:
  """A range of round numbers that holds both bounds."""
  if left is None:
    return 'time left unknown'
  low, high = _round_down(left.low), _round_up(left.high)
  if not low:
    return f'at most {_amount(high)} left'
  if low == high:
    return f'about {_amount(high)} left'
  (few, unit), (many, other) = _parts(low), _parts(high)
  return (
    f'{few} to {many} {unit} left' if unit == other else (f'{few} {unit} to {many} {other} left')
  )


def _round_down(seconds: float) -> float:
  if seconds > _ROUND_SEC[-1]:
    return math.floor(seconds / _ROUND_SEC[-1]) * _ROUND_SEC[-1]
  return max((one for one in _ROUND_SEC if one <= seconds), default=0)


def _round_up(seconds: float) -> float:
  if seconds > _ROUND_SEC[-1]:
    return math.ceil(seconds / _ROUND_SEC[-1]) * _ROUND_SEC[-1]
  return min(one for one in _ROUND_SEC if one >= seconds)


def _parts(seconds: float) -> tuple[str, str]:
  unit, size = next(
    (name, size) for name, size in _UNITS.items() if seconds >= _FEWEST * size or size == 1
  )
  return f'{seconds / size:g}', unit


def _amount(seconds: float) -> str:
  return ' '.join(_parts(seconds))


def cause(outcome: Outcome) -> str:
  """Says why a trial has not finished."""
  word = outcome.status.upper()
  return f'{word}: {outcome.reason or outcome.stop_reason.replace("_", " ")}'


def traceback_line(outcome: Outcome) -> str:
  """Says where the traceback of a failed trial is; empty if there is none."""
  file = outcome.folder / 'traceback.txt'
  is_there = outcome.status == 'failed' and file.exists()
  return f'  The traceback is in {file}' if is_there else ''


def ending(tally: Tally, index: int) -> str:
  """Says how a trial has ended: in a word, and with its steps to the target or its last value."""
  outcome = tally.outcome(index)
  assert outcome is not None
  if outcome.status != 'finished':
    return cause(outcome)
  steps = tally.steps_to_target(index)
  word = _ENDINGS.get(outcome.stop_reason, outcome.stop_reason.replace('_', ' '))
  if not math.isfinite(steps):
    return word
  what = 'reached' if word == 'reached' else f'{word}, the validation target reached'
  return f'{what} after {steps:,.0f} steps'


def ended_line(tally: Tally, index: int) -> str:
  """Says how a trial ended, and how far the command has come."""
  total = tally.total()
  ended = total['done'] + total['failed']
  left = '' if ended == len(tally.configs) else f'; {time_left(tally.left())}'
  return (
    f'[{ended}/{len(tally.configs)}] {title(tally.configs[index])}: {ending(tally, index)}, '
    f'{duration(tally.elapsed(index))}{left}'
  )


def running_lines(tally: Tally) -> list[str]:
  """Says how far each running job is, a line each."""
  lines = []
  for job in tally.running:
    index = tally.trial(job)
    if index is None:
      lines.append(f'{timing(tally.timing(job))}, {duration(tally.age(job))}')
    else:
      phase = tally.running_of(index).phase
      parts = (phase, steps(tally, index), metric(tally, index), speed(tally, index))
      lines.append(f'{title(tally.configs[index])}: {", ".join(filter(None, parts))}')
  return lines


def timing(one: Timing | None) -> str:
  assert one is not None
  return f'timing step costs on {one.workload} ({one.framework}), study {one.study}'


def steps(tally: Tally, index: int) -> str:
  """Says how much of its budget a running trial has spent; empty before its first step."""
  share = tally.share(index)
  if share is None:
    return ''
  spent, budget, unit = share
  return f'{spent:,.0f} of {budget:,.0f} {unit}' if budget else f'{spent:,.0f} {unit}'


def metric(tally: Tally, index: int) -> str:
  """Says the last validation value of a running trial, and the target; empty before the first."""
  target = tally.target(index)
  found = value(tally, index)
  if found is None:
    return ''
  message = tally.running_of(index).message
  assert message is not None
  when = _evaluated_at(message)
  return f'validation {target.metric} {found:.4g}{when} (target {target.validation:.4g})'


def value(tally: Tally, index: int) -> float | None:
  """The last validation value of a running trial; None before the first."""
  message = tally.running_of(index).message
  if message is None:
    return None
  return message.metrics.get(f'validation/{tally.target(index).metric}')


def _evaluated_at(message: Progress) -> str:
  """The step of the last evaluation, where it is not the present one."""
  step = message.metrics.get('global_step', message.global_step)
  return '' if step == message.global_step else f' at step {step:.0f}'


def speed(tally: Tally, index: int) -> str:
  """Says how fast a running trial is; empty where that is not known."""
  message = tally.running_of(index).message
  if message is None or not (message.steps_per_sec and message.batch_size):
    return ''
  return f'{message.steps_per_sec * message.batch_size:,.0f} examples/s'


def kept(tally: Tally) -> str:
  """Says what an interrupt leaves."""
  total = tally.total()
  ended = total['done'] + total['failed']
  text = f'Interrupted: {ended} of {len(tally.configs)} trials have ended and are kept.'
  if total['running']:
    is_saved = all(config.options.save_checkpoints for config in tally.configs)
    how = 'go on from their last evaluation' if is_saved else 'start again, without checkpoints'
    text += f' Trials that were running ({total["running"]}) {how}.'
  return text
