"""Trains and evaluates as one rank of several, and writes what came out as JSON.

Run in a process of its own: python torch_ranks_script.py MODE RANK NUM_RANKS ADDRESS OUT

MODE 'train' does that twice, as two trials of one launch that keeps a store for them; 'die' has the
last rank kill itself, and 'hang' has it stop, while the others wait for it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import metric_toys
import numpy as np
import torch
import torch_toy
from torch import distributed

from algorithmic_efficiency import spec
from algorithmic_efficiency.backends import torch as backend_torch
from algorithmic_efficiency.backends.base import Devices, TaskCode
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.data import streams

NUM_STEPS = 20
BATCH_SIZE = 16
HANG_TIMEOUT_SEC = 4.0


def main(mode: str, rank: int, world_size: int, address: str, out: str) -> None:
  if mode == 'hang':
    backend_torch.TIMEOUT_SEC = HANG_TIMEOUT_SEC
  devices = Devices(
    platform='cpu',
    num_threads=1,
    rank=rank,
    world_size=world_size,
    local_rank=rank,
    address=address,
    store=address if mode == 'train' else '',
  )
  result: dict[str, Any] = {}
  for trial in range(2 if mode == 'train' else 1):
    backend = backend_torch.start(devices)
    if mode != 'train':
      _lose_a_rank(mode, backend)
    result[f'sync_max_{trial}'] = backend.sync_max(1 + rank + trial + 2**-40)
    if trial == 0:
      result |= _everything(backend)
    backend.barrier()
    backend.stop()
  result['jax'] = 'jax' in sys.modules
  result['place'] = [os.environ.get(name) for name in ('LOCAL_RANK', 'RANK', 'WORLD_SIZE')]
  Path(out).write_text(json.dumps(result))


def _lose_a_rank(mode: str, backend: Any) -> None:
  backend.barrier()
  if backend.rank == backend.world_size - 1:
    os.kill(os.getpid(), signal.SIGKILL if mode == 'die' else signal.SIGSTOP)
  time.sleep(0.5)
  backend.sync_max(1.0)


def _everything(backend: Any) -> dict[str, Any]:
  result: dict[str, Any] = {}
  for bits, dtype in ((32, torch.float32), (64, torch.float64)):
    for name, workload, batches in _workloads(backend, dtype):
      losses, model = _train(backend, workload, batches)
      result[f'{name}_{bits}'] = losses
      norms = [value for key, value in model.state_dict().items() if 'running' in key]
      result[f'{name}_norms_{bits}'] = [value.double().tolist() for value in norms]
      if name == 'toy' and bits == 32:
        result['eval'] = {size: _evaluate(backend, model, size) for size in (7, 8, 13, 50)}
        result['metrics'] = {
          size: metric_toys.evaluate(backend, torch_toy.task(), model, None, size)
          for size in (14, 64)
        }
        result['gathered'] = [one.decode() for one in backend.gather(b'rank' * backend.rank + b'.')]
        result['names'] = [name for name, _ in model.named_parameters()]
        result['packed'] = list(backend.pack({'params': model})['params']['data'])
        result['types'] = list(workload.model_params_types)
        result['is_output'] = [workload.is_output_params(name) for name in result['names']]
  return result


def _workloads(backend: Any, dtype: torch.dtype) -> Any:
  """Name, workload and this rank's batches."""
  toy = backend.workload(torch_toy.definition(), torch_toy.task(), torch_toy.BUDGET, dtype=dtype)
  yield 'toy', toy, (_rows(backend, torch_toy.batch(BATCH_SIZE, i)) for i in range(NUM_STEPS))
  for name in ('quick_vision', 'mnist'):
    definition = registry.workload(name).for_smoke()
    task = TaskCode.of(definition, 'pytorch')
    budget = next(iter(definition.suites.values()))
    shard = (backend.rank, backend.world_size)
    stream = streams.train_stream(task.data, definition, None, BATCH_SIZE, 5, shard=shard)
    yield name, backend.workload(definition, task, budget, dtype=dtype), stream


def _rows(backend: Any, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  size = len(batch['targets'])
  rows = slice(
    backend.rank * size // backend.world_size, (backend.rank + 1) * size // backend.world_size
  )
  return {name: values[rows].copy() for name, values in batch.items()}


def _train(backend: Any, workload: Any, batches: Any) -> tuple[list[float], torch.nn.Module]:
  """Gradient descent on the mean loss of the global batch, without dropout."""
  model, _ = workload.init_model_fn(backend.key(np.array([1, 2], np.uint32)))
  losses = []
  for _ in range(NUM_STEPS):
    batch = backend.place(next(batches))
    logits, _ = workload.model_fn(
      params=model,
      augmented_and_preprocessed_input_batch=batch,
      model_state=None,
      mode=spec.ForwardPassMode.TRAIN,
      rng=None,
      update_batch_norm=True,
      dropout_rate=0.0,
    )
    loss = workload.loss_fn(batch['targets'], logits, batch.get('weights'))
    totals = torch.stack([loss['summed'], loss['n_valid_examples']]).detach()
    if backend.world_size > 1:
      distributed.all_reduce(totals)
    model.zero_grad()
    (loss['summed'] * (backend.world_size / totals[1])).backward()
    with torch.no_grad():
      for parameter in model.parameters():
        parameter -= 0.1 * parameter.grad
    losses.append(float(totals[0] / totals[1]))
  return losses, model


def _evaluate(backend: Any, model: torch.nn.Module, batch_size: int) -> dict[str, Any]:
  """Sums over 50 examples in batches of `batch_size`, the last one padded."""
  workload = backend.workload(
    torch_toy.definition(), torch_toy.task(), torch_toy.BUDGET, eval_batch_size=batch_size
  )
  examples = torch_toy.batch(50, 3)
  batches = []
  for start in range(0, 50, batch_size):
    rows = {name: values[start : start + batch_size] for name, values in examples.items()}
    missing = batch_size - len(rows['targets'])
    padded = {
      name: np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])
      for name, values in rows.items()
    }
    batches.append(_rows(backend, padded))
  return backend.eval_sums(workload, model, None, batches, np.array([1, 2], np.uint32))


if __name__ == '__main__':
  main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5])
