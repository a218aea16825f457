"""Maps the parameters of the linear model between flax and PyTorch."""

from __future__ import annotations

from algorithmic_efficiency.layers import twins

_PAIRS = twins.dense('Dense_0', 'fc')


def to_torch(definition, params, model_state):
  """Converts flax variables to a PyTorch state dict of numpy arrays."""
  return twins.to_torch(_PAIRS, params, model_state)


def to_jax(definition, state_dict):
  """Converts a PyTorch state dict to flax `(params, model_state)`."""
  return twins.to_jax(_PAIRS, state_dict)
