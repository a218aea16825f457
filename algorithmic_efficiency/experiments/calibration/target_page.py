"""Writes the record of a calibration for readers: a page, and lines to paste into a definition."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from algorithmic_efficiency.benchmark.definition import Target
from algorithmic_efficiency.experiments.calibration.target_setting import Protocol, Record, Run
from algorithmic_efficiency.experiments.calibration.timing import (
  MAX_RESOLUTION,
  MIN_EVALS,
  Timing,
)
from algorithmic_efficiency.results import files


def write(record: Record, path: Path) -> None:
  """Writes the record as JSON, and a page with the same name beside it.

  Raises:
    UserError: a file could not be written.
  """
  record.write(path)
  with files.replacing(path.with_suffix('.md')) as file:
    file.write(page(record).encode())


def to_paste(record: Record) -> list[str]:
  """Returns the lines of a definition with the calibrated target and budget."""
  target, budget = record.target, record.protocol.budget
  test = '' if target.test is None else f', test={target.test!r}'
  return [
    f'target=Target(metric={target.metric!r}, direction={target.direction!r}, '
    f'validation={target.validation!r}{test}),',
    f'Budget(step_hint={budget.step_hint:_}, max_steps={budget.max_steps:_}, '
    f'eval_period_steps={budget.eval_period_steps:_})',
  ]


def verdict(record: Record) -> list[str]:
  """Returns whether the target is accepted and why, a sentence each."""
  if record.faults:
    return ['The target is not accepted.', *record.faults]
  found = ['The target is accepted.']
  if record.agreement is not None:
    found.append(record.agreement.sentence)
  return found


def page(record: Record) -> str:
  """Returns the record as Markdown."""
  metric, protocol = record.target.metric, record.protocol
  chosen, budget = record.chosen, protocol.budget
  lines = [
    f'# The target of {record.workload}, set with {record.framework}',
    '',
    f'    {record.command}',
    '',
    f'- {_search(record)}',
    f'- Best point: {_point(chosen)}, of {chosen.submission} (trial {chosen.number}).',
    f'- Rerun: {protocol.num_seeds} seeds. {_meaning(record)}',
    f'- Evaluations: every {protocol.eval_period_steps} steps, as in a race.',
    f'- Step hint: {budget.step_hint} steps, 4/3 of those of these runs. Budget: '
    f'{budget.max_steps} steps, {protocol.budget_factor} times as many.',
    f'- Before: {_target(record.present)}'
    + (', provisional.' if record.present.provisional else '.'),
    '',
    *(f'    {line}' for line in to_paste(record)),
    '',
    ' '.join(verdict(record)),
    '',
    '## Rerun',
    '',
    *_table(
      ('seed', f'best validation {metric}', f'best test {metric}', 'reached at step', 'end'),
      [
        (str(run.number), *_values(run), str(run.best_step), run.stop_reason)
        for run in record.reruns
      ],
    ),
    '',
  ]
  if record.timing is not None:
    lines += [*_timing(record.timing, protocol), '']
  if record.search:
    lines += ['## Search', '', *_runs(record), '']
  return '\n'.join(
    [*lines, '## Environment', '', *(f'- {line}' for line in _environment(record)), '']
  )


def _search(record: Record) -> str:
  protocol = record.protocol
  steps = f'{protocol.step_budget} steps a trial, which schedules span and no target ends.'
  if not record.search:
    return f'Search: that of the other framework; {steps}'
  if record.from_record:
    return (
      f'Search: the best point of the record, of {protocol.submissions[0]}, and the same with half '
      f'and twice its learning rate; {steps}'
    )
  spaces = ', '.join(protocol.submissions)
  return f'Search: {protocol.num_trials} points of the space of each of {spaces}; {steps}'


def _meaning(record: Record) -> str:
  if record.agreement is not None:
    return 'The seeds and the target are those of the other framework.'
  return (
    'Validation target: the median of the best values. Test target: of the runs that reach it, '
    'the worst of the best values.'
  )


def _timing(timing: Timing, protocol: Protocol) -> list[str]:
  """Returns the section with the tests that a target has to pass."""
  steps = ', '.join('not reached' if step is None else str(step) for step in timing.steps)
  variation = timing.variation
  rows = [
    ('evaluations until the target is reached', f'{timing.num_evals}', f'at least {MIN_EVALS}'),
    (
      f'{_resolution(timing)}, over the spread over seeds',
      f'{timing.resolution:.3g} / {timing.spread:.3g}',
      f'below {MAX_RESOLUTION:g}',
    ),
    (
      'variation of the time to target over seeds',
      '-' if variation is None else f'{variation:.1%}',
      f'at most {protocol.max_variation:.0%}',
    ),
  ]
  return [
    '## Time to target',
    '',
    f'Steps of {len(timing.steps)} other seeds, whose schedules span the step hint: {steps}.',
    '',
    *_table(('test', 'value', 'accepted'), rows),
  ]


def _resolution(timing: Timing) -> str:
  size = timing.validation_size
  if size is None:
    return 'least difference of two values'
  return (
    f'what one of {size.num_examples:,} validation examples, with {size.num_parts:,} parts, moves '
    'the metric by'
  )


def _runs(record: Record) -> list[str]:
  metric = record.target.metric
  return _table(
    ('submission', 'trial', f'best validation {metric}', f'best test {metric}', 'end', 'point'),
    [
      (run.submission, str(run.number), *_values(run), run.stop_reason, _point(run))
      for run in record.search
    ],
  )


def _target(target: Target) -> str:
  test = '' if target.test is None else f', test {target.test:g}'
  return f'{target.metric} {target.validation:g} on validation{test}'


def _values(run: Run) -> list[str]:
  both = (run.best_validation, run.best_test)
  return ['-' if value is None else f'{value:.6g}' for value in both]


def _point(run: Run) -> str:
  return ', '.join(
    f'{name} {value:.4g}' if isinstance(value, float) else f'{name} {value}'
    for name, value in run.point.items()
  )


def _environment(record: Record) -> list[str]:
  return [
    '; '.join(f'{name}: {value}' for name, value in facts.items()) for facts in record.environment
  ]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  lines = [header, ['---'] * len(header), *rows]
  return [f'| {" | ".join(line)} |' for line in lines]
