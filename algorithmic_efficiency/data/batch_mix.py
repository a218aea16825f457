"""Mixes training batches with themselves, as mixup does, the same for any number of shards.

A task that exports `mix_batch(definition)` has its training batches changed after they are joined.
It returns None where a definition mixes nothing, or a function of three arguments:

- the batch of a shard, which the function may change in place,
- the row before the first one in the global batch, as a batch of one row. The row before the first
  of the global batch is its last one,
- random numbers, the same for every shard of a batch.

So the shards of a batch roll together: each row is mixed with the one before it in the global
batch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from algorithmic_efficiency.data import random_numbers, sources, trees
from algorithmic_efficiency.data.pipeline import Batch, Endless, Load, Shard, bounds
from algorithmic_efficiency.data.random_numbers import ExampleRandom

MixRows = Callable[[Batch, Batch, ExampleRandom], Batch]


class BatchMix:
  """Mixes the rows of a shard of batch k.

  Args:
    mix: what the task returned, as above; picklable for workers.
    order: gives the row before a shard.
    load: the loader of the batches.
    batch_size: rows of the global batch.
    shard: index and number of the shards.
    seed: seed of the random numbers.
    name: name of task and split, for messages.
  """

  def __init__(
    self,
    mix: MixRows,
    order: Endless,
    load: Load,
    *,
    batch_size: int,
    shard: Shard,
    seed: int,
    name: str,
  ):
    self._mix = mix
    self._order = order
    self._load = load
    self._batch_size = batch_size
    self._shard = shard
    self._seed = seed
    self._name = name

  def __call__(self, batch: int, rows: Batch) -> Batch:
    """Returns the mixed rows of a shard of a batch.

    Raises:
      UserError: what the task returned is no batch of as many rows.
      TaskError: its function failed.
    """
    first, last = bounds(batch, self._batch_size, self._shard)
    before = self._before(batch, first, rows)
    [key] = random_numbers.keys(self._seed, np.zeros(1, np.int64), np.array([batch])).tolist()
    try:
      mixed = self._mix(rows, before, ExampleRandom(key))
    except Exception as error:
      sources.fail(self._where(batch), error)
    return sources.checked(mixed, last - first, lambda: self._where(batch))

  def _before(self, batch: int, first: int, rows: Batch) -> Batch:
    if self._shard[1] == 1:
      return trees.gather(rows, np.array([-1]))
    start = batch * self._batch_size
    position = start + (first - 1 - start) % self._batch_size
    return self._load(self._order.examples(position, 1))

  def _where(self, batch: int) -> str:
    return f'{self._name}, mix_batch of batch {batch}'
