"""Linear layers, embeddings and convolutions with flax's initial weights, and the activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from algorithmic_efficiency.layers.configs import Init

# Standard deviation of a standard normal truncated at -2 and 2.
_TRUNCATED_STDDEV = 0.87962566103423978

ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
  'gelu': F.gelu,  # exact, of the error function
  'gelu_tanh': lambda x: F.gelu(x, approximate='tanh'),
  'glu': F.glu,  # the first half, multiplied by the sigmoid of the second
  'relu': F.relu,
  'relu2': lambda x: F.relu(x).square(),
  'sigmoid': torch.sigmoid,
  'silu': F.silu,
  'tanh': torch.tanh,
}


def param_dtype(dtype: torch.dtype) -> torch.dtype:
  """Returns the type of the parameters of a layer that computes in `dtype`."""
  return torch.promote_types(dtype, torch.float32)


def initialize_(weight: torch.Tensor, init: Init) -> None:
  """Fills a weight [out, in, ...] as `configs.Init` says."""
  if init == 'lecun_normal':
    lecun_normal_(weight)
  elif init == 'xavier_uniform':
    nn.init.xavier_uniform_(weight)
  else:
    nn.init.normal_(weight, std=init)


def lecun_normal_(weight: torch.Tensor) -> None:
  """Fills a weight [out, in, ...] from a truncated normal with variance 1 / fan-in."""
  fan_in = weight[0].numel()
  stddev = math.sqrt(1 / fan_in) / _TRUNCATED_STDDEV
  nn.init.trunc_normal_(weight, std=stddev, a=-2 * stddev, b=2 * stddev)


class Linear(nn.Linear):
  """nn.Linear that computes in `dtype`.

  Args:
    init: how the weight begins.
    bias_stddev: standard deviation of the initial bias.
    widths: outputs of each of several layers that share this one's weight. Each begins on its own.
  """

  def __init__(
    self,
    in_features: int,
    out_features: int,
    *,
    dtype: torch.dtype,
    bias: bool = True,
    init: Init = 'lecun_normal',
    bias_stddev: float = 0.0,
    widths: Sequence[int] | None = None,
  ):
    self.compute_dtype = dtype
    self.init = init
    self.bias_stddev = bias_stddev
    self.widths = widths
    super().__init__(in_features, out_features, bias=bias, dtype=param_dtype(dtype))

  @torch.no_grad()
  def reset_parameters(self) -> None:
    # The fan-out is that of a part.
    parts = self.weight.split(self.widths) if self.widths and self.init == 'xavier_uniform' else ()
    for weight in parts or (self.weight,):
      initialize_(weight, self.init)
    if self.bias is not None:
      nn.init.normal_(self.bias, std=self.bias_stddev) if self.bias_stddev else nn.init.zeros_(
        self.bias
      )

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    dtype = self.compute_dtype
    bias = None if self.bias is None else self.bias.to(dtype)
    return F.linear(x.to(dtype), self.weight.to(dtype), bias)


class Embedding(nn.Embedding):
  """nn.Embedding that returns vectors of `dtype`; `stddev` is that of its initial normal weight."""

  def __init__(self, num_embeddings: int, dim: int, *, stddev: float, dtype: torch.dtype):
    self.compute_dtype = dtype
    self.stddev = stddev
    super().__init__(num_embeddings, dim, dtype=param_dtype(dtype))

  def reset_parameters(self) -> None:
    nn.init.normal_(self.weight, std=self.stddev)

  def forward(self, tokens: torch.Tensor) -> torch.Tensor:
    # Cast after the lookup: gradients of frequent tokens are long sums.
    return super().forward(tokens).to(self.compute_dtype)


class Conv1d(nn.Conv1d):
  """nn.Conv1d that computes in `dtype`; sequences are [batch, channels, length]."""

  def __init__(self, *args: Any, dtype: torch.dtype, **kwargs: Any):
    self.compute_dtype = dtype
    super().__init__(*args, dtype=param_dtype(dtype), **kwargs)

  def reset_parameters(self) -> None:
    lecun_normal_(self.weight)
    if self.bias is not None:
      nn.init.zeros_(self.bias)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    dtype = self.compute_dtype
    bias = None if self.bias is None else self.bias.to(dtype)
    return self._conv_forward(x.to(dtype), self.weight.to(dtype), bias)


class Conv2d(nn.Conv2d):
  """nn.Conv2d that computes in `dtype`; images are [batch, channels, height, width]."""

  def __init__(self, *args: Any, dtype: torch.dtype, **kwargs: Any):
    self.compute_dtype = dtype
    super().__init__(*args, dtype=param_dtype(dtype), **kwargs)

  def reset_parameters(self) -> None:
    lecun_normal_(self.weight)
    if self.bias is not None:
      nn.init.zeros_(self.bias)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    dtype = self.compute_dtype
    bias = None if self.bias is None else self.bias.to(dtype)
    return self._conv_forward(x.to(dtype), self.weight.to(dtype), bias)
