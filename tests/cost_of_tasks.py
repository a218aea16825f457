"""Which tests of tasks are slow: those of models at home here that others stand for by default."""

from __future__ import annotations

import pytest

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition


def is_large(definition: WorkloadDefinition) -> bool:
  """True for a workload of this repository whose data are not bundled.

  Models of its kind on bundled data are tested by default, and so is every task from elsewhere.
  """
  return _is_ours(definition) and not definition.bundled


def slow_if_large(definition: WorkloadDefinition) -> list[pytest.MarkDecorator]:
  """Returns the mark of a test in JAX, where large models take long to compile."""
  if not is_large(definition):
    return []
  return [pytest.mark.long if definition.is_variant else pytest.mark.slow]


def slow_if_large_or_variant(definition: WorkloadDefinition) -> list[pytest.MarkDecorator]:
  """Returns the mark of a test in JAX that a variant of our own workloads shares with its base."""
  return slow_if_large(definition) or [pytest.mark.slow] * (
    definition.is_variant and _is_ours(definition)
  )


def _is_ours(definition: WorkloadDefinition) -> bool:
  return registry.task_of(definition).package.startswith('workloads.')
