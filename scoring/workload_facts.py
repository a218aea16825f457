"""What the workloads of a result are, in words: data, model, target and its source, budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Splits, Target, WorkloadDefinition
from scoring.result import Result


def of(result: Result) -> dict[str, dict[str, Any]]:
  """By name of the workload: `summary`, `target` and the other `facts`, as pairs of texts."""
  return {
    name: {
      'summary': one.summary,
      'target': target_text(one.target.metric, one.target.direction, one.target.validation),
      'facts': list(_facts(one, result)),
    }
    for name, one in result.rules.members.items()
  }


def target_text(metric: str, direction: str, value: float) -> str:
  """A target in words, such as 'accuracy of at least 0.97'."""
  return f'{metric} of {"at least" if direction == "max" else "at most"} {value:g}'


def _facts(one: WorkloadDefinition, result: Result) -> Iterator[tuple[str, str]]:
  rules = result.rules
  if one.name in rules.base_of:
    yield 'Role', f'held-out variant of {one.base}: a time counts only where both are reached'
  yield 'Task', one.task
  yield 'Data set', one.dataset + (', bundled' if one.bundled else '')
  yield 'Examples', _examples(one.splits)
  yield 'Model', _record(one.model)
  yield 'Data', _record(one.data)
  yield 'Loss', one.loss_type.name.replace('_', ' ').lower()
  yield 'Metrics', ', '.join(one.metrics)
  yield 'Target on validation', _target(one.target, one.target.validation)
  if one.target.test is not None:
    yield 'Target on test', _target(one.target, one.target.test)
  yield 'Source of the target', one.target_source or 'not stated'
  yield 'Budget of a trial', ', '.join(_budget(one, result))
  fixed = rules.suite.fixes_batch_size
  yield 'Batch size', f'{one.batch_sizes.train:,}' if fixed else 'that of the submission'
  if one.dropout_rate:
    yield 'Dropout rate', f'{one.dropout_rate:g} unless the submission sets it'
  yield 'Hash of the definition', one.content_hash()


def _target(target: Target, value: float) -> str:
  text = target_text(target.metric, target.direction, value)
  return f'{text}, provisional' if target.provisional else text


def _examples(splits: Splits) -> str:
  texts = [f'{splits.train:,} for training', f'{splits.validation:,} for validation']
  if splits.test is not None:
    texts.append(f'{splits.test:,} for testing')
  return ', '.join(texts)


def _budget(one: WorkloadDefinition, result: Result) -> Iterator[str]:
  seconds, steps = result.rules.budget_sec(one.name), result.rules.budget_steps(one.name)
  if seconds is not None:
    yield f'{seconds:,.0f} seconds'
  if steps is not None:
    yield f'{steps:,} steps'
  yield f'schedules span {registry.budget(one, result.rules.suite.name).step_hint:,} steps'


def _record(record: Any) -> str:
  """The record of a model or of data, in words."""
  if not dataclasses.is_dataclass(record):
    return str(record)
  fields = dataclasses.fields(record)
  texts = [f'{one.name} {_value(getattr(record, one.name))}' for one in fields]
  return f'{type(record).__name__}: {", ".join(texts)}'


def _value(value: Any) -> str:
  if dataclasses.is_dataclass(value):
    return f'({_record(value)})'
  if isinstance(value, tuple):
    return f'({", ".join(map(_value, value))})'
  return f'{value:,}' if type(value) is int else str(value)
