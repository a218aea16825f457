"""Trains a workload for 20 steps on some devices, evaluates it, and prints what came out as JSON.

With `--eval_batch_sizes`, it evaluates in float64, with batches of each of these sizes.

Run in a process of its own: the devices of a process are fixed when its framework starts.
"""

from __future__ import annotations

import argparse
import copy
import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency import backends, seeds, spec
from algorithmic_efficiency.backends.base import Devices, TaskCode
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import streams
from algorithmic_efficiency.trial import evaluation

NUM_STEPS = 20
NUM_PARTS = 2  # batches are hashed in two halves, to be compared with those of two processes
LEARNING_RATE = 0.05


def main(args: argparse.Namespace) -> None:
  registry.pin_own_packages()
  backend = backends.start(
    args.framework,
    Devices(
      platform='cpu',
      num_devices=args.num_devices,
      num_threads=1,
      rank=args.rank,
      world_size=args.world_size,
      local_rank=args.rank,
      address=args.address,
      compilation_cache=args.compilation_cache,
    ),
  )
  definition = _with_held_out(registry.workload(args.workload), args.num_held_out)
  task = TaskCode.of(definition, args.framework)
  root = Path(args.data_dir) / definition.dataset if args.data_dir else None
  shard = (backend.rank, backend.world_size)
  if root is None and not definition.bundled:
    stream = streams.train_stream(
      task.data, definition, None, definition.batch_sizes.train, 7, shard=shard
    )
  else:
    stream = streams.train_stream(
      task.data, definition, root, definition.batch_sizes.train, 7, shard=shard
    )
  batches = [next(stream) for _ in range(NUM_STEPS)]
  budget = next(iter(definition.suites.values()))
  train = {'jax': _train_jax, 'pytorch': _train_torch}[args.framework]
  result: dict[str, Any] = {'batches': [list(_digests(batch, backend)) for batch in batches]}
  for bits in (64, 32):
    workload, params, state, losses = train(
      backend, definition, task, budget, [_as_float(batch, bits) for batch in batches], bits
    )
    result[f'losses_{bits}'] = losses
    evaluate = functools.partial(
      evaluation.evaluate,
      backend,
      task=task,
      params=params,
      model_state=state,
      root=root if root or definition.bundled else None,
      key_data=seeds.key_data(7, 'eval'),
    )
    if bits == 64:
      result['by_eval_batch_size'] = {
        size: evaluate(_with_eval_batch_size(workload, size)) for size in args.eval_batch_sizes
      }
  result['metrics'] = evaluate(workload)
  backend.stop()
  print(json.dumps(result))


def _with_eval_batch_size(workload: Any, size: int) -> Any:
  sized = copy.copy(workload)
  sized._eval_batch_size = size
  return sized


def _with_held_out(definition: WorkloadDefinition, number: int | None) -> WorkloadDefinition:
  """The definition with as many examples in each split that is evaluated."""
  if number is None:
    return definition
  splits = replace(definition.splits, eval_train=number, validation=number, test=number)
  return replace(definition, splits=splits, data=replace(definition.data, sha256=''))


def _as_float(batch: dict[str, np.ndarray], bits: int) -> dict[str, np.ndarray]:
  return {
    name: values.astype(f'float{bits}') if values.dtype.kind == 'f' else values
    for name, values in batch.items()
  }


def _digests(batch: dict[str, np.ndarray], backend: Any) -> Iterator[str]:
  num_parts = NUM_PARTS // backend.world_size
  size = len(batch['targets'])
  for part in range(num_parts):
    rows = slice(part * size // num_parts, (part + 1) * size // num_parts)
    yield hashlib.sha256(
      b''.join(batch[name][rows].tobytes() for name in sorted(batch))
    ).hexdigest()


def _train_jax(backend, definition, task, budget, batches, bits):
  import jax
  import jax.numpy as jnp

  jax.config.update('jax_enable_x64', bits == 64)
  dtype = {32: jnp.float32, 64: jnp.float64}[bits]
  workload = backend.workload(definition, task, budget, dtype=dtype)
  params, state = workload.init_model_fn(backend.key(seeds.key_data(7, 'init')))

  @jax.jit
  def step(params, state, batch, rng):
    def loss_of(params):
      logits, new_state = workload.model_fn(
        params, batch, state, spec.ForwardPassMode.TRAIN, rng, update_batch_norm=True
      )
      loss = workload.loss_fn(batch['targets'], logits)
      return loss['summed'] / loss['n_valid_examples'], new_state

    (loss, state), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, grads), state, loss

  losses = []
  for index, batch in enumerate(batches):
    rng = backend.key(seeds.key_data(7, 'step', index))
    params, state, loss = step(params, state, backend.place(batch), rng)
    losses.append(float(loss))
  return workload, params, state, losses


def _train_torch(backend, definition, task, budget, batches, bits):
  import torch

  dtype = {32: torch.float32, 64: torch.float64}[bits]
  workload = backend.workload(definition, task, budget, dtype=dtype)
  model, state = workload.init_model_fn(backend.key(seeds.key_data(7, 'init')))
  optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
  losses = []
  for batch in batches:
    placed = backend.place(batch)
    optimizer.zero_grad()
    logits, _ = workload.model_fn(
      params=model,
      augmented_and_preprocessed_input_batch=placed,
      model_state=None,
      mode=spec.ForwardPassMode.TRAIN,
      rng=None,
      update_batch_norm=True,
    )
    loss = workload.loss_fn(label_batch=placed['targets'], logits_batch=logits)
    summed, count = loss['summed'], loss['n_valid_examples']
    if backend.world_size > 1:
      import torch.distributed.nn as dist_nn

      summed, count = dist_nn.all_reduce(summed), dist_nn.all_reduce(count)
    (summed / count).backward()
    optimizer.step()
    losses.append(float(summed / count))
  return workload, model, state, losses


if __name__ == '__main__':
  parser = argparse.ArgumentParser()
  parser.add_argument('framework')
  parser.add_argument('workload')
  parser.add_argument('--num_devices', type=int, default=1)
  parser.add_argument('--world_size', type=int, default=1)
  parser.add_argument('--rank', type=int, default=0)
  parser.add_argument('--address', default='')
  parser.add_argument('--data_dir')
  parser.add_argument('--compilation_cache')
  parser.add_argument('--eval_batch_sizes', type=lambda text: map(int, text.split(',')), default=())
  parser.add_argument('--num_held_out', type=int)
  main(parser.parse_args())
