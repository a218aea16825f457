"""Mixtures of experts: tokens are sorted by expert, and each expert multiplies its own.

Shapes: tokens [..., dim], kernels of experts [experts, out, in]. Slots hold the tokens in the order
of their experts.
"""

from __future__ import annotations

import functools

import torch
from torch import nn
from torch.nn import functional as F

from algorithmic_efficiency.layers._torch_linear import (
  ACTIVATIONS,
  Linear,
  initialize_,
  param_dtype,
)
from algorithmic_efficiency.layers._torch_plain import is_plain
from algorithmic_efficiency.layers._torch_routing import Dispatch, Routes, dispatch, route
from algorithmic_efficiency.layers.configs import ExpertsConfig, Init
from algorithmic_efficiency.layers.slots import block_size

# PyTorch's grouped product: the types that it has kernels for, and the multiple of bytes at which
# its rows must begin.
_GROUPED_DTYPES = {
  'cpu': (torch.float32, torch.float64, torch.bfloat16),
  'cuda': (torch.bfloat16,),
}
_GROUPED_BYTES = 16


class Experts(nn.Module):
  """A mixture of experts with its router; see `ExpertsConfig`.

  The router computes in float32 or wider.
  """

  def __init__(self, config: ExpertsConfig, *, dim: int, dtype: torch.dtype):
    super().__init__()
    self.config = config
    wide = param_dtype(dtype)
    self.router = Linear(dim, config.num_experts, bias=False, init=config.router_init, dtype=wide)
    self.experts = _Kernels(config, dim=dim, dtype=dtype)

  def forward(
    self, x: torch.Tensor, is_token: torch.Tensor, *, train: bool
  ) -> tuple[torch.Tensor, Routes]:
    """Transforms x [..., dim].

    Args:
      is_token: False for padding, which gets zeros, bool [...].
      train: True drops assignments beyond the capacity.

    Returns:
      An array of the shape of x, and the routes of its flattened tokens.
    """
    tokens = x.flatten(0, -2)
    routes = route(self.router(tokens), is_token.flatten(), self.config, train=train)
    return self.experts(tokens, routes).reshape(x.shape), routes


class _Kernels(nn.Module):
  def __init__(self, config: ExpertsConfig, *, dim: int, dtype: torch.dtype):
    super().__init__()
    self.config = config
    self.compute_dtype = dtype
    expert = config.expert
    self.first = self._kernels(dim, expert.first_dim, expert.init)
    if expert.gate != 'none':
      gate_dim = dim if expert.gate == 'input' else expert.hidden_dim
      self.gate = self._kernels(gate_dim, expert.hidden_dim, expert.init)
    self.last = self._kernels(expert.hidden_dim, dim, expert.out_init)

  @torch.no_grad()
  def _kernels(self, in_dim: int, out_dim: int, init: Init) -> nn.Parameter:
    shape = (self.config.num_experts, out_dim, in_dim)
    kernels = torch.empty(shape, dtype=param_dtype(self.compute_dtype))
    for kernel in kernels:
      initialize_(kernel, init)
    return nn.Parameter(kernels)

  def forward(self, x: torch.Tensor, routes: Routes) -> torch.Tensor:
    """Returns the weighted outputs of the experts, [tokens, dim]."""
    expert, dtype = self.config.expert, self.compute_dtype
    alignment = 1
    if is_plain() or not _has_grouped_mm(x.device, dtype, (x.shape[-1], expert.hidden_dim)):
      alignment = block_size(routes.experts.numel(), self.config.num_experts)
    plan = dispatch(routes, alignment)

    def multiply(name: str, x: torch.Tensor) -> torch.Tensor:
      return grouped_matmul(x, getattr(self, name).to(dtype), plan.sizes, alignment)

    x = _rows(x.to(dtype), plan.tokens)
    hidden = ACTIVATIONS[expert.activation](multiply('first', x))
    if expert.gate != 'none':
      hidden = hidden * multiply('gate', x if expert.gate == 'input' else hidden)
    return _combined(multiply('last', hidden), plan, routes)


def _rows(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
  """Rows of x by number; zeros for the number after the last one."""
  return F.pad(x, (0, 0, 0, 1)).index_select(0, rows)


def _combined(outputs: torch.Tensor, plan: Dispatch, routes: Routes) -> torch.Tensor:
  """The weighted sum of the outputs [slots, dim] of each token's experts, [tokens, dim]."""
  chosen = _rows(outputs, plan.slots.flatten()).unflatten(0, plan.slots.shape)
  return (routes.weights.to(outputs.dtype)[:, None] @ chosen).squeeze(1)


def grouped_matmul(
  x: torch.Tensor, kernels: torch.Tensor, sizes: torch.Tensor, alignment: int
) -> torch.Tensor:
  """Multiplies consecutive rows with the kernel of their group.

  Args:
    x: [rows, in].
    kernels: [groups, out, in].
    sizes: rows of each group, a multiple of the alignment, int [groups]; their sum is `rows`.
    alignment: rows of a block, which reads the kernel of its group; 1 for the framework's own
      grouped product.

  Returns:
    [rows, out].
  """
  if alignment == 1:
    return F.grouped_mm(x, kernels.mT, offs=sizes.cumsum(0).to(torch.int32))
  blocks = x.unflatten(0, (-1, alignment))
  starts = torch.arange(0, len(x), alignment, device=x.device)
  groups = (starts[:, None] >= sizes.cumsum(0)).sum(1)
  return (blocks @ kernels.index_select(0, groups).mT).flatten(0, 1)


def _has_grouped_mm(device: torch.device, dtype: torch.dtype, widths: tuple[int, ...]) -> bool:
  """Whether PyTorch multiplies groups of these widths without reading kernels more than once."""
  return (
    dtype in _GROUPED_DTYPES.get(device.type, ())
    and all(width * dtype.itemsize % _GROUPED_BYTES == 0 for width in widths)
    and _multiplies_groups(device.type, dtype)
  )


@functools.cache
def _multiplies_groups(device: str, dtype: torch.dtype) -> bool:
  """Whether a small product runs, forward and backward; not all devices have the kernel."""
  rows = torch.ones(32, 16, device=device, dtype=dtype, requires_grad=True)
  kernels = torch.ones(2, 16, 16, device=device, dtype=dtype, requires_grad=True)
  ends = torch.tensor([16, 32], device=device, dtype=torch.int32)
  try:
    with torch.enable_grad():
      F.grouped_mm(rows, kernels.mT, offs=ends).square().sum().backward()
  except (AttributeError, NotImplementedError, RuntimeError):
    return False
  return True
