"""AlgoPerf's `pytorch_utils`, as far as entries use it."""

from __future__ import annotations

import os

import torch

_device: torch.device | None = None


def use_device(device: torch.device | None) -> None:
  """Sets the device of this process; None means its own GPU if there is one, else the CPU."""
  global _device
  _device = device


def pytorch_setup() -> tuple[bool, int, torch.device, int]:
  """This process's place among those of the trial, found out when called.

  Returns:
    Whether several processes train together, the rank among those on this host, the device of this
    process, and the number of GPUs of this host.
  """
  grouped = torch.distributed.is_available() and torch.distributed.is_initialized()
  use_ddp = grouped or 'LOCAL_RANK' in os.environ
  rank = 0
  if use_ddp:
    rank = int(os.environ.get('LOCAL_RANK') or torch.distributed.get_rank())
  num_gpus = torch.cuda.device_count()
  own = torch.device(f'cuda:{rank}' if torch.cuda.is_available() else 'cpu')
  return use_ddp, rank, _device or own, num_gpus
