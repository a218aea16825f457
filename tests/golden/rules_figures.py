"""Writes the tables of RULES.md and README.md from suites, definitions and errors: `make rules`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.check_rules import KINDS
from algorithmic_efficiency.benchmark.definition import Budget, Target, WorkloadDefinition
from algorithmic_efficiency.benchmark.suites import SUITES, Ruleset, Suite

ROOT = Path(__file__).resolve().parents[2]
_AXES = {'seconds': 'seconds', 'cost_adjusted_steps': 'cost-adjusted steps'}


def updated(page: str, text: str) -> str:
  """The text of a page with each marker followed by its table, whatever stood there before."""
  for marker, rows in TABLES[page].items():
    block = re.compile(rf'<!-- {marker} -->\n(?:.*?<!-- end of {marker} -->\n)?', re.DOTALL)
    if not block.search(text):
      raise ValueError(f'{page} has lost its marker <!-- {marker} -->.')
    table = '\n'.join(rows())
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


def runs() -> Iterator[str]:
  """What of each suite can be raced, what awaits a target, and what has no code yet."""
  suites_of: dict[tuple[str, ...], list[str]] = {}
  for suite in SUITES.values():
    suites_of.setdefault(tuple(map(_names, _by_state(suite.name))), []).append(suite.name)
  yield from _table(
    ('suites', 'run, target set', 'run, target not calibrated', 'only defined'),
    [(_names(names), *states) for states, names in suites_of.items()],
  )


def _by_state(suite_name: str) -> tuple[list[str], list[str], list[str]]:
  scored, provisional, defined = [], [], []
  for name, definition in registry.members(suite_name).items():
    if definition.suites[suite_name].role != 'base':
      continue
    if not registry.is_runnable(definition):
      defined.append(name)
    elif definition.target.provisional:
      provisional.append(name)
    else:
      scored.append(name)
  return scored, provisional, defined


def _names(names: Sequence[str]) -> str:
  return ', '.join(f'`{name}`' for name in names) or 'none'


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


TABLES: Mapping[str, Mapping[str, Callable[[], Iterator[str]]]] = {
  'RULES.md': {'suites': suites, 'checks': checks, 'budgets': budgets},
  'README.md': {'runs': runs},
}

if __name__ == '__main__':
  for name in TABLES:
    (ROOT / name).write_text(updated(name, (ROOT / name).read_text()))
