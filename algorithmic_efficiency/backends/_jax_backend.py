"""JAX on a one-dimensional mesh of devices: places, waits, evaluates and keeps state.

Arrays lie on the mesh in one of two layouts. In the flat one parameters and state are replicated
and batches are cut over their first axis. Submissions that use `jax.pmap` get the older one: every
array has a leading axis for the devices. There, as in AlgoPerf 0.5, batch norm normalizes by the
part of the batch on its own device. It keeps running averages on each device; their mean is
evaluated.
"""

from __future__ import annotations

import collections
import hashlib
import importlib.metadata
import operator
import resource
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from algorithmic_efficiency import errors
from algorithmic_efficiency.backends import _jax_frozen, _jax_state
from algorithmic_efficiency.backends._jax_workload import JaxWorkload
from algorithmic_efficiency.backends.base import (
  Batch,
  DefinedWorkload,
  Devices,
  Generating,
  OnOutputs,
  TaskCode,
  joined,
)
from algorithmic_efficiency.benchmark.definition import Budget, WorkloadDefinition
from algorithmic_efficiency.results.environment import bound_cpus

AXIS = 'batch'
PMAP = 'jax.pmap'  # a submission that uses it expects the layout with a device axis

_MAX_EVAL_BATCHES_IN_FLIGHT = 2


def _has_bfloat16(device: jax.Device) -> bool:
  """NVIDIA's GPUs have it since Ampere, of compute capability 8; other accelerators have it."""
  major = str(getattr(device, 'compute_capability', '')).partition('.')[0]
  return not major.isdigit() or int(major) >= 8


