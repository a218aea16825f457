"""The only place that says which framework: `start` imports the backend by its name."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from algorithmic_efficiency.backends.base import Backend, Devices

_MODULES = {'jax': 'jax', 'pytorch': 'torch'}
FRAMEWORKS = tuple(_MODULES)

_NVIDIA_GPUS = Path('/proc/driver/nvidia/gpus')


def module(framework: str) -> ModuleType:
  """The backend of a framework: `start(devices)` and `parameters(definition, task_code)`."""
  return importlib.import_module(f'{__name__}.{_MODULES[framework]}')


def start(framework: str, devices: Devices) -> Backend:
  """Imports the framework and starts it on `devices`; once per process."""
  from algorithmic_efficiency.compat import random_utils  # which imports numpy

  random_utils.use_framework(framework)
  return module(framework).start(devices)


def num_processes(
  framework: str, *, platform: str, num_devices: int | None, num_processes: int | None
) -> int:
  """How many processes a trial on this host takes, decided without importing the framework.

  JAX drives all devices from one process unless told otherwise; PyTorch takes one for each device,
  by default for each GPU that is visible.
  """
  if num_processes is not None:
    return num_processes
  if not has_process_per_device(framework):
    return 1
  if num_devices is not None:
    return num_devices
  return max(1, len(visible_gpus())) if platform in ('auto', 'gpu') else 1


def has_process_per_device(framework: str) -> bool:
  """True if each process of the framework drives one device; JAX's drives any number."""
  return framework != 'jax'


def visible_gpus() -> tuple[str, ...]:
  """The GPUs that processes of ours see, as CUDA_VISIBLE_DEVICES would name them."""
  visible = os.environ.get('CUDA_VISIBLE_DEVICES')
  if visible is not None:
    return tuple(name.strip() for name in visible.split(',') if name.strip() not in ('', '-1'))
  found = len(list(_NVIDIA_GPUS.iterdir())) if _NVIDIA_GPUS.is_dir() else 0
  return tuple(map(str, range(found)))


def sharing(num_processes: int) -> dict[str, str]:
  """The environment variables by which so many processes have room on one GPU."""
  if num_processes == 1:
    return {}
  return {'XLA_PYTHON_CLIENT_MEM_FRACTION': f'{0.9 / num_processes:.3f}'}  # JAX takes it at once
