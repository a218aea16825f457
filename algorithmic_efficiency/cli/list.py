"""Lists what there is: workloads, variants, submissions, suites, data sets, parameters.

Example: algoeff list parameters mnist --framework jax
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from algorithmic_efficiency import backends, errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Target, WorkloadDefinition
from algorithmic_efficiency.benchmark.suites import Suite, Tuning
from algorithmic_efficiency.cli import _flags
from algorithmic_efficiency.compat.frameworks import written_for
from algorithmic_efficiency.spec import MatrixView
from algorithmic_efficiency.trial.run_options import RunOptions

SUMMARY = 'list workloads, variants, submissions, suites, data sets or parameters'


def arguments(parser: _flags.Parser) -> None:
  things = parser.add_subparsers(dest='what', metavar='WHAT', required=True)
  _thing(things, 'workloads', 'list base workloads: frameworks, target, suites')
  _thing(things, 'variants', 'list variants of workloads: frameworks, target, suites')
  _thing(things, 'submissions', 'list submissions: ruleset, frameworks, search space')
  suites = _thing(
    things, 'suites', 'list suites: axis, hardware, rulesets, workloads that are ready'
  )
  _flags.add(
    suites,
    'suite',
    group=_flags.FOLDERS,
    action='append',
    default=[],
    metavar='FILE.toml',
    help='also list a suite of your own (repeatable)',
  )
  data = _thing(things, 'data', 'list data sets: folder, size, license, workloads')
  _flags.add_options(data, RunOptions, only=('data_dir',))
  parameters = _thing(
    things, 'parameters', 'list every parameter: name, shape, type, role, matrices'
  )
  parameters.add_argument('workload', metavar='WORKLOAD', help='workload with the model')
  _flags.add(parameters, 'framework', required=True, help='framework of the model')


def _thing(things: Any, name: str, text: str) -> _flags.Parser:
  parser = things.add_parser(name, help=text, description=text)
  _flags.add(parser, 'path', 'workload_path', 'json')
  return parser


def run(args: argparse.Namespace) -> int:
  if args.what == 'data':
    from algorithmic_efficiency.cli import data

    return data.run(argparse.Namespace(**{**vars(args), 'action': 'list'}))
  _flags.find_own(args)
  entries = {
    'workloads': lambda: _workloads(variants=False),
    'variants': lambda: _workloads(variants=True),
    'submissions': _submissions,
    'suites': lambda: _suites(args.suite),
    'parameters': lambda: _parameters(args.workload, args.framework),
  }[args.what]()
  if args.json:
    print(json.dumps(entries, indent=2))
  else:
    print(errors.printable('\n'.join(_LINES[args.what](entries))))
  return 0


def _workloads(*, variants: bool) -> list[dict[str, Any]]:
  return [
    {
      'name': definition.name,
      'task': definition.task,
      'base': definition.base,
      'summary': definition.summary,
      'frameworks': _frameworks(definition),
      'problem': _problem(definition),
      'target': _target(definition.target),
      'probes': {name: probe.summary for name, probe in definition.probes.items()},
      'parameters': _counts(definition),
      'dataset': definition.dataset,
      'bundled': definition.bundled,
      'suites': {name: budget.role for name, budget in definition.suites.items()},
    }
    for definition in registry.workloads().values()
    if definition.is_variant == variants
  ]


def _frameworks(definition: WorkloadDefinition) -> list[str]:
  return [name for name in backends.FRAMEWORKS if registry.is_runnable(definition, name)]


def _counts(definition: WorkloadDefinition) -> dict[str, int] | None:
  """Total and active parameters, where the record of the model knows them without a framework."""
  if not hasattr(definition.model, 'num_parameters'):
    return None
  counts = definition.model.num_parameters(definition.data)
  return {'total': counts.total, 'active': counts.active}


def _problem(definition: WorkloadDefinition) -> str:
  """Says why code that is there cannot be used in any framework; '' if it can, or if none is."""
  if definition.smoke is None or registry.is_runnable(definition):
    return ''
  return registry.obstacle(definition, backends.FRAMEWORKS[0])


def _target(target: Target) -> dict[str, Any]:
  return {
    'metric': target.metric,
    'direction': target.direction,
    'validation': target.validation,
    'test': target.test,
    'provisional': target.provisional,
  }


def _submissions() -> list[dict[str, Any]]:
  return [
    {
      'name': entry.name,
      'ruleset': entry.ruleset,
      'frameworks': _written_for(entry),
      'tuning_search_space': entry.tuning_search_space is not None,
      'folder': str(entry.folder),
    }
    for entry in registry.submissions().values()
  ]


def _written_for(entry: registry.SubmissionFolder) -> list[str]:
  files = {framework: entry.file(framework) for framework in entry.frameworks}
  return [one for one, file in files.items() if file and one in written_for(file)]


def _suites(files: Sequence[str]) -> list[dict[str, Any]]:
  for file in files:
    registry.suite(file)
  return [_suite(suite) for suite in registry.suites().values()]


def _suite(suite: Suite) -> dict[str, Any]:
  """A suite; `ready` of its workloads can run today, towards targets that are not provisional."""
  members = registry.members(suite.name)
  roles: dict[str, list[str]] = {'base': [], 'held_out': []}
  for name, definition in members.items():
    roles[definition.suites[suite.name].role].append(name)
  return {
    'name': suite.name,
    'title': suite.title,
    'axis': suite.axis,
    'hardware': suite.hardware,
    'rulesets': {name: _tuning(tuning) for name, tuning in suite.tuning.items()},
    'workloads': roles['base'],
    'held_out': roles['held_out'],
    'ready': [
      name
      for name in roles['base']
      if registry.is_runnable(members[name]) and not members[name].target.provisional
    ],
  }


def _tuning(tuning: Tuning) -> dict[str, Any]:
  return {
    'studies': tuning.num_studies,
    'trials': tuning.num_trials,
    'budget_factor': tuning.budget_factor,
  }


def _parameters(workload: str, framework: str) -> list[dict[str, Any]]:
  from algorithmic_efficiency.backends.base import TaskCode
  from algorithmic_efficiency.launch import request

  definition = registry.workload(workload)
  obstacle = registry.obstacle(definition, framework)
  if obstacle:
    raise errors.UserError(f'{obstacle} `algoeff list workloads` says which workloads can run.')
  request.check_installed(framework)
  code = TaskCode.of(definition, framework)
  return [
    {
      'name': one.name,
      'shape': list(one.shape),
      'type': one.type.name,
      'role': one.role.value,
      'frozen': one.is_frozen,
      'matrices': _matrices(one.matrix_view),
      'size': math.prod(one.shape),
    }
    for one in backends.module(framework).parameters(definition, code)
  ]


def _matrices(view: MatrixView) -> list[int]:
  """[num_matrices, rows, columns]; empty for what is no matrix."""
  return [view.num_matrices, view.rows, view.columns] if view else []


def _workload_lines(entries: Sequence[dict[str, Any]]) -> list[str]:
  rows = [
    (
      entry['name'],
      entry['task'],
      ', '.join(entry['frameworks']) or '-',
      _target_text(entry['target']),
      ', '.join(name for name, role in entry['suites'].items() if role != 'extra') or '-',
    )
    for entry in entries
  ]
  lines = _table(('NAME', 'TASK', 'RUNS ON', 'TARGET', 'SUITES'), rows)
  if any(entry['target']['provisional'] for entry in entries):
    lines.append('A target with a ? is provisional: it has not been calibrated, and is not scored.')
  for entry in entries:
    for name, summary in entry['probes'].items():
      lines.append(f'{entry["name"]} has the probe {name}{summary and f": {summary}"}')
  for entry in entries:
    if counts := entry['parameters']:
      lines.append(
        f'{entry["name"]} has {counts["total"]:,} parameters, {counts["active"]:,} active for a '
        'token'
      )
  lines += dict.fromkeys(entry['problem'] for entry in entries if entry['problem'])
  return lines


def _target_text(target: dict[str, Any]) -> str:
  sign = '>=' if target['direction'] == 'max' else '<='
  return (
    f'{target["metric"]} {sign} {target["validation"]:g}{" ?" if target["provisional"] else ""}'
  )


def _submission_lines(entries: Sequence[dict[str, Any]]) -> list[str]:
  rows = [
    (
      entry['name'],
      entry['ruleset'],
      ', '.join(entry['frameworks']),
      'own' if entry['tuning_search_space'] else '-',
    )
    for entry in entries
  ]
  return _table(('NAME', 'RULESET', 'FRAMEWORKS', 'SEARCH SPACE'), rows)


def _suite_lines(entries: Sequence[dict[str, Any]]) -> list[str]:
  rows = [
    (
      entry['name'],
      f'{len(entry["ready"])} of {len(entry["workloads"])}',
      str(len(entry['held_out'])),
      entry['axis'],
      _ruleset_text(entry['rulesets'].get('external')),
      _ruleset_text(entry['rulesets'].get('self')),
      entry['hardware'],
    )
    for entry in entries
  ]
  header = ('NAME', 'READY', 'HELD OUT', 'AXIS', 'EXTERNAL', 'SELF', 'HARDWARE')
  return [
    *_table(header, rows),
    'READY: workloads that can run today, towards targets that are not provisional.',
    'EXTERNAL, SELF: studies x trials of that ruleset, and its factor on the budget.',
  ]


def _ruleset_text(ruleset: dict[str, Any] | None) -> str:
  if ruleset is None:
    return '-'
  factor = '' if ruleset['budget_factor'] == 1 else f', x{ruleset["budget_factor"]:g}'
  return f'{ruleset["studies"]} x {ruleset["trials"]}{factor}'


def _parameter_lines(entries: Sequence[dict[str, Any]]) -> list[str]:
  rows = [
    (
      entry['name'],
      'x'.join(map(str, entry['shape'])) or 'scalar',
      entry['type'],
      f'{entry["role"]} (frozen)' if entry['frozen'] else entry['role'],
      _matrices_text(*entry['matrices']) if entry['matrices'] else '-',
    )
    for entry in entries
  ]
  total = sum(entry['size'] for entry in entries)
  header = ('NAME', 'SHAPE', 'TYPE', 'ROLE', 'MATRICES')
  lines = [*_table(header, rows), f'{total:,} parameters in {len(rows)} arrays.']
  num_frozen = sum(entry['size'] for entry in entries if entry['frozen'])
  return [*lines, f'Frozen and not trained: {num_frozen:,}.'] if num_frozen else lines


def _matrices_text(num_matrices: int, rows: int, columns: int) -> str:
  return f'{rows}x{columns}' if num_matrices == 1 else f'{num_matrices} of {rows}x{columns}'


_LINES = {
  'workloads': _workload_lines,
  'variants': _workload_lines,
  'submissions': _submission_lines,
  'suites': _suite_lines,
  'parameters': _parameter_lines,
}


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
  """Lines with columns that are aligned at the left and parted by two blanks."""
  lines = [header, *rows]
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return ['  '.join(map(str.ljust, line, widths)).rstrip() for line in lines]
