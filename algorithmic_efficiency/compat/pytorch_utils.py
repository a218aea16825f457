"""AlgoPerf's `pytorch_utils`."""

from __future__ import annotations

import os

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from algorithmic_efficiency.compat import absent

_device: torch.device | None = None


def use_device(device: torch.device | None) -> None:
  """Sets the device of this process; None is its own GPU if there is one, else the CPU."""
  global _device
  _device = device


def pytorch_setup() -> tuple[bool, int, torch.device, int]:
  """Returns the position of this process in the trial, determined at the call.

  Returns:
    True if several processes train together, the rank on this host, the device of this process, and
    the number of GPUs of this host.
  """
  grouped = torch.distributed.is_available() and torch.distributed.is_initialized()
  use_ddp = grouped or 'LOCAL_RANK' in os.environ
  rank = 0
  if use_ddp:
    rank = int(os.environ.get('LOCAL_RANK') or torch.distributed.get_rank())
  num_gpus = torch.cuda.device_count()
  own = torch.device(f'cuda:{rank}' if torch.cuda.is_available() else 'cpu')
  return use_ddp, rank, _device or own, num_gpus


pytorch_init = absent.Absent(
  'pytorch_utils.pytorch_init',
  'the harness has set up devices and processes before a submission is imported; '
  'pytorch_setup() tells them',
)


def sync_ddp_time(time: float, device: torch.device) -> float:
  """Returns the largest of a number of seconds over the processes of the trial."""
  if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
    return time
  seconds = torch.tensor(time, dtype=torch.float64, device=device)
  torch.distributed.all_reduce(seconds, op=torch.distributed.ReduceOp.MAX)
  return seconds.item()


def update_batch_norm_fn(module: nn.Module, update_batch_norm: bool) -> None:
  """Says of one batch norm layer whether it updates its running statistics; for `Module.apply`."""
  if not isinstance(module, _BatchNorm):
    return
  if hasattr(module, 'update_running_stats'):  # a layer of this project
    module.update_running_stats = update_batch_norm
  else:
    if not hasattr(module, '_own_momentum'):
      module._own_momentum = module.momentum
    module.momentum = module._own_momentum if update_batch_norm else 0.0


class _DropoutAtRate(nn.Module):
  """Dropout whose rate comes with each call; a subclass names the function that drops."""

  _supports_custom_dropout = True
  _drop = staticmethod(F.dropout)

  def forward(self, x: torch.Tensor, p: float) -> torch.Tensor:
    """Returns `x` with values zeroed at rate `p` while training."""
    return self._drop(x, p, self.training)


class CustomDropout(_DropoutAtRate):
  """Dropout of single values."""


class CustomDropout2d(_DropoutAtRate):
  """Dropout of whole channels of `x`, [batch, channels, ...]."""

  _drop = staticmethod(F.dropout2d)


class SequentialWithDropout(nn.Sequential):
  """Modules in a row, of which those whose `_supports_custom_dropout` is true take a rate."""

  _supports_custom_dropout = True

  def forward(self, x: torch.Tensor, p: float) -> torch.Tensor:
    """Returns what the last module makes of `x`; modules that take a rate get `p`."""
    for module in self:
      takes_rate = getattr(module, '_supports_custom_dropout', False)
      x = module(x, *([p] if takes_rate else []))
    return x
