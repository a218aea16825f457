"""Starts PyTorch on the device of a rank, or says what needs to be installed for it."""

from __future__ import annotations

import datetime
import os
from typing import TYPE_CHECKING

from algorithmic_efficiency import errors
from algorithmic_efficiency.backends.base import Devices, TaskCode
from algorithmic_efficiency.definition import WorkloadDefinition

if TYPE_CHECKING:
  import torch

  from algorithmic_efficiency.backends._torch_backend import TorchBackend

INSTALL = "pip install 'algorithmic-efficiency[torch]'"

# A rank that waits for one that has died gives up within this time.
_TIMEOUT = datetime.timedelta(seconds=45)


def start(devices: Devices) -> TorchBackend:
  """Chooses the device, joins the other ranks of the trial.

  To be called once in a process, before a submission is imported: entries look at LOCAL_RANK then.

  Raises:
    errors.UserError: PyTorch is not installed, or there are not the devices that were asked for.
  """
  _require_framework()
  if devices.num_devices not in (None, devices.num_ranks):
    raise errors.UserError(
      f'PyTorch runs one process for each device; {devices.num_devices} devices were asked for and '
      f'there are {devices.num_ranks} processes.'
    )
  import torch

  if devices.num_threads is not None:
    torch.set_num_threads(devices.num_threads)
  device = _device(devices)
  if device.type == 'cuda':
    torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = True
  if devices.num_ranks > 1:
    _join(devices, device)
  from algorithmic_efficiency.backends._torch_backend import TorchBackend

  return TorchBackend(device, devices)


def parameters(
  definition: WorkloadDefinition, task: TaskCode
) -> list[tuple[str, tuple[int, ...], str]]:
  """Name (joined by '.'), shape and type name of every parameter, without allocating any."""
  _require_framework()
  from algorithmic_efficiency.backends import _torch_workload

  return _torch_workload.parameters(definition, task)


def _require_framework() -> None:
  try:
    import torch  # noqa: F401
  except ModuleNotFoundError as error:
    if error.name != 'torch':
      raise
    raise errors.UserError(
      f'The framework pytorch needs the package torch, which is not installed. Install it with: '
      f'{INSTALL}'
    ) from None


def _device(devices: Devices) -> torch.device:
  import torch

  if devices.platform == 'tpu':
    raise errors.UserError('PyTorch runs on CPUs and GPUs here; use JAX for TPUs.')
  num_gpus = torch.cuda.device_count() if devices.platform != 'cpu' else 0
  if num_gpus == 0:
    if devices.platform == 'gpu':
      raise errors.UserError('The platform gpu was asked for, but PyTorch finds no GPU.')
    return torch.device('cpu')
  if devices.local_rank >= num_gpus:
    raise errors.UserError(
      f'Each process needs a GPU of its own; there are {num_gpus}, and process '
      f'{devices.local_rank} of this host has none. Ask for fewer devices.'
    )
  return torch.device('cuda', devices.local_rank)


def _join(devices: Devices, device: torch.device) -> None:
  """Joins the process group, and says so in the environment, where entries look for it."""
  import torch.distributed as dist

  host, port = devices.address.rsplit(':', 1)
  os.environ.update(
    RANK=str(devices.rank),
    LOCAL_RANK=str(devices.local_rank),
    WORLD_SIZE=str(devices.num_ranks),
    MASTER_ADDR=host,
    MASTER_PORT=port,
  )
  # The trial's group meets at a port of its own, not in the store of torchrun's agent.
  os.environ.pop('TORCHELASTIC_USE_AGENT_STORE', None)
  dist.init_process_group(
    'nccl' if device.type == 'cuda' else 'gloo',
    init_method=f'tcp://{devices.address}',
    rank=devices.rank,
    world_size=devices.num_ranks,
    timeout=_TIMEOUT,
  )
