"""Losses with named auxiliary parts, for arrays of either framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def add_auxiliary(
  loss: Mapping[str, Any], auxiliary: Mapping[str, Any], weights: Mapping[str, float]
) -> dict[str, Any]:
  """Adds auxiliary losses to the loss of the examples, so that both keep their weight.

  The result divided by `n_valid_examples` is the mean loss of the examples plus each weight times
  its auxiliary loss. On several ranks in PyTorch that holds for the sums over the ranks, because
  each rank adds its share.

  Args:
    loss: what `loss` returns without auxiliaries.
    auxiliary: scalars by name, each a mean over the global batch.
    weights: weight of each auxiliary loss, by the same names.

  Returns:
    `loss` with another `summed`, and with `parts`: what each auxiliary loss adds to `summed`, and
    the number of valid examples.

  Raises:
    ValueError: the names differ.
  """
  if set(auxiliary) != set(weights):
    raise ValueError(
      f'Each auxiliary loss has one weight; the losses are {sorted(auxiliary)}, the weights those '
      f'of {sorted(weights)}.'
    )
  num_valid = loss['n_valid_examples']
  parts = {
    name: (weight * auxiliary[name] * num_valid, num_valid) for name, weight in weights.items()
  }
  return {
    **loss,
    'summed': loss['summed'] + sum(part for part, _ in parts.values()),
    'parts': parts,
  }