class JaxBackend:
  """Implements `backends.base.Backend` on a mesh with one axis, 'batch'."""

  name = 'jax'

  def __init__(
    self, mesh_devices: list[jax.Device], devices: Devices, *, has_device_axis: bool = False
  ):
    self.num_devices = len(mesh_devices)
    self.rank = devices.rank
    self.world_size = devices.world_size
    self.mesh = Mesh(np.array(mesh_devices), (AXIS,))
    self._devices = devices
    self._mesh_devices = mesh_devices
    self._has_device_axis = has_device_axis
    self._local_devices = [d for d in mesh_devices if d.process_index == jax.process_index()]
    self._batch_sharding = NamedSharding(self.mesh, PartitionSpec(AXIS))
    self._replicated = NamedSharding(self.mesh, PartitionSpec()) if self.num_devices > 1 else None
    self._flat = jax.jit(_flat, out_shardings=self._replicated)
    self._all_finite = jax.jit(_all_finite)
    self._tick = jax.jit(lambda x: x + 1)

  def for_submission(self, uses: frozenset[str]) -> JaxBackend:
    """See the protocol: with a device axis for those that use `jax.pmap`."""
    if PMAP not in uses:
      return self
    if self.world_size > 1 or self.num_devices != jax.local_device_count():
      raise errors.UserError(
        f'A submission that uses {PMAP} must have all devices that JAX sees, in one process; the '
        f'trial has {self.num_devices} of {jax.device_count()} devices in {self.world_size} '
        'process(es). Leave out --num_processes, and hide the other devices from JAX.'
      )
    return JaxBackend(self._mesh_devices, self._devices, has_device_axis=True)

  def workload(
    self,
    definition: WorkloadDefinition,
    task: TaskCode,
    budget: Budget,
    *,
    eval_batch_size: int | None = None,
    running_average_bn: bool = False,
    dtype: Any = None,
  ) -> JaxWorkload:
    """See the protocol; `dtype` is the model's compute type, None for the definition's."""
    device = self._local_devices[0]
    if dtype is None and device.platform != 'cpu':
      dtype = jnp.dtype(definition.accelerator_dtype)
      if dtype == jnp.bfloat16 and not _has_bfloat16(device):
        dtype = jnp.dtype(jnp.float32)
    return JaxWorkload(
      definition,
      task,
      budget,
      eval_batch_size=eval_batch_size,
      running_average_bn=running_average_bn,
      sharding=self._batch_sharding if self._has_device_axis else self._replicated,
      num_copies=self.num_devices if self._has_device_axis else None,
      dtype=dtype,
      eval_shardings=(
        None if self._replicated is None else (self._replicated, self._batch_sharding)
      ),
    )

  def key(self, key_data: np.ndarray) -> np.ndarray:
    """Returns the key data: jax.random and flax take a raw uint32 [2] key, also from numpy."""
    return key_data

  def place(self, batch: Batch) -> Batch:
    if self._has_device_axis:
      batch = jax.tree.map(self._cut, batch)
    return self._place_over_devices(batch)

  def _cut(self, rows: np.ndarray) -> np.ndarray:
    """[batch, ...] -> [devices, batch / devices, ...]."""
    return rows.reshape(self.num_devices, -1, *rows.shape[1:])

  def _place_over_devices(self, batch: Batch) -> Batch:
    if self.num_devices == 1:
      return jax.device_put(batch)
    if self.world_size == 1:
      return jax.device_put(batch, self._batch_sharding)
    return jax.tree.map(self._place_rows, batch)

  def _place_rows(self, rows: np.ndarray) -> jax.Array:
    return jax.make_array_from_process_local_data(self._batch_sharding, rows)

  def synchronize(self, outputs: Any = None) -> None:
    if outputs is not None:
      _wait(jax.tree.leaves(outputs))
      return
    jax.effects_barrier()
    _wait(jax.live_arrays())
    # Work whose outputs were dropped left no array to wait for, but a device works in order.
    _wait([self._tick(jax.device_put(np.float32(0), device)) for device in self._local_devices])

  def eval_sums(
    self,
    workload: DefinedWorkload,
    params: Any,
    model_state: Any,
    batches: Iterable[Batch],
    key_data: np.ndarray,
    *,
    on_outputs: OnOutputs | None = None,
    generating: Generating | None = None,
  ) -> dict[str, Any]:
    assert isinstance(workload, JaxWorkload)
    params, model_state = self.evaluated(params, model_state)
    num_rows = -(-workload.eval_batch_size // self.world_size)
    totals: dict[str, Any] = {}
    in_flight: collections.deque[Any] = collections.deque()

    def fetch() -> None:
      batch, sums, outputs = in_flight.popleft()
      for name, found in jax.device_get(sums).items():
        totals[name] = _added(totals.get(name), found)
      if on_outputs is not None:
        on_outputs(batch, self._own_rows(outputs, len(batch['weights'])))

    for number, batch in enumerate(batches):
      placed = self._place_over_devices(_pad_rows(batch, num_rows, len(self._local_devices)))
      sums, outputs = workload._eval_step(params, model_state, placed, key_data)
      if generating is not None and generating.covers(number):
        generated = workload._generate(params, model_state, placed, is_last=generating.is_last)
        outputs = joined(outputs, generated)
      in_flight.append((batch, sums, outputs))
      if len(in_flight) > _MAX_EVAL_BATCHES_IN_FLIGHT:
        fetch()
    while in_flight:
      fetch()
    result = jax.tree.map(lambda total: total if total.ndim else float(total), totals)
    return {**result, 'num_examples': (result.get('num_examples', (0.0,))[0], 1.0)}

  def _own_rows(self, outputs: Mapping[str, jax.Array], num_rows: int) -> dict[str, np.ndarray]:
    """The rows of this process, without those that were added to a batch of `num_rows`."""
    if self.world_size == 1:
      return {name: rows[:num_rows] for name, rows in jax.device_get(dict(outputs)).items()}
    return {name: _addressable(rows)[:num_rows] for name, rows in outputs.items()}

  def evaluated(self, params: Any, model_state: Any) -> tuple[Any, Any]:
    return self._flat(params, model_state) if self._has_device_axis else (params, model_state)

  def pack(self, trees: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _jax_state.pack(tree) for name, tree in trees.items()}

  def overlay(
    self, fresh: Mapping[str, Any], packed: Mapping[str, Any], *, fixed: Collection[str] = ()
  ) -> dict[str, Any]:
    return {
      name: _jax_state.overlay(tree, packed[name], may_grow=name not in fixed)
      for name, tree in fresh.items()
    }

  def seed(self, value: int) -> None:
    """Nothing to do: JAX has no global random state."""

  def change_marker(self, params: Any) -> _Leaves:
    """The arrays themselves: they cannot be changed, but the dicts that hold them can."""
    return _Leaves(jax.tree.leaves(params))

  def params_hash(self, params: Any) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for leaf in jax.device_get(jax.tree.leaves(params)):
      digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.digest()

  def all_finite(self, params: Any) -> bool:
    return bool(self._all_finite(jax.tree.leaves(params)))

  def scalars(self, values: Mapping[str, Any]) -> dict[str, float]:
    fetched = jax.device_get(dict(values))
    return {name: float(np.asarray(value).item()) for name, value in fetched.items()}

  def sync_max(self, value: float) -> float:
    if self.world_size == 1:
      return value
    # As two 32-bit words, because JAX would round a float64 to float32.
    words = np.array([value], np.float64).view(np.uint32)
    gathered = np.ascontiguousarray(multihost_utils.process_allgather(words))
    return float(gathered.view(np.float64).max())

  def barrier(self) -> None:
    if self.world_size > 1:
      multihost_utils.sync_global_devices('barrier')

  def gather(self, content: bytes) -> list[bytes]:
    if self.world_size == 1:
      return [content]
    lengths = multihost_utils.process_allgather(np.array([len(content)], np.int32)).reshape(-1)
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    gathered = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(lengths), -1)
    return [row[:length].tobytes() for row, length in zip(gathered, lengths, strict=True)]

  def peak_memory_bytes(self) -> dict[str, int]:
    peak = {'host': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    stats = [device.memory_stats() or {} for device in self._local_devices]
    known = [s['peak_bytes_in_use'] for s in stats if 'peak_bytes_in_use' in s]
    if known:
      peak['device'] = max(known)
    return peak

  def live_arrays(self) -> tuple[int, int]:
    arrays = jax.live_arrays()
    return len(arrays), sum(array.nbytes for array in arrays)

  def describe(self) -> dict[str, Any]:
    device = self._local_devices[0]
    versions = {name: importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'flax')}
    return {
      'framework': self.name,
      'versions': versions,
      'platform': device.platform,
      'device_kind': device.device_kind,
      'num_devices': self.num_devices,
      'world_size': self.world_size,
      'num_threads': self._devices.num_threads or len(bound_cpus()),
      'compilation_cache': jax.config.jax_compilation_cache_dir,
    }

  def stop(self) -> None:
    if self.world_size > 1:
      jax.distributed.shutdown()


