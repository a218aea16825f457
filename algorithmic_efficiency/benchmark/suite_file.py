"""Reads a suite that a user wrote: turns its TOML file into a `Suite`.

A field that the file leaves out is taken from the workload's definition. `algoeff new suite` writes
a file that has every field, with a comment on each.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import text_file
from algorithmic_efficiency.benchmark.definition import (
  Budget,
  Role,
  Target,
  WorkloadDefinition,
)
from algorithmic_efficiency.benchmark.suites import (
  SUITES,
  Axis,
  Integral,
  Ruleset,
  Suite,
  Tuning,
)

NAME = re.compile(r'[a-z][a-z0-9_]*')

_TYPE_NAMES = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text'}
_SUITE_FIELDS: Mapping[str, type] = {
  'name': str,
  'title': str,
  'axis': str,
  'hardware': str,
  'num_accelerators': int,
  'stop_on_divergence': bool,
  'free_init_sec': float,
  'running_average_bn': bool,
  'max_ratio': float,
  'integral': str,
  'baselines': list,
  'rulesets': dict,
  'workloads': dict,
}
_RULESET_FIELDS: Mapping[str, type] = {'studies': int, 'trials': int, 'budget_factor': float}
_BUDGET_FIELDS: Mapping[str, type] = {
  'step_hint': int,
  'max_steps': int,
  'eval_period_steps': int,
  'max_sec': float,
  'eval_period_sec': float,
}
_WORKLOAD_FIELDS: Mapping[str, type] = {
  **_BUDGET_FIELDS,
  'like': str,
  'role': str,
  'batch_size': int,
  'eval_batch_size': int,
  'target': dict,
}
_LARGEST = 2**53  # floats, which they meet, tell whole numbers apart up to here
_FORMER_FIELDS = {'goal': 'target'}
_TARGET_FIELDS: Mapping[str, type] = {'validation': float, 'test': float, 'provisional': bool}
# The fields of a budget that each axis needs, and those that only the other axis reads.
_NEEDED = {
  'seconds': ('step_hint', 'max_sec', 'eval_period_sec'),
  'cost_adjusted_steps': ('step_hint', 'max_steps', 'eval_period_steps'),
}
_FOREIGN = {
  'seconds': ('max_steps', 'eval_period_steps'),
  'cost_adjusted_steps': ('max_sec', 'eval_period_sec'),
}


def _by_current_names(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
  for former, name in _FORMER_FIELDS.items():
    if former in fields and name not in fields:
      errors.renamed(f'{where}: the field {former!r}', repr(name))
      fields = {name: fields[former]} | {key: fields[key] for key in fields if key != former}
  return dict(fields)


def is_file(text: str) -> bool:
  """Returns True if `text` is the path of a suite file and not the name of a suite."""
  return text.endswith('.toml')


def load(path: Path | str, definitions: Mapping[str, WorkloadDefinition]) -> Suite:
  """Reads and validates a suite file.

  Args:
    path: the TOML file.
    definitions: workloads that the file may name, by name.

  Raises:
    UserError: the file cannot be read, or a field is invalid; the message names the field.
  """
  path = Path(path).expanduser().resolve()
  top = _Table.read(path)
  top.require('name', 'title', 'axis', 'hardware', 'rulesets', 'workloads')
  name = top.fields['name']
  if not NAME.fullmatch(name):
    raise top.wrong(
      'name', 'lower case letters, digits and underscores, beginning with a letter', name
    )
  if name in SUITES:
    raise errors.UserError(
      f'{path}: the name of a suite must be unique; {name!r} is a built-in suite. Choose another '
      'name.'
    )
  if top.fields.get('max_ratio', Suite.max_ratio) <= 1:  # the score divides by what is above 1
    raise top.wrong('max_ratio', 'above 1', top.fields['max_ratio'])
  axis = top.choice('axis', get_args(Axis))
  optional = (
    'num_accelerators',
    'stop_on_divergence',
    'free_init_sec',
    'running_average_bn',
    'max_ratio',
  )
  return Suite(
    name=name,
    title=top.fields['title'],
    axis=axis,
    hardware=top.fields['hardware'],
    tuning=_tuning(top),
    integral=top.choice('integral', get_args(Integral), 'exact'),
    file=str(path),
    baselines=_baselines(top),
    workloads=_workloads(top, axis, definitions),
    **top.given(*optional),
  )


def _tuning(top: _Table) -> dict[Ruleset, Tuning]:
  found: dict[Ruleset, Tuning] = {}
  rulesets = get_args(Ruleset)
  for name, table in top.tables('rulesets', _RULESET_FIELDS, 'ruleset', rulesets).items():
    table.require('studies')
    if name == 'self' and table.fields.get('trials', 1) != 1:
      raise table.wrong('trials', '1 under self tuning', table.fields['trials'])
    found[name] = Tuning(  # type: ignore[index]
      num_studies=table.fields['studies'],
      num_trials=table.fields.get('trials', 1),
      **table.given('budget_factor'),
    )
  return found


def _baselines(top: _Table) -> tuple[str, ...]:
  names = top.fields.get('baselines', Suite.baselines)
  if not all(isinstance(name, str) for name in names):
    raise top.wrong('baselines', 'a list of names of submissions', names)
  return tuple(names)


def _workloads(
  top: _Table, axis: Axis, definitions: Mapping[str, WorkloadDefinition]
) -> dict[str, WorkloadDefinition]:
  suite = top.fields['name']
  found = {}
  tables = top.tables('workloads', _WORKLOAD_FIELDS, 'workload', definitions)
  for name, table in tables.items():
    definition = definitions[name]
    found[name] = dataclasses.replace(
      definition,
      target=_target(table, definition.target),
      batch_sizes=dataclasses.replace(
        definition.batch_sizes,
        train=table.fields.get('batch_size', definition.batch_sizes.train),
        eval=table.fields.get('eval_batch_size', definition.batch_sizes.eval),
      ),
      suites={suite: _budget(table, axis, definition)},
    )
    if found[name].batch_sizes.train > definition.splits.train:
      raise table.wrong(
        'batch_size',
        f'at most the {definition.splits.train} examples of {name}',
        found[name].batch_sizes.train,
      )
  for name, definition in found.items():
    held_out = definition.suites[suite].role == 'held_out'
    if held_out and (not definition.is_variant or definition.base not in found):
      raise tables[name].wrong(
        'role', 'held_out only for a variant whose base is in the suite, too', 'held_out'
      )
  if all(one.suites[suite].role != 'base' for one in found.values()):
    raise errors.UserError(f"{top.where}: a suite needs a workload whose role is 'base'.")
  return found


def _target(table: _Table, target: Target) -> Target:
  """Returns the target in the file, else that of the definition.

  A target of the file's own is provisional only if the file says so.
  """
  if 'target' not in table.fields:
    return target
  own = _Table(f'{table.where}.target', table.fields['target'], _TARGET_FIELDS)
  if 'test' in own.fields and target.test is None:
    raise own.wrong('test', 'left out, because the workload has no test target', own.fields['test'])
  changed = {name: own.fields[name] for name in own.fields if name != 'provisional'}
  provisional = own.fields.get('provisional', target.provisional and not changed)
  return dataclasses.replace(target, **changed, provisional=provisional)


def _budget(table: _Table, axis: Axis, definition: WorkloadDefinition) -> Budget:
  given = {name: table.fields[name] for name in _BUDGET_FIELDS if name in table.fields}
  for name in _FOREIGN[axis]:
    if name in given:
      raise table.wrong(name, f'left out of a suite that races in {axis}', given[name])
  base = _model_budget(table, axis, definition)
  fields = {name: getattr(base, name) for name in _NEEDED[axis]} if base else {}
  if 'max_steps' in given:  # hint and period are derived from the new budget
    fields = {'step_hint': given['max_steps']}
  fields |= given
  role = table.choice('role', get_args(Role), 'base')
  missing = [name for name in _NEEDED[axis] if name not in fields and name != 'eval_period_steps']
  if missing:
    raise errors.UserError(
      f'{table.where}: {definition.name} has no budget in {axis} of its own, so the file must give '
      f'{", ".join(missing)}.'
    )
  budget = Budget(**fields, role=role)
  if axis == 'seconds':
    period, whole, names = budget.eval_period_sec, budget.max_sec, ('eval_period_sec', 'max_sec')
  else:
    period, whole = budget.eval_period_steps, budget.max_steps
    names = ('eval_period_steps', 'max_steps')
  assert period is not None and whole is not None
  if period > whole:
    raise errors.UserError(
      f'{table.where}: an evaluation period must fit into the budget; {names[0]} is {period:g} and '
      f'{names[1]} is {whole:g}. Make the period shorter.'
    )
  return budget


def _model_budget(table: _Table, axis: Axis, definition: WorkloadDefinition) -> Budget | None:
  """Returns the budget that fills in the fields that the file leaves out."""
  whole = 'max_sec' if axis == 'seconds' else 'max_steps'
  usable = {
    name: budget for name, budget in definition.suites.items() if getattr(budget, whole) is not None
  }
  if 'like' in table.fields:
    return usable[table.choice('like', tuple(usable))]
  return next(iter(usable.values()), None)


@dataclass(frozen=True)
class _Table:
  """A table of the file, with fields of known names and valid types."""

  where: str  # path of the file and keys of the table, for messages
  fields: Mapping[str, Any]
  types: Mapping[str, type]

  def __post_init__(self) -> None:
    for name, value in self.fields.items():
      if name not in self.types:
        raise errors.UserError(f'{self.where}: {errors.unknown("field", name, self.types)}')
      self._check(name, value)

  def _check(self, name: str, value: Any) -> None:
    kind = self.types[name]
    if kind is dict or kind is list:
      if not isinstance(value, kind) or not value:
        what = 'a nonempty table' if kind is dict else 'a nonempty list'
        raise self.wrong(name, what, value)
      return
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
      raise self.wrong(name, _TYPE_NAMES[kind], value)
    if kind in (int, float) and not abs(value) <= _LARGEST:  # nor is nan
      raise self.wrong(name, 'finite and at most 2^53', value)
    if kind in (int, float) and value <= 0 and self.types is not _TARGET_FIELDS:
      raise self.wrong(name, 'positive', value)
    if kind is str and not value.strip():
      raise self.wrong(name, 'nonempty text', value)

  @classmethod
  def read(cls, path: Path) -> _Table:
    text = text_file.read(path, 'The suite file', 'algoeff new suite NAME')
    try:
      content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
      raise errors.UserError(f'A suite file must be TOML; {path} is not: {error}.') from None
    return cls(str(path), content, _SUITE_FIELDS)

  def wrong(self, name: str, must: str, found: Any) -> errors.UserError:
    return errors.UserError(f'{self.where}: {name} must be {must}; it is {errors.shown(found)}.')

  def require(self, *names: str) -> None:
    missing = [name for name in names if name not in self.fields]
    if missing:
      raise errors.UserError(
        f'{self.where}: missing fields: {", ".join(missing)}. `algoeff new suite NAME` writes a '
        'file that has every field.'
      )

  def given(self, *names: str) -> dict[str, Any]:
    return {name: self.fields[name] for name in names if name in self.fields}

  def choice(self, name: str, choices: tuple[str, ...], default: str = '') -> Any:
    value = self.fields.get(name, default)
    if value not in choices:
      raise errors.UserError(
        f'{self.where}: {errors.unknown(f"choice for {name}", value, choices)}'
      )
    return value

  def tables(
    self, name: str, types: Mapping[str, type], kind: str, choices: Any
  ) -> dict[str, _Table]:
    """Returns the tables within field `name`, by their keys.

    Args:
      name: field whose value is a table of tables.
      types: type of each field of the inner tables.
      kind: what a key names, for the message.
      choices: valid keys.

    Raises:
      UserError: a key is not among `choices`, or its value is not a table.
    """
    found = {}
    for key, fields in self.fields[name].items():
      if key not in choices:
        raise errors.UserError(f'{self.where}, {name}: {errors.unknown(kind, key, choices)}')
      if not isinstance(fields, dict):
        raise self.wrong(f'{name}.{key}', 'a table', fields)
      where = f'{self.where}, {name}.{key}'
      found[key] = _Table(where, _by_current_names(fields, where), types)
    return found
