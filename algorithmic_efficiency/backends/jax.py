"""Starts JAX on the devices of a trial, and says what needs to be installed where it is missing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.backends import ports
from algorithmic_efficiency.backends.base import Devices, TaskCode
from algorithmic_efficiency.backends.roles import Parameter
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.results import environment

if TYPE_CHECKING:
  import jax
  import numpy as np

  from algorithmic_efficiency.backends._jax_backend import JaxBackend

INSTALL = "pip install 'algorithmic-efficiency[jax]'"

# A trial has its devices to itself: JAX's own default leaves a quarter of their memory unused.
_GPU_MEMORY_FRACTION = '0.9'

# How long the processes of a trial wait for each other at the start, and for a sign of life.
_START_TIMEOUT_SEC = 120
_HEARTBEAT_TIMEOUT_SEC = 30


def start(devices: Devices) -> JaxBackend:
  """Configures JAX, joins the other processes of the trial, and claims the devices.

  To be called once in a process, before anything else makes JAX look for its devices. A second call
  returns another backend on the same devices and cannot change what the first one configured.

  Raises:
    errors.UserError: JAX or flax is not installed, the devices asked for are not there, or the
      address is taken.
  """
  _require_frameworks()
  if devices.num_devices is not None and devices.num_devices % devices.world_size:
    raise errors.UserError(
      f'The devices must divide evenly over the processes; {devices.num_devices} devices do not '
      f'over {devices.world_size} processes.'
    )
  _configure(devices)
  from algorithmic_efficiency.backends._jax_backend import JaxBackend
  from algorithmic_efficiency.compat import jax_sharding_utils

  mesh_devices = _claim(devices)
  jax_sharding_utils.use_devices(mesh_devices)  # entries ask for them without naming them
  return JaxBackend(mesh_devices, devices)


def parameters(definition: WorkloadDefinition, task: TaskCode) -> list[Parameter]:
  """Every parameter, its name joined by '/', without allocating any."""
  _require_frameworks()
  from algorithmic_efficiency.backends import _jax_workload

  return _jax_workload.parameters(definition, task)


def frozen_param(
  definition: WorkloadDefinition, task: TaskCode, rng: np.ndarray, name: str, *, dtype: Any = None
) -> jax.Array:
  """Makes the initial value of one frozen parameter again, without the other parameters.

  Args:
    rng: the random key that `init_model_fn` got.
    name: name of the parameter, with '/' between the names of modules.
    dtype: the model's compute type; None takes the model's own choice.

  Raises:
    UserError: no frozen parameter has this name.
  """
  _require_frameworks()
  from algorithmic_efficiency.backends import _jax_workload

  return _jax_workload.frozen_param(definition, task, rng, name, dtype=dtype)


def _require_frameworks() -> None:
  try:
    import flax.linen  # noqa: F401
    import jax  # noqa: F401
  except ModuleNotFoundError as error:
    if error.name is None or error.name.partition('.')[0] not in ('jax', 'jaxlib', 'flax'):
      raise
    raise errors.UserError(
      f'The framework jax needs the package {error.name!r}, which is not installed. Install it '
      f'with: {INSTALL}'
    ) from None


def _configure(devices: Devices) -> None:
  """Sets what JAX reads when it first looks for its devices."""
  import jax

  num_threads = _pool_size(devices)
  if num_threads is not None:
    # The only handle on the thread pool of XLA's CPU client.
    os.environ['PJRT_NPROC'] = str(num_threads)
  os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', _GPU_MEMORY_FRACTION)
  jax.config.update('jax_threefry_partitionable', True)
  if devices.compilation_cache is not None:
    jax.config.update('jax_compilation_cache_dir', devices.compilation_cache)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
  if devices.platform == 'cpu':
    jax.config.update('jax_platforms', 'cpu')
  if _is_initialized():
    return
  if devices.num_local_devices is not None:
    jax.config.update('jax_num_cpu_devices', devices.num_local_devices)
  if devices.world_size > 1:
    if devices.rank == 0:
      ports.require_free(devices.address)  # JAX itself would crash
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(
      coordinator_address=devices.address,
      num_processes=devices.world_size,
      process_id=devices.rank,
      local_device_ids=_local_gpus(devices),
      initialization_timeout=_START_TIMEOUT_SEC,
      heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT_SEC,
    )


def _pool_size(devices: Devices) -> int | None:
  """Threads of XLA's CPU client; None leaves it its own choice.

  A simulated device holds a thread while it waits for the others in a collective. It holds another
  while it is handed a program and has 32 unfinished ones. With fewer than two for each device, work
  that the others wait for may find no thread: they stop for good.
  """
  num_local = devices.num_local_devices or 1
  if num_local == 1:
    return devices.num_threads
  return max(devices.num_threads or len(environment.bound_cpus()), 2 * num_local)


def _is_initialized() -> bool:
  from jax._src import xla_bridge  # there is no public way to ask

  return xla_bridge.backends_are_initialized()


def _local_gpus(devices: Devices) -> list[int] | None:
  """The GPUs of this process among those of its host; None takes all that it sees."""
  num_local = devices.num_local_devices
  if num_local is None or devices.platform in ('cpu', 'tpu'):
    return None
  return list(range(devices.local_rank * num_local, (devices.local_rank + 1) * num_local))


def _claim(devices: Devices) -> list[Any]:
  """The devices of the trial, over all processes, in the order of the mesh."""
  import jax

  try:
    found = jax.devices()
  except RuntimeError as error:
    raise errors.UserError(f'JAX cannot start on its devices: {error}') from error
  if devices.platform not in ('auto', found[0].platform):
    raise errors.UserError(
      f'--platform {devices.platform} needs such a device, and JAX finds only {found[0].platform}. '
      f'Give --platform {found[0].platform}, or install the accelerator build of JAX.'
    )
  num_devices = len(found) if devices.num_devices is None else devices.num_devices
  if num_devices > len(found):
    raise errors.UserError(
      f'{num_devices} devices were asked for, but JAX finds {len(found)} of the platform '
      f'{found[0].platform}. Ask for fewer.'
    )
  return found[:num_devices]
