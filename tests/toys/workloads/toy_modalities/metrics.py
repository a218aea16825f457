"""Accuracy with a number for each kind of item."""

from __future__ import annotations

from pathlib import Path

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.metrics.means import ByDomain
from algorithmic_efficiency.metrics.metric import Metric


def metrics(definition: WorkloadDefinition, root: Path | None) -> dict[str, Metric]:
  """Returns the accuracy of each task, by the name of the metric."""
  return {'accuracy_of_task': ByDomain('accuracy_of_task', definition.task_names)}
