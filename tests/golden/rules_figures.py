"""Writes the tables of RULES.md from the suites, definitions and errors: `make rules`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.check_rules import KINDS
from algorithmic_efficiency.benchmark.definition import Budget, Target, WorkloadDefinition
from algorithmic_efficiency.benchmark.suites import SUITES, Ruleset, Suite

RULES = Path(__file__).resolve().parents[2] / 'RULES.md'
_AXES = {'seconds': 'seconds', 'cost_adjusted_steps': 'cost-adjusted steps'}


def updated(text: str) -> str:
  """The text with each marker followed by its table, whatever stood there before."""
  tables = {'suites': suites(), 'checks': checks(), 'budgets': budgets()}
  for marker, lines in tables.items():
    block = re.compile(rf'<!-- {marker} -->\n(?:.*?<!-- end of {marker} -->\n)?', re.DOTALL)
    if not block.search(text):
      raise ValueError(f'{RULES.name} has lost its marker <!-- {marker} -->.')
    table = '\n'.join(lines)
    fresh = f'<!-- {marker} -->\n\n{table}\n\n<!-- end of {marker} -->\n'
    text = block.sub(lambda _, fresh=fresh: fresh, text, count=1)
  return text


def suites() -> Iterator[str]:
  yield from _table(
    (
      *('suite', 'axis', 'hardware', 'external: studies x trials', 'self: studies'),
      *(
        'budget factor of self',
        'free initialization',
        'heartbeat timeout',
        'miss factor',
        'profile',
      ),
    ),
    [
      (
        f'`{suite.name}`',
        _AXES[suite.axis],
        suite.hardware,
        f'{suite.tuning["external"].num_studies} x {suite.tuning["external"].num_trials}',
        f'{suite.tuning["self"].num_studies}',
        f'{suite.tuning["self"].budget_factor:g}',
        f'{suite.free_init_sec:g} s',
        f'{suite.heartbeat_timeout_sec:g} s',
        f'{suite.max_ratio:g}',
        suite.integral,
      )
      for suite in SUITES.values()
    ],
  )


def budgets() -> Iterator[str]:
  for index, suite in enumerate(SUITES.values()):
    members = registry.members(suite.name)
    base = {name: d for name, d in members.items() if d.suites[suite.name].role == 'base'}
    if index:
      yield ''
    without = ', held-out workloads apart' if len(base) < len(members) else ''
    yield f'**`{suite.name}`**: {suite.title}. {_runs(suite, len(base))}{without}.'
    yield ''
    rows = [_row(definition, definition.suites[suite.name]) for definition in members.values()]
    yield from _table(
      (
        'workload',
        'metric',
        'validation target',
        'test target',
        'budget',
        'evaluated every',
        'step hint',
      ),
      rows,
    )


def checks() -> Iterator[str]:
  rows = [
    (f'`{name}`', kind.severity, kind.found_by, f'It {kind.what}.', kind.remedy)
    for name, kind in KINDS.items()
  ]
  yield from _table(('id', 'is', 'found by', 'what', 'remedy'), rows)


def _runs(suite: Suite, num_workloads: int) -> str:
  def trials(ruleset: Ruleset) -> int:
    tuning = suite.tuning[ruleset]
    return tuning.num_studies * tuning.num_trials * num_workloads

  return (
    f'{trials("external")} trials a submission under external tuning, {trials("self")} under self'
  )


def _row(definition: WorkloadDefinition, budget: Budget) -> tuple[str, ...]:
  held_out = f' (held out, of `{definition.base}`)' if budget.role == 'held_out' else ''
  if budget.max_sec is not None:
    spent, period = f'{budget.max_sec:,.0f} s', f'{budget.eval_period_sec:,.0f} s'
  else:
    spent, period = f'{budget.max_steps:,} steps', f'{budget.eval_period_steps:,} steps'
  target = definition.target
  return (
    f'`{definition.name}`{held_out}',
    target.metric,
    _target(target, target.validation),
    _target(target, target.test),
    spent,
    period,
    f'{budget.step_hint:,}',
  )


def _target(target: Target, value: float | None) -> str:
  if value is None:
    return 'none'
  sign = '≥' if target.direction == 'max' else '≤'
  return f'{sign} {value:.10g}{" (provisional)" if target.provisional else ""}'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
  for row in (header, ['---'] * len(header), *rows):
    yield f'| {" | ".join(row)} |'


if __name__ == '__main__':
  RULES.write_text(updated(RULES.read_text()))
