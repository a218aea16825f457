"""Norms, with statistics in float32 or wider, and the sum over ranks that global ones need."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from algorithmic_efficiency.layers._torch_linear import param_dtype


def sum_over_ranks(x: torch.Tensor) -> torch.Tensor:
  """Returns the sum of x over all ranks; x itself where there is one rank.

  Its gradient is summed over all ranks, too, since x acts on the losses of all of them. Statistics
  of the global batch are made of such sums.
  """
  return _SumOverRanks.apply(x) if has_ranks() else x


def has_ranks() -> bool:
  """Whether several processes train together."""
  return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


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


class LayerNorm(nn.LayerNorm):
  """nn.LayerNorm that computes in float32 or wider and returns `dtype`."""

  def __init__(self, dim: int, *, epsilon: float, dtype: torch.dtype):
    self.compute_dtype = dtype
    super().__init__(dim, eps=epsilon, dtype=param_dtype(dtype))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return super().forward(x.to(self.weight.dtype)).to(self.compute_dtype)


class RMSNorm(nn.RMSNorm):
  """nn.RMSNorm that computes in float32 or wider and returns `dtype`."""

  def __init__(self, dim: int, *, epsilon: float, dtype: torch.dtype):
    self.compute_dtype = dtype
    super().__init__(dim, eps=epsilon, dtype=param_dtype(dtype))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return super().forward(x.to(param_dtype(x.dtype))).to(self.compute_dtype)


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
    if has_ranks():
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
    totals = sum_over_ranks(torch.cat([wide.sum(dims), count]))
    mean = totals[:-1] / totals[-1]
    # Sum squares around the mean: sums around zero lose precision by cancellation.
    centered = wide - mean.view(shape)
    variance = sum_over_ranks(centered.square().sum(dims)) / totals[-1]
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


def normalize(x: torch.Tensor, epsilon: float) -> torch.Tensor:
  """Scales x [..., dim] to Euclidean norm 1 along its last axis, in float32 or wider; 0 stays 0."""
  wide = x.to(param_dtype(x.dtype))
  return wide * torch.rsqrt(wide.square().sum(-1, keepdim=True) + epsilon**2)
