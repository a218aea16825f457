"""AlgoPerf's `init_utils`."""

from __future__ import annotations

from torch import nn

from algorithmic_efficiency.layers.torch import lecun_normal_


def pytorch_default_init(module: nn.Module) -> None:
  """Initializes a layer as flax does: truncated normal of variance 1 / fan-in, biases zero."""
  lecun_normal_(module.weight)
  if module.bias is not None:
    nn.init.zeros_(module.bias)
