"""PyTorch on one device a process: places, waits, evaluates and keeps state."""

from __future__ import annotations

import collections
import resource
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from algorithmic_efficiency.backends import _torch_state
from algorithmic_efficiency.backends._torch_workload import TorchWorkload, unwrap
from algorithmic_efficiency.backends.base import Batch, DefinedWorkload, Devices, TaskCode
from algorithmic_efficiency.definition import Budget, WorkloadDefinition


class TorchBackend:
  """Implements `backends.base.Backend` with one device for each rank."""

  name = 'pytorch'

  def __init__(self, device: torch.device, devices: Devices):
    self.device = device
    self.num_devices = devices.num_ranks
    self.rank = devices.rank
    self.num_ranks = devices.num_ranks
    self._is_cuda = device.type == 'cuda'
    self._compiles = devices.compile == 'on' or (devices.compile == 'auto' and self._is_cuda)

  def workload(
    self, definition: WorkloadDefinition, task: TaskCode, budget: Budget, **options: Any
  ) -> TorchWorkload:
    return TorchWorkload(
      definition,
      task,
      budget,
      device=self.device,
      num_ranks=self.num_ranks,
      compiles=self._compiles,
      **options,
    )

  def key(self, words: np.ndarray) -> np.ndarray:
    """Two non-negative int32, as AlgoPerf's PyTorch workloads have them: entries seed from [0]."""
    return (words >> np.uint32(1)).astype(np.int32)

  def place(self, batch: Batch) -> Batch:
    return {name: self._placed(value) for name, value in batch.items()}

  def _placed(self, value: Any) -> Any:
    if isinstance(value, dict):
      return self.place(value)
    if isinstance(value, (tuple, list)):
      return type(value)(self._placed(part) for part in value)
    tensor = torch.from_numpy(value)
    return tensor.pin_memory().to(self.device, non_blocking=True) if self._is_cuda else tensor

  def synchronize(self, outputs: Any = None) -> None:
    if not self._is_cuda:
      return  # on a CPU every call has done its work when it returns
    if outputs is not None:
      torch.cuda.synchronize(self.device)
      return
    for index in range(torch.cuda.device_count()):
      torch.cuda.synchronize(index)

  def eval_sums(
    self,
    workload: DefinedWorkload,
    params: Any,
    model_state: Any,
    batches: Iterable[Batch],
    words: np.ndarray,
  ) -> dict[str, tuple[float, float]]:
    assert isinstance(workload, TorchWorkload)
    was_training = params.training
    found: dict[str, list[torch.Tensor]] = collections.defaultdict(list)
    for batch in batches:
      for name, pair in workload.eval_sums(params, self.place(batch)).items():
        # Sums of one batch stay on the device, so that batches follow each other without waiting.
        found[name].append(torch.stack([self._float64(part) for part in pair]))
    if params.training != was_training:
      params.train(was_training)
    names = sorted(found)
    totals = torch.stack([torch.stack(found[name]).sum(0) for name in names])
    if self.num_ranks > 1:
      dist.all_reduce(totals)
    sums = {
      name: (total, weight) for name, (total, weight) in zip(names, totals.tolist(), strict=True)
    }
    return {**sums, 'num_examples': (sums['num_examples'][0], 1.0)}

  def _float64(self, value: Any) -> torch.Tensor:
    return torch.as_tensor(value, dtype=torch.float64, device=self.device)

  def pack(self, tree: Any) -> Any:
    return _torch_state.pack(tree)

  def overlay(self, fresh: Any, packed: Any) -> Any:
    return _torch_state.overlay(fresh, packed, device=self.device)

  def seed(self, value: int) -> None:
    torch.manual_seed(value % 2**63)

  def fingerprint(self, params: Any) -> Any:
    """The sum and the sum of squares of every parameter and buffer, in float64."""
    with torch.no_grad():
      tensors = [t.detach().double() for t in unwrap(params).state_dict().values()]
      return [(float(t.sum()), float(t.square().sum())) for t in tensors]

  def all_finite(self, params: Any) -> bool:
    with torch.no_grad():
      flags = [torch.isfinite(parameter).all() for parameter in params.parameters()]
      return bool(torch.stack(flags).all()) if flags else True

  def scalars(self, values: Mapping[str, Any]) -> dict[str, float]:
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    fetched = {name: float(value) for name, value in values.items() if name not in tensors}
    if tensors:
      stacked = torch.stack([value.detach().double().reshape(()) for value in tensors.values()])
      fetched.update(zip(tensors, stacked.tolist(), strict=True))
    return {name: fetched[name] for name in values}

  def sync_max(self, value: float) -> float:
    if self.num_ranks == 1:
      return value
    tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor.item()

  def barrier(self) -> None:
    if self.num_ranks > 1:
      dist.barrier()

  def peak_memory_bytes(self) -> dict[str, int]:
    peak = {'host': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if self._is_cuda:
      peak['device'] = torch.cuda.max_memory_allocated(self.device)
    return peak

  def describe(self) -> dict[str, Any]:
    kind = torch.cuda.get_device_name(self.device) if self._is_cuda else 'cpu'
    return {
      'framework': self.name,
      'versions': {'torch': torch.__version__},
      'platform': 'gpu' if self._is_cuda else 'cpu',
      'device_kind': kind,
      'num_devices': self.num_devices,
      'num_ranks': self.num_ranks,
      'num_threads': torch.get_num_threads(),
      'compiles': self._compiles,
    }

  def stop(self) -> None:
    if self.num_ranks > 1:
      dist.destroy_process_group()
