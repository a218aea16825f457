"""Global batch sizes of the baselines, taken from the definitions."""

from __future__ import annotations

from algorithmic_efficiency.benchmark import registry


def get_batch_size(workload_name: str) -> int:
  """Returns the global training batch size of a workload, in examples.

  The definitions of AlgoPerf's workloads have AlgoPerf's batch sizes.

  Raises:
    ValueError: no workload has this name.
  """
  try:
    return registry.workloads()[workload_name].batch_sizes.train
  except KeyError:
    raise ValueError(f'Unsupported workload name: {workload_name}.') from None
