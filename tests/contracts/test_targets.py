"""Targets of `quick` and `lite`: each follows from a record beside its definition."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import pytest

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Budget, WorkloadDefinition
from algorithmic_efficiency.experiments.calibration import renew, target_page
from algorithmic_efficiency.experiments.calibration.target_setting import Record

FRAMEWORKS = ('jax', 'pytorch')
# Points of each baseline, seeds, and the largest variation of the time to target: RULES.md.
NUMBERS = {'quick': (5, 5, 0.1), 'lite': (3, 3, 0.05)}
# Workloads whose targets are guesses, or were set by an earlier rule, until they are calibrated.
AWAITED = {'cifar_small'}
BASELINES = {'adamw', 'nadamw', 'nesterov', 'momentum'}


def _is_raced(definition: WorkloadDefinition, suite: str) -> bool:
  """Whether races of the suite score the workload, or the one of which it is a variant."""
  base = registry.workload(definition.base)
  return suite in definition.suites and base.suites[suite].role != 'extra'


CALIBRATED = [
  pytest.param(name, suite, id=name)
  for name, definition in sorted(registry.workloads().items())
  for suite in definition.suites
  if suite in NUMBERS and _is_raced(definition, suite)
  if not definition.target.provisional and name not in AWAITED
]


def _record(name: str, framework: str) -> Record:
  folder = registry.task_of(registry.workload(name)).folder
  return Record.read(folder / 'calibration' / f'{name}_{framework}.json')


def _records(definition: WorkloadDefinition) -> tuple[Record, Record]:
  """Returns the record that set the target, and that of the other framework."""
  found = [_record(definition.name, framework) for framework in FRAMEWORKS]
  (first,) = (record for record in found if record.timing is not None)
  (second,) = (record for record in found if record.agreement is not None)
  return first, second


@pytest.mark.parametrize(('name', 'suite'), CALIBRATED)
def test_the_definition_has_the_target_and_the_budget_of_its_record(name: str, suite: str):
  definition = registry.workload(name)
  first, second = _records(definition)
  assert first.target == second.target == definition.target
  assert second.chosen == first.chosen
  values = [run.best_validation for run in first.reruns]
  assert second.agreement.medians[1] == statistics.median(values)
  fields = ('step_hint', 'max_steps', 'eval_period_steps')
  budget: Budget = definition.suites[suite]
  expected = first.protocol.budget
  assert [getattr(budget, one) for one in fields] == [getattr(expected, one) for one in fields]


@pytest.mark.parametrize(('name', 'suite'), CALIBRATED)
def test_the_target_is_accepted_in_both_frameworks(name: str, suite: str):
  first, second = _records(registry.workload(name))
  assert target_page.verdict(first) == ['The target is accepted.']
  assert not second.faults


@pytest.mark.parametrize(('name', 'suite'), CALIBRATED)
def test_figures_of_the_records_are_those_of_the_present_rules(name: str, suite: str):
  definition = registry.workload(name)
  first, second = _records(definition)
  for record in (first, second):
    command = f'python -m {renew.__name__} {record.workload}_{record.framework}.json'
    if definition.bundled:
      found = renew.renewed(record, Path('no data'), first.reruns)
      assert target_page.page(found) == target_page.page(record), command  # to three digits
    elif record.timing is not None:
      assert record.timing.validation_size is not None, command


@pytest.mark.parametrize(('name', 'suite'), CALIBRATED)
def test_the_numbers_of_the_protocol_are_those_of_the_rules(name: str, suite: str):
  definition = registry.workload(name)
  first, second = _records(definition)
  num_points, num_seeds, max_variation = NUMBERS[suite]
  protocol = first.protocol
  assert protocol.num_seeds == len(first.reruns) == len(second.reruns) == num_seeds
  assert len(first.timing.steps) == 2 * num_seeds
  assert protocol.max_variation == max_variation
  assert protocol.budget.max_steps >= 4 * protocol.step_budget
  if definition.is_variant:
    base = _records(registry.workload(definition.base))[0]
    assert first.from_record and protocol.step_budget == base.protocol.step_budget
    assert len(first.search) == 3
  else:
    assert set(protocol.submissions) == BASELINES
    assert len(first.search) == num_points * len(BASELINES)


@pytest.mark.parametrize('suite', NUMBERS)
def test_only_awaited_workloads_of_the_suite_have_provisional_targets(suite: str):
  """A variant that the rules do not accept is never scored, and keeps a provisional one."""
  members = registry.members(suite)
  assert members
  assert {name for name, one in members.items() if one.target.provisional} <= AWAITED


@pytest.mark.parametrize('suite', NUMBERS)
def test_schedules_end_well_before_the_budget(suite: str):
  """A tuned schedule decays within the step hint; the budget is that of slower submissions."""
  for definition in registry.workloads().values():
    if _is_raced(definition, suite) and definition.base not in AWAITED:
      budget = definition.suites[suite]
      assert budget.max_steps is not None
      assert budget.max_steps >= 2.9 * budget.step_hint, definition.name


def test_a_record_that_a_definition_names_stands_beside_it():
  for definition in registry.workloads().values():
    calibration = registry.task_of(definition).folder / 'calibration'
    named = re.findall(r'\w+\.md', definition.target_source)
    assert [one for one in named if not (calibration / one).is_file()] == [], definition.name


def test_every_record_belongs_to_a_definition():
  for task in registry.tasks().values():
    for file in task.folder.glob('calibration/*.json'):
      if file.stem.rpartition('_')[0] in AWAITED:
        continue
      record = Record.read(file)
      assert file.stem == f'{record.workload}_{record.framework}'
      assert target_page.page(record) == file.with_suffix('.md').read_text()
      assert registry.workload(record.workload).target == record.target
