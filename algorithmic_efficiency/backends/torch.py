"""Starts PyTorch on the device of a process, and says what to install where it is missing."""

from __future__ import annotations

import os
import secrets
import time
from typing import TYPE_CHECKING

from algorithmic_efficiency import errors, trust
from algorithmic_efficiency.backends import ports
from algorithmic_efficiency.backends.base import Devices, TaskCode
from algorithmic_efficiency.backends.roles import Parameter
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition

if TYPE_CHECKING:
  import numpy as np
  import torch

  from algorithmic_efficiency.backends._torch_backend import TorchBackend

INSTALL = "pip install 'algorithmic-efficiency[torch]'"

# A process gives up on peers that hang after this time, in which one of them may write a large
# checkpoint. That a peer has died is noticed at once, by whoever started the processes.
TIMEOUT_SEC = 600.0
_POLL_SEC = 0.01

# Where submissions and libraries look for their rank among the processes.
_PLACE_VARIABLES = ('LOCAL_RANK', 'RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')


def start(devices: Devices) -> TorchBackend:
  """Configures PyTorch, claims this process's device and joins the other processes of the trial.

  Call it once in a process, before a submission is imported. A submission finds its rank and the
  world size in the environment, or nothing where there is one process.

  Raises:
    errors.UserError: PyTorch is not installed, the devices asked for are not there, or the address
      is taken.
  """
  _require_torch()
  import torch

  if devices.num_devices not in (None, devices.world_size):
    raise errors.UserError(
      f'PyTorch runs one process for each device; {devices.num_devices} devices were asked for '
      f'with {devices.world_size} process(es). Ask for as many processes as devices.'
    )
  device = _device(devices)
  if devices.num_threads is not None:
    torch.set_num_threads(devices.num_threads)
  if device.type == 'cuda':
    torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = True
  compiles = devices.compile == 'on' or (devices.compile == 'auto' and device.type == 'cuda')
  if compiles:
    _set_compilation_cache(devices.compilation_cache)
    trust.trust_command('torch/_inductor/compile_worker')
  _tell_place(devices)
  if devices.world_size > 1:
    _join(devices, device)
  from algorithmic_efficiency.backends._torch_backend import TorchBackend
  from algorithmic_efficiency.compat import pytorch_utils

  pytorch_utils.use_device(device)  # entries ask for it without naming it
  return TorchBackend(device, devices, compiles=compiles)


def parameters(definition: WorkloadDefinition, task: TaskCode) -> list[Parameter]:
  """Every parameter, its name joined by '.', without allocating any."""
  _require_torch()
  from algorithmic_efficiency.backends import _torch_workload

  return _torch_workload.parameters(definition, task)


def frozen_param(
  definition: WorkloadDefinition,
  task: TaskCode,
  rng: np.ndarray,
  name: str,
  *,
  dtype: torch.dtype | None = None,
) -> torch.Tensor:
  """Makes the initial value of one frozen parameter again, on the host.

  The value depends on the key and the name alone. Making it builds the model once.

  Args:
    rng: the random key that `init_model_fn` got.
    name: name of the parameter, with '.' between the names of modules; the first of several.
    dtype: the model's compute type; None takes the model's own choice.

  Raises:
    UserError: no frozen parameter has this name.
  """
  _require_torch()
  from algorithmic_efficiency.backends import _torch_workload

  return _torch_workload.frozen_param(definition, task, rng, name, dtype=dtype)


def _require_torch() -> None:
  try:
    import torch  # noqa: F401
  except ModuleNotFoundError as error:
    if error.name is None or error.name.partition('.')[0] != 'torch':
      raise
    raise errors.UserError(
      f'The framework pytorch needs the package {error.name!r}, which is not installed. Install it '
      f'with: {INSTALL}'
    ) from None


