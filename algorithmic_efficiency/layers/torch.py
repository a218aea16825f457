"""What several PyTorch models share.

Every layer has a twin of the same meaning in `jax.py` beside this file. Weights begin as flax has
them: normal, truncated at two standard deviations, variance 1 / fan-in; biases zero. Parameters are
float32, or float64 where the compute type is float64; layers compute in their own `dtype`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from algorithmic_efficiency.layers._torch_loss import VocabLogits as VocabLogits
from algorithmic_efficiency.layers._torch_loss import plain as plain
from algorithmic_efficiency.layers._torch_loss import token_loss as token_loss
from algorithmic_efficiency.layers._torch_loss import token_sums as token_sums

# Standard deviation of a standard normal truncated at -2 and 2.
_TRUNCATED_STDDEV = 0.87962566103423978

ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
  'glu': F.glu,  # the first half, multiplied by the sigmoid of the second
  'relu': F.relu,
  'relu2': lambda x: F.relu(x).square(),
  'sigmoid': torch.sigmoid,
}


def lecun_normal_(weight: torch.Tensor) -> None:
  """Fills a weight [out, in, ...] from a truncated normal of variance 1 / fan-in."""
  fan_in = weight[0].numel()
  stddev = math.sqrt(1 / fan_in) / _TRUNCATED_STDDEV
  nn.init.trunc_normal_(weight, std=stddev, a=-2 * stddev, b=2 * stddev)


class Linear(nn.Linear):
  """nn.Linear that computes in `dtype`; with `stddev` its weight begins normal with that one."""

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
  """nn.Embedding that begins normal of standard deviation `stddev` and gives vectors of `dtype`."""

  def __init__(self, num_embeddings: int, dim: int, *, stddev: float, dtype: torch.dtype):
    self.compute_dtype = dtype
    self.stddev = stddev
    super().__init__(num_embeddings, dim, dtype=param_dtype(dtype))

  def reset_parameters(self) -> None:
    nn.init.normal_(self.weight, std=self.stddev)

  def forward(self, tokens: torch.Tensor) -> torch.Tensor:
    # Cast after the look-up: gradients of frequent tokens are long sums.
    return super().forward(tokens).to(self.compute_dtype)


class RMSNorm(nn.RMSNorm):
  """nn.RMSNorm that computes in float32 or wider and gives `dtype`."""

  def __init__(self, dim: int, *, epsilon: float, dtype: torch.dtype):
    self.compute_dtype = dtype
    super().__init__(dim, eps=epsilon, dtype=param_dtype(dtype))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return super().forward(x.to(param_dtype(x.dtype))).to(self.compute_dtype)


class Mlp(nn.Module):
  """Two linear layers without biases around an activation; a gated one has twice the inputs."""

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
  """The sum of a tensor over all ranks; its gradient is the sum of all ranks' gradients."""

  @staticmethod
  def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
    total = x.clone()
    dist.all_reduce(total)
    return total

  @staticmethod
  def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
    return _SumOverRanks.apply(gradient)


class _GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
  """Batch norm whose statistics are those of the global batch, over all ranks.

  Differs from PyTorch's own in this; in that the running variance is the biased one, as in flax;
  and in that `num_batches_tracked` stays 0, since the momentum is fixed. In training the running
  statistics are left untouched where `update_running_stats` is False, or the momentum 0.
  """

  update_running_stats: bool = True

  def forward(self, x: torch.Tensor, *, use_running_average: bool | None = None) -> torch.Tensor:
    """Normalises x [batch, channels, ...]; None takes the running averages outside training."""
    self._check_input_dim(x)
    if not self.training if use_running_average is None else use_running_average:
      return F.batch_norm(
        x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
      )
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
      return self._over_ranks(x)
    return self._alone(x)

  def _alone(self, x: torch.Tensor) -> torch.Tensor:
    # With a momentum of 1 torch leaves the statistics of this batch alone in the buffers.
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
    # Squares are summed around the mean, not around zero, which would cancel badly.
    centred = wide - mean.view(shape)
    variance = _SumOverRanks.apply(centred.square().sum(dims)) / totals[-1]
    self._update(mean, variance)
    scale = self.weight * torch.rsqrt(variance + self.eps)
    return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)

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
  """The type of the parameters of a layer that computes in `dtype`."""
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
  """Scaled dot-product attention [batch, length, heads, head_dim]; softmax in float32 or wider.

  PyTorch chooses the kernel: a fused one where there is one for the device, the type and the mask.

  Args:
    query, key, value: [batch, length, heads, head_dim]; the length of queries may differ.
    scale: what the products of queries and keys are multiplied by.
    causal: whether a position sees only itself and those before it.
    mask: bool, true where a query sees a key, of a shape that broadcasts to
      [batch, heads, length of queries, length of keys].
  """
  if mask is not None and causal:  # PyTorch takes one of the two
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
  """Turns neighbouring elements of x [batch, length, heads, head_dim] by their position's angle.

  Args:
    table: that of `positions.rotary_table`, in the type of the parameters.
  """
  first, second = x.to(table.dtype).unflatten(-1, (-1, 2)).unbind(-1)
  cos, sin = table[:, : x.shape[1], None].unbind(0)
  turned = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1)
  return turned.flatten(-2).to(x.dtype)


def normalize(x: torch.Tensor, epsilon: float) -> torch.Tensor:
  """x at length 1 along its last axis, in float32 or wider; zero stays zero."""
  wide = x.to(param_dtype(x.dtype))
  return wide * torch.rsqrt(wide.square().sum(-1, keepdim=True) + epsilon**2)
