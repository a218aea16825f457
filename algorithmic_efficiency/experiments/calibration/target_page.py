"""Writes the record of a calibration for readers: a page, and lines to paste into a definition."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from algorithmic_efficiency.benchmark.definition import Target
from algorithmic_efficiency.experiments.calibration.target_setting import Record, Run, best
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
  target, budget = record.target, record.budget
  test = '' if target.test is None else f', test={target.test!r}'
  return [
    f'target=Target(metric={target.metric!r}, direction={target.direction!r}, '
    f'validation={target.validation!r}{test}),',
    f'Budget(step_hint={budget.step_hint:_}, max_steps={budget.max_steps:_})',
  ]


def page(record: Record) -> str:
  """Returns the record as Markdown."""
  metric, direction = record.target.metric, record.target.direction
  spaces = ', '.join(record.submissions)
  chosen = best(record.search, direction)
  lines = [
    f'# The target of {record.workload}, set with {record.framework}',
    '',
    f'    {record.command}',
    '',
    f'- Search: {record.num_trials} points of the space of each of {spaces}; '
    f'{record.step_budget} steps a trial, which schedules are stretched over and no target ends.',
    f'- Best point: {_point(chosen)}, of {chosen.submission} (trial {chosen.number}).',
    f'- Rerun: {record.num_seeds} seeds. Validation target: the median of the best values. Test '
    'target: of the runs that reach it, the worst of the best values.',
    f'- Budget: {record.budget_factor} times the steps of these runs.',
    f'- Before: {_target(record.present)}'
    + (', provisional.' if record.present.provisional else '.'),
    '',
    *(f'    {line}' for line in to_paste(record)),
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
    '## Search',
    '',
    *_table(
      ('submission', 'trial', f'best validation {metric}', f'best test {metric}', 'end', 'point'),
      [
        (run.submission, str(run.number), *_values(run), run.stop_reason, _point(run))
        for run in record.search
      ],
    ),
    '',
    '## Environment',
    '',
    *(f'- {line}' for line in _environment(record)),
  ]
  return '\n'.join(lines) + '\n'


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
