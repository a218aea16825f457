"""AlgoPerf's `jax_sharding_utils`: shardings on the one-dimensional mesh with the axis 'batch'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_devices: Sequence[jax.Device] | None = None


def use_devices(devices: Sequence[jax.Device] | None) -> None:
  """Sets the devices of the trial, which may be fewer than there are; None means all."""
  global _devices
  _devices = devices


def _sharding(*axes: str) -> NamedSharding:
  devices = jax.devices() if _devices is None else _devices
  return NamedSharding(Mesh(np.array(devices), ('batch',)), PartitionSpec(*axes))


def get_replicate_sharding() -> NamedSharding:
  """The whole array on each device."""
  return _sharding()


def get_batch_dim_sharding() -> NamedSharding:
  """The leading axis cut into one part for each device."""
  return _sharding('batch')


def shard_along_batch_dim(tree: Any) -> Any:
  """Every leaf ([batch, ...]) with its leading axis cut over the devices."""
  return jax.device_put(tree, get_batch_dim_sharding())


def replicate(tree: Any) -> Any:
  """Every leaf on each device."""
  return jax.device_put(tree, get_replicate_sharding())


def display_shard_info(x: jax.Array) -> None:
  """Prints shape, sharding and devices of an array, and the shape of each of its shards."""
  print(f'{x.dtype}{list(x.shape)}, {x.sharding}')
  for shard in x.addressable_shards:
    print(f'  {shard.device}: {list(shard.data.shape)} at {shard.index}')
