"""Value and gradients of the token loss on eight simulated devices, printed as JSON.

Run in a process of its own: python token_loss_devices.py
"""

from __future__ import annotations

import json
import re

import jax
import numpy as np
import token_loss_twin as twin
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from algorithmic_efficiency.layers import chunks
from algorithmic_efficiency.layers.jax import token_loss, vocab_logits

NUM_DEVICES = 8
LABEL_SMOOTHING = 0.1


def main() -> None:
  jax.config.update('jax_num_cpu_devices', NUM_DEVICES)
  one = twin.case(batch_size=16, length=30, vocab_size=50, dim=8)
  expected = [(twin.losses(one, LABEL_SMOOTHING) * one.mask).sum()]
  expected += twin.gradients(one, one.mask, LABEL_SMOOTHING)
  batch = (one.hidden.astype(np.float32), one.mask.astype(np.float32), one.targets)
  kernel = one.kernel.astype(np.float32)

  chunks._WORK_BYTES = 2 * 4 * one.logits.size // 5
  mesh = Mesh(np.array(jax.devices()), ('batch',))
  rows, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (['batch'], []))
  step = jax.jit(_summed_and_gradients)
  placed = (jax.device_put(kernel, everywhere), *jax.device_put(batch, rows))
  text = step.lower(*placed).compile().as_text()
  summed, of_hidden, of_kernel = step(*placed)

  chunks._WORK_BYTES //= NUM_DEVICES
  shards = [x.reshape(NUM_DEVICES, -1, *x.shape[1:]) for x in batch]
  by_device = jax.pmap(_summed_and_gradients, in_axes=(None, 0, 0, 0))(kernel, *shards)
  result = {
    'num_devices': jax.device_count(),
    'was_cut': ' while(' in text,
    'moves': sorted(set(re.findall(r'all-gather|all-to-all|collective-permute', text))),
    'is_sharded': of_hidden.sharding.is_equivalent_to(rows, of_hidden.ndim),
    'jit': _errors((summed, of_hidden, of_kernel), expected),
    'pmap': _errors(
      (by_device[0].sum(), by_device[1].reshape(one.hidden.shape), by_device[2].sum(0)), expected
    ),
  }
  print(json.dumps(result))


def _summed_and_gradients(
  kernel: jax.Array, hidden: jax.Array, mask: jax.Array, targets: jax.Array
) -> tuple[jax.Array, ...]:
  def summed(hidden: jax.Array, kernel: jax.Array) -> jax.Array:
    logits = vocab_logits(hidden, kernel)
    return token_loss(targets, logits, mask, LABEL_SMOOTHING)['summed']

  value, gradients = jax.value_and_grad(summed, argnums=(0, 1))(hidden, kernel)
  return value, *gradients


def _errors(found: object, expected: list[np.ndarray]) -> list[float]:
  """Largest difference over the largest element, of each."""
  pairs = zip(found, expected, strict=True)
  return [float(np.abs(np.asarray(x, np.float64) - y).max() / np.abs(y).max()) for x, y in pairs]


if __name__ == '__main__':
  main()
