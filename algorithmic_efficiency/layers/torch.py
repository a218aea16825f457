"""Layers that several PyTorch models share.

`jax.py` beside this file has the same layers. Weights are initialized as in flax: normal, truncated
at two standard deviations, with variance 1 / fan-in; biases zero. Layers compute in their `dtype`.
Parameters are float32, or float64 if the layer computes in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from algorithmic_efficiency.layers._torch_loss import token_loss as token_loss
from algorithmic_efficiency.layers._torch_loss import token_sums as token_sums
from algorithmic_efficiency.layers._torch_loss import vocab_logits as vocab_logits

# Standard deviation of a standard normal truncated at -2 and 2.
_TRUNCATED_STDDEV = 0.87962566103423978

ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
  'glu': F.glu,  # the first half, multiplied by the sigmoid of the second
  'relu': F.relu,
  'relu2': lambda x: F.relu(x).square(),
  'sigmoid': torch.sigmoid,
}


class Outputs(NamedTuple):
  """What `forward` returns for a model with auxiliary losses.

  Attributes:
    logits: the logits, as a model without auxiliary losses returns them.
    auxiliary: the auxiliary losses by name, scalars.
  """

  logits: Any
  auxiliary: Mapping[str, Any]


def lecun_normal_(weight: torch.Tensor) -> None:
  """Fills a weight [out, in, ...] from a truncated normal with variance 1 / fan-in."""
  fan_in = weight[0].numel()
  stddev = math.sqrt(1 / fan_in) / _TRUNCATED_STDDEV
  nn.init.trunc_normal_(weight, std=stddev, a=-2 * stddev, b=2 * stddev)


class Linear(nn.Linear):
  """nn.Linear that computes in `dtype`; `stddev` initializes its weight normal instead."""

  def __init__(
    self,
    in_features: int,
    out_features: int,
    *,
    dtype: torch.dtype,
    bias: bool = True,
    stddev: float | None = None,
  ):
    self.compute_dtype = dtype
    self.stddev = stddev
    super().__init__(in_features, out_features, bias=bias, dtype=param_dtype(dtype))

  def reset_parameters(self) -> None:
    if self.stddev is None:
      lecun_normal_(self.weight)
    else:
      nn.init.normal_(self.weight, std=self.stddev)
    if self.bias is not None:
      nn.init.zeros_(self.bias)

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


class RMSNorm(nn.RMSNorm):
  """nn.RMSNorm that computes in float32 or wider and returns `dtype`."""

  def __init__(self, dim: int, *, epsilon: float, dtype: torch.dtype):
    self.compute_dtype = dtype
    super().__init__(dim, eps=epsilon, dtype=param_dtype(dtype))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return super().forward(x.to(param_dtype(x.dtype))).to(self.compute_dtype)


class Mlp(nn.Module):
  """Two linear layers without bias around an activation; 'glu' doubles the width of the first."""

  def __init__(
    self,
    dim: int,
    hidden_dim: int,
    *,
    activation: str,
    stddev: float,
    out_stddev: float,
    dtype: torch.dtype,
  ):
    super().__init__()
    self.activation = activation
    width = 2 * hidden_dim if activation == 'glu' else hidden_dim
    self.fc1 = Linear(dim, width, bias=False, stddev=stddev, dtype=dtype)
    self.fc2 = Linear(hidden_dim, dim, bias=False, stddev=out_stddev, dtype=dtype)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.fc2(ACTIVATIONS[self.activation](self.fc1(x)))


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


class _SumOverRanks(torch.autograd.Function):
  """Sums a tensor over all ranks; the backward pass sums the gradients over all ranks."""

  @staticmethod
  def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
    total = x.clone()
    dist.all_reduce(total)
    return total

  @staticmethod
  def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
    return _SumOverRanks.apply(gradient)


def sum_over_ranks(x: torch.Tensor) -> torch.Tensor:
  """Sums a tensor over all ranks, with gradients; with one rank it returns the tensor itself.

  The backward pass sums the gradients of all ranks, so each rank must run it.
  """
  if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
    return _SumOverRanks.apply(x)
  return x


class _GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
  """Batch norm over the global batch, on all ranks.

  It differs from PyTorch's batch norm in three ways. Statistics cover all ranks. The running
  variance is biased, as in flax. `num_batches_tracked` stays 0, because the momentum is fixed.
  Training leaves the running statistics unchanged if `update_running_stats` is False or the
  momentum is 0.
  """

  update_running_stats: bool = True

  def forward(self, x: torch.Tensor, *, use_running_average: bool | None = None) -> torch.Tensor:
    """Normalizes x [batch, channels, ...]; None uses running averages outside of training."""
    self._check_input_dim(x)
    if not self.training if use_running_average is None else use_running_average:
      return F.batch_norm(
        x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
      )
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
      return self._over_ranks(x)
    return self._alone(x)

  def _alone(self, x: torch.Tensor) -> torch.Tensor:
    # With a momentum of 1, the buffers hold the statistics of this batch only.
    mean = torch.zeros_like(self.running_mean)
    variance = torch.zeros_like(self.running_var)
    y = F.batch_norm(x, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
    count = x.numel() // x.shape[1]
    self._update(mean, variance * ((count - 1) / count))
    return y

  def _over_ranks(self, x: torch.Tensor) -> torch.Tensor:
    wide = x.to(self.running_mean.dtype)
    dims = [dim for dim in range(x.dim()) if dim != 1]
    shape = [-1 if dim == 1 else 1 for dim in range(x.dim())]
    count = wide.new_tensor([x.numel() // x.shape[1]])
    totals = _SumOverRanks.apply(torch.cat([wide.sum(dims), count]))
    mean = totals[:-1] / totals[-1]
    # Sum squares around the mean: sums around zero lose precision by cancellation.
    centered = wide - mean.view(shape)
    variance = _SumOverRanks.apply(centered.square().sum(dims)) / totals[-1]
    self._update(mean, variance)
    scale = self.weight * torch.rsqrt(variance + self.eps)
    return (centered * scale.view(shape) + self.bias.view(shape)).to(x.dtype)

  @torch.no_grad()
  def _update(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
    if self.update_running_stats:
      self.running_mean.lerp_(mean, self.momentum)
      self.running_var.lerp_(variance, self.momentum)


class BatchNorm1d(_GlobalBatchNorm, nn.BatchNorm1d):
  """nn.BatchNorm1d with the statistics of the global batch and a biased running variance."""


class BatchNorm2d(_GlobalBatchNorm, nn.BatchNorm2d):
  """nn.BatchNorm2d with the statistics of the global batch and a biased running variance."""


def param_dtype(dtype: torch.dtype) -> torch.dtype:
  """Returns the type of the parameters of a layer that computes in `dtype`."""
  return torch.promote_types(dtype, torch.float32)


def attention(
  query: torch.Tensor,
  key: torch.Tensor,
  value: torch.Tensor,
  *,
  scale: float,
  causal: bool = False,
  mask: torch.Tensor | None = None,
) -> torch.Tensor:
  """Computes scaled dot-product attention, with the softmax in float32 or wider.

  PyTorch chooses a fused kernel if there is one for the device, the type and the mask.

  Args:
    query: [batch, query_length, heads, head_dim].
    key: [batch, key_length, heads, head_dim].
    value: [batch, key_length, heads, head_dim].
    scale: factor of the dot products.
    causal: True if a position attends only to itself and to earlier positions.
    mask: bool, broadcastable to [batch, heads, query_length, key_length]; True where a query may
      attend to a key.

  Returns:
    Array of the shape of `query`.
  """
  if mask is not None and causal:  # PyTorch accepts only one of the two
    shape = (query.shape[1], key.shape[1])
    mask = mask & torch.ones(shape, dtype=torch.bool, device=mask.device).tril()
    causal = False
  out = F.scaled_dot_product_attention(
    query.transpose(1, 2),
    key.transpose(1, 2),
    value.transpose(1, 2),
    attn_mask=mask,
    is_causal=causal,
    scale=scale,
  )
  return out.transpose(1, 2)


def rotate(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
  """Rotates adjacent pairs of elements of x [batch, length, heads, head_dim] by position.

  Args:
    x: queries or keys.
    table: `positions.rotary_table`, [2, length, head_dim / 2], in the type of the parameters.
  """
  first, second = x.to(table.dtype).unflatten(-1, (-1, 2)).unbind(-1)
  cos, sin = table[:, : x.shape[1], None].unbind(0)
  turned = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1)
  return turned.flatten(-2).to(x.dtype)


def normalize(x: torch.Tensor, epsilon: float) -> torch.Tensor:
  """Scales x [..., dim] to Euclidean norm 1 along its last axis, in float32 or wider; 0 stays 0."""
  wide = x.to(param_dtype(x.dtype))
  return wide * torch.rsqrt(wide.square().sum(-1, keepdim=True) + epsilon**2)
