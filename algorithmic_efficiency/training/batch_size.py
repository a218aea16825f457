"""The global batch sizes of the baselines: those that the definitions give."""

from __future__ import annotations

from algorithmic_efficiency.benchmark import registry


def get_batch_size(workload_name: str) -> int:
  """The definition's training batch size, in examples; AlgoPerf's for AlgoPerf's workloads.

  Raises:
    ValueError: no workload has this name.
  """
  try:
    return registry.workloads()[workload_name].batch_sizes.train
  except KeyError:
    raise ValueError(f'Unsupported workload name: {workload_name}.') from None
