"""What every definition of every task promises."""

from __future__ import annotations

import dataclasses
import re

import pytest

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import BatchSizes, WorkloadDefinition
from algorithmic_efficiency.benchmark.suites import SUITES
from algorithmic_efficiency.metrics.derived import DERIVED

DEFINITIONS = list(registry.workloads().values())
RUNNABLE = [definition for definition in DEFINITIONS if registry.is_runnable(definition)]
VARIANTS = [definition for definition in DEFINITIONS if definition.is_variant]


def each(definitions: list[WorkloadDefinition]):
  return pytest.mark.parametrize(
    'definition', definitions, ids=[definition.name for definition in definitions]
  )


@each(DEFINITIONS)
def test_names_and_texts(definition):
  assert re.fullmatch(r'[a-z][a-z0-9_]*', definition.name)
  assert definition.summary and not definition.summary.endswith('.')
  assert definition.target_source
  assert len(set(definition.metrics)) == len(definition.metrics)
  for name in definition.metrics:
    assert name not in DERIVED or DERIVED[name].source in definition.metrics


@each(DEFINITIONS)
def test_records_are_frozen_and_keyword_only(definition):
  for record in (definition.model, definition.data):
    assert dataclasses.is_dataclass(record)
    assert type(record).__dataclass_params__.frozen
    assert all(one.kw_only for one in dataclasses.fields(record))


@each(DEFINITIONS)
def test_what_both_records_state_is_the_same(definition):
  """A size such as `vocab_size` stands in both in some definitions, whose hashes hold them."""
  for one in (definition, definition.for_smoke() if definition.smoke else definition):
    model, data = (_fields(record) for record in (one.model, one.data))
    shared = model.keys() & data.keys()
    assert {name: model[name] for name in shared} == {name: data[name] for name in shared}


def _fields(record):
  return {one.name: getattr(record, one.name) for one in dataclasses.fields(record)}


@each(DEFINITIONS)
def test_sizes(definition):
  splits, batch_sizes = definition.splits, definition.batch_sizes
  assert min(splits.train, splits.eval_train, splits.validation) > 0
  assert splits.test is None or splits.test > 0
  assert splits.eval_train <= splits.train
  assert 0 < batch_sizes.train <= splits.train
  # Suites that fix the batch size run on up to eight devices.
  assert batch_sizes.train % 8 == 0 and batch_sizes.eval % 8 == 0


@each(DEFINITIONS)
def test_budgets_have_what_the_axis_of_their_suite_needs(definition):
  assert definition.suites
  for name, budget in definition.suites.items():
    if SUITES[name].axis == 'seconds':
      assert budget.max_sec and budget.eval_period_sec
      assert budget.eval_period_sec <= budget.max_sec
    else:
      assert budget.max_steps and budget.eval_period_steps
      assert budget.eval_period_steps <= budget.max_steps
    if name == 'quick':
      assert definition.bundled


@each(DEFINITIONS)
def test_goals(definition):
  target = definition.target
  assert target.direction in ('max', 'min')
  # Without a test target there may still be a test split; never the other way round.
  assert target.test is None or definition.splits.test is not None


@each([one for one in DEFINITIONS if one.probes])
def test_probes_have_examples_metrics_and_a_summary(definition):
  for probe in definition.probes.values():
    assert probe.num_examples > 0 and probe.metrics
    assert probe.summary and not probe.summary.endswith('.')


@each(VARIANTS)
def test_a_variant_differs_from_its_base_and_shares_its_data(definition):
  base = registry.workload(definition.base)
  assert not base.is_variant and base.task == definition.task
  assert definition.dataset == base.dataset
  # Other data, such as longer examples, may be fewer.
  assert definition.splits == base.splits or definition.data != base.data
  assert definition.content_hash() != base.content_hash()
  assert (definition.model, definition.data) != (base.model, base.data)
  assert type(definition.model) is type(base.model)


@each(RUNNABLE)
def test_the_smoke_record_is_the_same_code_at_other_sizes(definition):
  small = definition.for_smoke()
  assert type(small.model) is type(definition.model)
  assert type(small.data) is type(definition.data)
  assert small.batch_sizes == BatchSizes(train=8, eval=8)
  assert small.splits.train <= 1_000
  assert (small.splits.test is None) == (definition.splits.test is None)
  assert small.target == definition.target and small.metrics == definition.metrics


@each([definition for definition in VARIANTS if definition in RUNNABLE])
def test_the_smoke_record_of_a_variant_varies_too(definition):
  base = registry.workload(definition.base)
  small, small_base = definition.for_smoke(), base.for_smoke()
  assert (small.model, small.data) != (small_base.model, small_base.data)
