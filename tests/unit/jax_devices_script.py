"""Trains and evaluates the toy task on simulated devices and prints what came out as JSON.

Half way through the training the state is packed and laid over a fresh one.

Run in a process of its own: python jax_devices_script.py NUM_DEVICES [NUM_RANKS RANK ADDRESS]
"""

from __future__ import annotations

import json
import sys
from typing import Any

import jax_toy
import metric_toys
import numpy as np

from algorithmic_efficiency import spec
from algorithmic_efficiency.backends import jax as backend_jax
from algorithmic_efficiency.backends.base import Devices

NUM_STEPS = 20
BATCH_SIZE = 16


def main(num_devices: int, world_size: int = 1, rank: int = 0, address: str = '') -> None:
  import jax
  import jax.numpy as jnp

  backend = backend_jax.start(
    Devices(
      platform='cpu',
      num_devices=num_devices,
      num_threads=1,
      rank=rank,
      world_size=world_size,
      address=address,
      compilation_cache=None,
    )
  )
  result: dict[str, Any] = {'num_devices': backend.num_devices, 'mesh': len(jax.devices())}
  for bits, dtype in ((32, jnp.float32), (64, jnp.float64)):
    jax.config.update('jax_enable_x64', bits == 64)
    result[f'losses_{bits}'], params, state = _train(backend, dtype)
    result[f'mean_{bits}'] = np.asarray(
      state['batch_stats']['BatchNorm_0']['mean'], np.float64
    ).tolist()
    if bits == 32:
      result['eval'] = {size: _evaluate(backend, params, state, size) for size in (7, 8, 13, 50)}
      result['metrics'] = {
        size: metric_toys.evaluate(backend, jax_toy.task(), params, state, size)
        for size in (14, 64)
      }
      result['gathered'] = [one.decode() for one in backend.gather(b'rank' * rank + b'.')]
  result['sync_max'] = backend.sync_max(1 + rank + 2**-40)
  result['packed'] = float(
    np.abs(backend.pack({'params': params})['params']["['Dense_1']['kernel']"]).sum()
  )
  backend.barrier()
  backend.synchronize()
  result['torch'] = 'torch' in sys.modules
  backend.stop()
  if rank == 0:
    print(json.dumps(result))


def _rows(batch: dict[str, np.ndarray], rank: int, world_size: int) -> dict[str, np.ndarray]:
  size = len(batch['targets'])
  rows = slice(rank * size // world_size, (rank + 1) * size // world_size)
  return {name: values[rows].copy() for name, values in batch.items()}


def _train(backend, dtype):
  import jax

  workload = backend.workload(jax_toy.definition(), jax_toy.task(), jax_toy.BUDGET, dtype=dtype)
  fresh = workload.init_model_fn(backend.key(np.array([1, 2], np.uint32)))
  params, state = fresh

  @jax.jit
  def step(params, state, batch, rng):
    def loss_of(params):
      logits, new_state = workload.model_fn(
        params, batch, state, spec.ForwardPassMode.TRAIN, rng, update_batch_norm=True
      )
      loss = workload.loss_fn(batch['targets'], logits, batch['weights'])
      return loss['summed'] / loss['n_valid_examples'], new_state

    (loss, state), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), state, loss

  losses = []
  for index in range(NUM_STEPS):
    batch = jax_toy.batch(BATCH_SIZE, index)
    placed = backend.place(_rows(batch, backend.rank, backend.world_size))
    # Split outside jit, as entries do.
    rng, _ = jax.random.split(backend.key(np.array([7, index], np.uint32)))
    params, state, loss = step(params, state, placed, rng)
    losses.append(loss)
    if index == NUM_STEPS // 2:
      num_programs = step._cache_size()
      saved = backend.pack({'it': (params, state)})
      params, state = backend.overlay({'it': fresh}, saved)['it']
  assert step._cache_size() == num_programs, 'a restored state compiles another program'
  return [float(loss) for loss in losses], params, state


def _evaluate(backend, params, state, batch_size: int) -> dict[str, tuple[float, float]]:
  """Sums over 50 examples in batches of `batch_size`, the last one padded."""
  workload = backend.workload(
    jax_toy.definition(), jax_toy.task(), jax_toy.BUDGET, eval_batch_size=batch_size
  )
  examples = jax_toy.batch(50, 3)
  batches = []
  for start in range(0, 50, batch_size):
    rows = {name: values[start : start + batch_size] for name, values in examples.items()}
    missing = batch_size - len(rows['targets'])
    padded = {
      name: np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])
      for name, values in rows.items()
    }
    batches.append(_rows(padded, backend.rank, backend.world_size))
  sums = backend.eval_sums(workload, params, state, batches, np.array([1, 2], np.uint32))
  assert workload._eval_step._cache_size() == 1
  return sums


if __name__ == '__main__':
  arguments = sys.argv[1:]
  main(int(arguments[0]), *(int(a) for a in arguments[1:3]), *arguments[3:])