class _Leaves:
  """Arrays that are compared by identity, and kept alive so that no other takes their place."""

  __hash__ = None  # type: ignore[assignment]

  def __init__(self, leaves: list[Any]):
    self._leaves = leaves

  def __eq__(self, other: object) -> bool:
    return (
      isinstance(other, _Leaves)
      and len(self._leaves) == len(other._leaves)
      and all(map(operator.is_, self._leaves, other._leaves))
    )


def _flat(params: Any, model_state: Any) -> tuple[Any, Any]:
  """Parameters and model state without their device axis: one copy, and the mean of the copies."""

  def mean(path: Any, x: jax.Array) -> jax.Array:
    is_frozen = getattr(path[0], 'key', None) == _jax_frozen.STATE  # the copies are equal
    return x[0] if is_frozen or not jnp.issubdtype(x.dtype, jnp.inexact) else x.mean(0)

  return (
    jax.tree.map(lambda x: x[0], params),
    jax.tree_util.tree_map_with_path(mean, model_state),
  )


def _added(total: Any, found: Any) -> Any:
  """The sums of one more batch, added in float64 to those before; None before the first."""
  if total is None:
    total = jax.tree.map(lambda array: 0.0, found)
  return jax.tree.map(lambda before, array: np.add(before, array, dtype=np.float64), total, found)


def _addressable(rows: jax.Array) -> np.ndarray:
  """The rows [rows, ...] of an array cut over its first axis that are on this process's devices."""
  shards = sorted(rows.addressable_shards, key=lambda shard: shard.index[0].start or 0)
  return np.concatenate([np.asarray(shard.data) for shard in shards])


def _all_finite(leaves: list[jax.Array]) -> jax.Array:
  return jnp.array([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def _wait(leaves: Iterable[Any]) -> None:
  """Waits for every array that still exists: a donated one is waited for through its successor."""
  for leaf in leaves:
    if isinstance(leaf, jax.Array):
      try:
        leaf.block_until_ready()
      except RuntimeError:
        if not leaf.is_deleted():
          raise


def _pad_rows(batch: Batch, num_rows: int, num_devices: int) -> Batch:
  """The batch with rows of weight 0 added, so that it splits evenly and always compiles the same.

  Args:
    num_rows: rows of this process in a full batch, at least.
    num_devices: devices of this process.
  """
  num_found = len(batch['weights'])
  missing = -(-max(num_rows, num_found) // num_devices) * num_devices - num_found
  if not missing:
    return batch

  def pad(rows: np.ndarray) -> np.ndarray:
    padding = np.zeros((missing, *rows.shape[1:]), rows.dtype)
    if num_found:
      padding[:] = rows[0]  # rows that a model can take
    return np.concatenate([rows, padding])

  padded = jax.tree.map(pad, batch)
  padded['weights'][num_found:] = 0
  return padded
