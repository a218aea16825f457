"""PyTorch on one device a process: places, waits, evaluates and keeps state."""

from __future__ import annotations

import collections
import gc
import hashlib
import resource
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import distributed, nn
from torch.utils import _pytree as tree

from algorithmic_efficiency.backends import _torch_state
from algorithmic_efficiency.backends._torch_workload import TorchWorkload, unwrap
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

_MAX_EVAL_BATCHES_IN_FLIGHT = 2


def _has_bfloat16(device: torch.device) -> bool:
  """NVIDIA's GPUs have it since Ampere, of compute capability 8."""
  return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


class TorchBackend:
  """Implements `backends.base.Backend` with one device for each process of the trial."""

  name = 'pytorch'

  def __init__(self, device: torch.device, devices: Devices, *, compiles: bool):
    self.num_devices = devices.world_size
    self.rank = devices.rank
    self.world_size = devices.world_size
    self.device = device
    self._compiles = compiles
    self._compilation_cache = devices.compilation_cache if compiles else None
    self._on_cuda = device.type == 'cuda'
    self._place_array: Callable[[np.ndarray], torch.Tensor] = (
      self._copy_to_device if self._on_cuda else torch.from_numpy
    )

  def for_submission(self, uses: frozenset[str]) -> TorchBackend:
    """The same for all of them."""
    return self

  def workload(
    self,
    definition: WorkloadDefinition,
    task: TaskCode,
    budget: Budget,
    *,
    eval_batch_size: int | None = None,
    running_average_bn: bool = False,
    dtype: torch.dtype | None = None,
  ) -> TorchWorkload:
    """See the protocol; `dtype` is the model's compute type, None for the definition's."""
    if dtype is None and self._on_cuda:
      dtype = getattr(torch, definition.accelerator_dtype)
      if dtype == torch.bfloat16 and not _has_bfloat16(self.device):
        dtype = torch.float32
    return TorchWorkload(
      definition,
      task,
      budget,
      eval_batch_size=eval_batch_size,
      device=self.device,
      world_size=self.world_size,
      compiles=self._compiles,
      dtype=dtype,
    )

  def key(self, key_data: np.ndarray) -> np.ndarray:
    """AlgoPerf's form: two numbers that are not negative, int32 [2]; the first is a seed."""
    return (key_data >> 1).astype(np.int32)

  def place(self, batch: Batch) -> Batch:
    """See the protocol; whole numbers become int64, as PyTorch's losses and AlgoPerf have them.

    Images, which are arrays of rank 4, become [batch, channels, height, width]. On a CPU all other
    tensors share the memory of the arrays.
    """
    return {name: self._place(value) for name, value in batch.items()}

  def _place(self, value: Any) -> Any:
    if isinstance(value, np.ndarray):
      tensor = self._place_array(value)
      if tensor.dtype == torch.int32:
        return tensor.long()
      return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor
    if isinstance(value, dict):
      return self.place(value)
    if isinstance(value, (list, tuple)):
      items = [self._place(item) for item in value]
      return type(value)(*items) if hasattr(value, '_fields') else type(value)(items)
    return value

  def _copy_to_device(self, array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).pin_memory().to(self.device, non_blocking=True)

  def synchronize(self, outputs: Any = None) -> None:
    """See the protocol. Nothing is in flight on a CPU; a GPU is waited for as a whole."""
    if not self._on_cuda:
      return
    if outputs is not None:
      torch.cuda.synchronize(self.device)
      return
    for index in range(torch.cuda.device_count()):
      if torch._C._cuda_hasPrimaryContext(index):  # to ask a device without one would set it up
        torch.cuda.synchronize(index)

  def eval_sums(
    self,
    workload: DefinedWorkload,
    params: nn.Module,
    model_state: Any,
    batches: Iterable[Batch],
    key_data: np.ndarray,
    *,
    on_outputs: OnOutputs | None = None,
    generating: Generating | None = None,
  ) -> dict[str, Any]:
    assert isinstance(workload, TorchWorkload)
    model, key = workload._eval_copy(params), self.key(key_data)
    num_examples = 0
    totals = _Totals(self._stacked)
    in_flight: collections.deque[Any] = collections.deque()

    def fetch() -> None:
      mark, batch, outputs = in_flight.popleft()
      if mark is not None:
        mark.synchronize()
      if on_outputs is not None:
        on_outputs(batch, {name: rows.numpy() for name, rows in outputs.items()})

    for number, batch in enumerate(batches):
      num_examples += _num_examples(batch['weights'])
      placed = self.place(batch)
      sums, outputs = workload._eval_batch(model, placed, key)
      if generating is not None and generating.covers(number):
        generated = workload._generate_batch(model, placed, is_last=generating.is_last)
        outputs = joined(outputs, generated)
      totals.add(sums)
      fetched = {} if on_outputs is None else self._to_host(outputs)
      in_flight.append((self._mark(), batch, fetched))
      if len(in_flight) > (_MAX_EVAL_BATCHES_IN_FLIGHT if self._on_cuda else 0):
        fetch()
    while in_flight:
      fetch()
    numbers = self._over_ranks([*totals.numbers(), num_examples], 'SUM')
    return {**totals.tree(numbers[:-1]), 'num_examples': (numbers[-1], 1.0)}

  def _to_host(self, outputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Begins to copy tensors to the host; numpy knows no bfloat16, so that becomes float32."""
    return {
      name: (rows.float() if rows.dtype == torch.bfloat16 else rows)
      .detach()
      .to('cpu', non_blocking=True)
      for name, rows in outputs.items()
    }

  def _mark(self) -> torch.cuda.Event | None:
    """Marks the work so far, so that the device is behind by a few batches at most.

    Host memory is held until the device has read it.
    """
    if not self._on_cuda:
      return None
    mark = torch.cuda.Event()
    mark.record()
    return mark

  def _stacked(self, numbers: Iterable[Any]) -> torch.Tensor:
    """Scalars of any kind as float64 [n] on the device."""
    scalars = [torch.as_tensor(n, dtype=torch.float64, device=self.device) for n in numbers]
    return torch.stack([scalar.detach().reshape(()) for scalar in scalars])

  def evaluated(self, params: nn.Module, model_state: Any) -> tuple[nn.Module, Any]:
    return params, model_state

  def pack(self, trees: Mapping[str, Any]) -> dict[str, Any]:
    return _torch_state.pack(dict(trees))

  def overlay(
    self, fresh: Mapping[str, Any], packed: Mapping[str, Any], *, fixed: Collection[str] = ()
  ) -> dict[str, Any]:
    return _torch_state.overlay_trees(fresh, packed, device=self.device, fixed=fixed)

  def seed(self, value: int) -> None:
    torch.manual_seed(value)

  def change_marker(self, params: nn.Module) -> bytes:
    """A hash of every parameter: version counters do not see what is written through `.data`."""
    return self.params_hash(params)

  def params_hash(self, params: nn.Module) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in unwrap(params).named_parameters():
      digest.update(name.encode())
      digest.update(_torch_state.raw_bytes(parameter).data)
    return digest.digest()

  @torch.no_grad()
  def all_finite(self, params: nn.Module) -> bool:
    checks = [torch.isfinite(parameter).all() for parameter in params.parameters()]
    return bool(torch.stack(checks).all()) if checks else True

  def scalars(self, values: Mapping[str, Any]) -> dict[str, float]:
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    fetched = self._stacked(tensors.values()).tolist() if tensors else []
    numbers = dict(zip(tensors, fetched, strict=True))
    return {
      name: numbers[name] if name in numbers else float(np.asarray(value).item())
      for name, value in values.items()
    }

  def sync_max(self, value: float) -> float:
    return self._over_ranks([value], 'MAX')[0]

  def _over_ranks(self, values: list[float], operation: Literal['SUM', 'MAX']) -> list[float]:
    """Numbers reduced over the processes of the trial, in float64."""
    if self.world_size == 1:
      return [float(value) for value in values]
    tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
    distributed.all_reduce(tensor, op=getattr(distributed.ReduceOp, operation))
    return tensor.tolist()

  def barrier(self) -> None:
    if self.world_size > 1:
      distributed.barrier(device_ids=[self.device.index] if self._on_cuda else None)

  def gather(self, content: bytes) -> list[bytes]:
    if self.world_size == 1:
      return [content]
    gathered: list[Any] = [None] * self.world_size
    distributed.all_gather_object(gathered, content)
    return gathered

  def peak_memory_bytes(self) -> dict[str, int]:
    peak = {'host': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if self._on_cuda:
      peak['device'] = torch.cuda.max_memory_allocated(self.device)
    return peak

  def live_arrays(self) -> tuple[int, int]:
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    return len(tensors), sum(tensor.nbytes for tensor in tensors)

  def describe(self) -> dict[str, Any]:
    versions = {'torch': str(torch.__version__)}
    if self._on_cuda:
      versions |= {'cuda': str(torch.version.cuda), 'cudnn': str(torch.backends.cudnn.version())}
    return {
      'framework': self.name,
      'versions': versions,
      'platform': 'gpu' if self._on_cuda else 'cpu',
      'device_kind': torch.cuda.get_device_name(self.device) if self._on_cuda else 'cpu',
      'num_devices': self.num_devices,
      'world_size': self.world_size,
      'num_threads': torch.get_num_threads(),
      'compiles': self._compiles,
      'compilation_cache': self._compilation_cache,
    }

  def stop(self) -> None:
    if self.world_size > 1:
      distributed.destroy_process_group()


class _Totals:
  """Adds the sums of batches in float64 on the device.

  Scalars are kept for each batch and added at the end, in one order whatever their number. Arrays
  would take the memory of all batches, so they are added at once.

  Args:
    stacked: makes scalars of any kind a tensor [n] on the device.
  """

  def __init__(self, stacked: Callable[[Iterable[Any]], torch.Tensor]):
    self._stacked = stacked
    self._structure: Any = None
    self._shapes: list[torch.Size] = []
    self._scalars: list[torch.Tensor] = []  # for each batch [scalars]
    self._arrays: list[torch.Tensor] = []

  def add(self, sums: Mapping[str, Any]) -> None:
    leaves, self._structure = tree.tree_flatten({name: sums[name] for name in sorted(sums)})
    self._shapes = [torch.as_tensor(leaf).shape for leaf in leaves]
    parts = [*zip(leaves, self._shapes, strict=True)]
    if scalars := [leaf for leaf, shape in parts if not shape]:
      self._scalars.append(self._stacked(scalars))
    arrays = [leaf.detach().double() for leaf, shape in parts if shape]
    if self._arrays:
      arrays = [before + array for before, array in zip(self._arrays, arrays, strict=True)]
    self._arrays = arrays

  def numbers(self) -> list[float]:
    """All totals: the scalars, then the arrays."""
    scalars = torch.stack(self._scalars).sum(0).tolist() if self._scalars else []
    return [*scalars, *(number for array in self._arrays for number in array.flatten().tolist())]

  def tree(self, numbers: list[float]) -> dict[str, Any]:
    """The totals of `numbers` in the structure of the sums."""
    if self._structure is None:
      return {}
    num_scalars = sum(not shape for shape in self._shapes)
    scalars, arrays = iter(numbers[:num_scalars]), numbers[num_scalars:]
    leaves: list[Any] = []
    for shape in self._shapes:
      if not shape:
        leaves.append(next(scalars))
        continue
      leaves.append(np.array(arrays[: shape.numel()], np.float64).reshape(shape))
      arrays = arrays[shape.numel() :]
    return tree.tree_unflatten(leaves, self._structure)


def _num_examples(weights: np.ndarray) -> int:
  """Rows that count; weights are [batch], or [batch, ...] where parts of an example count apart."""
  return int(np.count_nonzero(weights.reshape(len(weights), -1).any(1))) if len(weights) else 0