def _device(devices: Devices) -> torch.device:
  import torch

  wanted = devices.platform
  if wanted == 'tpu':
    raise errors.UserError('--platform tpu is for JAX; PyTorch runs on CPUs and GPUs here.')
  num_gpus = 0 if wanted == 'cpu' else torch.cuda.device_count()
  if wanted == 'gpu' and not num_gpus:
    raise errors.UserError(
      '--platform gpu needs a GPU, and PyTorch finds none. Give --platform cpu, or install a CUDA '
      'build of PyTorch.'
    )
  if not num_gpus:
    return torch.device('cpu')
  if devices.local_rank >= num_gpus:
    raise errors.UserError(
      f'Every process needs a GPU of its own; PyTorch finds {num_gpus} on this host, and at least '
      f'{devices.local_rank + 1} processes were asked for. Ask for fewer.'
    )
  return torch.device('cuda', devices.local_rank)


def _set_compilation_cache(folder: str | None) -> None:
  """Without a folder nothing is kept, and nothing is found that an earlier trial has kept."""
  import torch

  torch.compiler.config.force_disable_caches = folder is None
  if folder is not None:
    os.environ['TORCHINDUCTOR_CACHE_DIR'] = folder


def _tell_place(devices: Devices) -> None:
  if devices.world_size == 1:
    for name in _PLACE_VARIABLES:
      os.environ.pop(name, None)
    return
  values = (devices.local_rank, devices.rank, devices.world_size, *_store_place(devices))
  os.environ.update(zip(_PLACE_VARIABLES, map(str, values), strict=True))


def _join(devices: Devices, device: torch.device) -> None:
  """Joins the process group of the trial."""
  from datetime import timedelta

  from torch import distributed

  if not distributed.is_available():
    raise errors.UserError(
      'Several processes need torch.distributed, which this build of PyTorch does not have. '
      'Install one that has, or use one process.'
    )
  # A launcher's store serves all its trials, but each has an address of its own.
  store = distributed.PrefixStore(devices.address, _open_store(devices))
  distributed.init_process_group(
    'nccl' if device.type == 'cuda' else 'gloo',
    store=distributed.PrefixStore(_agree_on_name(store, devices), store),
    rank=devices.rank,
    world_size=devices.world_size,
    timeout=timedelta(seconds=TIMEOUT_SEC),
    device_id=device if device.type == 'cuda' else None,
  )


def _open_store(devices: Devices) -> torch.distributed.Store:
  """The store in which the processes of the trial meet: a launcher's, or one that rank 0 keeps."""
  from datetime import timedelta

  from torch.distributed import TCPStore

  host, port = _store_place(devices)
  is_kept_here = devices.rank == 0 and not devices.store
  if is_kept_here:
    ports.require_free(devices.address)  # to ask a stranger for a store never ends
  timeout = timedelta(seconds=TIMEOUT_SEC)
  return TCPStore(host, port, is_master=is_kept_here, timeout=timeout, wait_for_workers=False)


def _store_place(devices: Devices) -> tuple[str, int]:
  """Host and port of the store."""
  host, _, port = (devices.store or devices.address).rpartition(':')
  return host, int(port)


def _agree_on_name(store: torch.distributed.Store, devices: Devices) -> str:
  """A name for this trial's group that all its processes know, and that no other trial has had.

  A launcher's store still holds what earlier trials wrote there. So every process shows a token of
  its own, and rank 0 answers under that token with the name, until all have confirmed it.

  Raises:
    TimeoutError: a process did not come in time.
  """
  if devices.rank != 0:
    token = secrets.token_hex(8)
    store.set(f'algoeff/token/{devices.rank}', token)
    name = store.get(f'algoeff/name/{token}').decode()
    store.set(f'{name}/confirmed/{devices.rank}', '')
    return name
  name = f'algoeff/group/{secrets.token_hex(8)}'
  missing = set(range(1, devices.world_size))
  deadline = time.monotonic() + TIMEOUT_SEC
  while missing:
    for rank in missing:
      if store.check([f'algoeff/token/{rank}']):
        token = store.get(f'algoeff/token/{rank}').decode()
        store.set(f'algoeff/name/{token}', name)
    missing = {rank for rank in missing if not store.check([f'{name}/confirmed/{rank}'])}
    if missing and time.monotonic() > deadline:
      ranks = ', '.join(map(str, sorted(missing)))
      raise TimeoutError(f'Rank {ranks} did not come within {TIMEOUT_SEC:.0f} s.')
    time.sleep(_POLL_SEC)
  return name
