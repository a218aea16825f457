"""Maps the parameters of this task's model between flax and PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import twins

_PAIRS = [*twins.dense('Dense_0', 'edge'), *twins.dense('Dense_1', 'out')]


def to_torch(
  definition: WorkloadDefinition, params: Mapping[str, Any], model_state: Mapping[str, Any] | None
) -> dict[str, np.ndarray]:
  """Converts flax variables to a PyTorch state dict of numpy arrays."""
  return twins.to_torch(_PAIRS, params, model_state)


def to_jax(
  definition: WorkloadDefinition, state_dict: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Converts a PyTorch state dict to flax `(params, model_state)`, nested dicts of numpy arrays."""
  return twins.to_jax(_PAIRS, state_dict)
