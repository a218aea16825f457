"""AlgoPerf's `jax_sharding_utils`: shardings on the one-dimensional mesh with the axis 'batch'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_devices: Sequence[jax.Device] | None = None


def use_devices(devices: Sequence[jax.Device] | None) -> None:
  """Sets the devices of the trial; None is all devices of the machine."""
  global _devices
  _devices = devices


def _sharding(*axes: str) -> NamedSharding:
  devices = jax.devices() if _devices is None else _devices
  return NamedSharding(Mesh(np.array(devices), ('batch',)), PartitionSpec(*axes))


def get_replicate_sharding() -> NamedSharding:
  """Returns the sharding that replicates an array on each device."""
  return _sharding()


def get_batch_dim_sharding() -> NamedSharding:
  """Returns the sharding that splits the leading axis over the devices."""
  return _sharding('batch')


def shard_along_batch_dim(tree: Any) -> Any:
  """Shards the leading axis of every leaf, [batch, ...], over the devices."""
  return jax.device_put(tree, get_batch_dim_sharding())


def replicate(tree: Any) -> Any:
  """Replicates every leaf on each device."""
  return jax.device_put(tree, get_replicate_sharding())


def display_shard_info(x: jax.Array) -> None:
  """Prints shape, sharding and devices of an array, and the shape of each of its shards."""
  print(f'{x.dtype}{list(x.shape)}, {x.sharding}')
  for shard in x.addressable_shards:
    print(f'  {shard.device}: {list(shard.data.shape)} at {shard.index}')
