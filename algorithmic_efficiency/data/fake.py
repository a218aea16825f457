"""The streams of `--smoke`: generated examples, read by the same pipeline as real data."""

from __future__ import annotations

from types import ModuleType

from algorithmic_efficiency import seeds
from algorithmic_efficiency.benchmark.definition import Split, WorkloadDefinition
from algorithmic_efficiency.data.pipeline import (
  Batches,
  InOrder,
  Shard,
  Shuffled,
)
from algorithmic_efficiency.data.sources import Arrays

_SEED = 0  # examples are the same in every run; the seed of the run sets their order


def train_stream(
  data: ModuleType,
  definition: WorkloadDefinition,
  batch_size: int,
  seed: int,
  *,
  shard: Shard = (0, 1),
) -> Batches:
  """Returns an endless stream over `splits.train` generated examples, reshuffled in each epoch."""
  source = _examples(data, definition, 'train', definition.splits.train)
  order = Shuffled(num_examples=len(source), batch_size=batch_size, seed=seed, shard=shard)
  return Batches(order, source)


def eval_stream(
  data: ModuleType,
  definition: WorkloadDefinition,
  split: Split,
  batch_size: int,
  *,
  shard: Shard = (0, 1),
) -> Batches:
  """Returns a stream of one pass over the generated examples of a split, padded with weight 0.

  As with real data, `eval_train` is the first part of the training examples.

  Raises:
    ValueError: the workload has no such split.
  """
  num_examples = definition.splits.num_examples(split)
  if num_examples is None:
    raise ValueError(f'{definition.name} has no split {split!r}.')
  train = split == 'eval_train'
  source = _examples(
    data,
    definition,
    'train' if train else split,
    definition.splits.train if train else num_examples,
  )
  return Batches(InOrder(num_examples=num_examples, batch_size=batch_size, shard=shard), source)


def _examples(
  data: ModuleType, definition: WorkloadDefinition, name: str, num_examples: int
) -> Arrays:
  return Arrays(data.fake_batch(definition, num_examples, seeds.derive(_SEED, 'fake', name)))
