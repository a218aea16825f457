"""The streams of a task: order, workers and position of the harness, examples of the task.

The `data.py` of a task has one of two forms. `loader(definition, root, split)` makes whole batches.
`source(definition, root, split)` gives single examples, and `transform(definition, train)` maps
them. `collate(definition)` joins examples that cannot be stacked. `split` is a stored split:
'train', 'validation' or 'test'. The split 'eval_train' is the first part of 'train'.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from algorithmic_efficiency import seeds
from algorithmic_efficiency.benchmark.definition import Split, WorkloadDefinition
from algorithmic_efficiency.data.mixture import Mixed, Mixture, OneAfterTheOther
from algorithmic_efficiency.data.pipeline import (
  Batches,
  InOrder,
  Load,
  Order,
  Shard,
  Shuffled,
)
from algorithmic_efficiency.data.sources import Arrays, Mapped

_FAKE_SEED = 0  # generated examples are the same in every run; the seed of the run sets their order


def train_stream(
  data: ModuleType,
  definition: WorkloadDefinition,
  root: Path | None,
  batch_size: int,
  seed: int,
  *,
  shard: Shard = (0, 1),
  num_workers: int = 0,
) -> Batches:
  """Returns a stream of endless shuffled batches of the training split.

  Args:
    data: the `data` module of the task.
    definition: the workload.
    root: folder of the prepared data set; None generates examples.
    batch_size: examples of a global batch; the stream yields the part of its shard.
    seed: seed of the order and of augmentation.
    shard: index and number of the shards of a batch.
    num_workers: processes that make batches ahead; 0 makes each on demand.

  Raises:
    UserError: the data is missing or damaged.
  """
  mixture, load = _examples(data, definition, root, 'train', seed)
  order: Order
  if mixture is not None:
    order = Mixed(mixture, batch_size=batch_size, seed=seed, shard=shard)
  else:
    num_examples = definition.splits.train
    order = Shuffled(num_examples=num_examples, batch_size=batch_size, seed=seed, shard=shard)
  return Batches(order, load, num_workers=num_workers)


def eval_stream(
  data: ModuleType,
  definition: WorkloadDefinition,
  root: Path | None,
  split: Split,
  batch_size: int,
  *,
  shard: Shard = (0, 1),
) -> Batches:
  """Returns a stream of one pass over a split, with `weights` of 0 in the padding.

  Raises:
    UserError: the data is missing or damaged.
    ValueError: the workload has no such split.
  """
  num_examples = definition.splits.num_examples(split)
  if num_examples is None:
    raise ValueError(f'{definition.name} has no split {split!r}.')
  stored = 'train' if split == 'eval_train' else split
  mixture, load = _examples(data, definition, root, stored, seed=None)
  order: Order
  if mixture is not None and len(mixture) == num_examples:
    order = OneAfterTheOther(mixture, batch_size=batch_size, shard=shard)
  else:
    order = InOrder(num_examples=num_examples, batch_size=batch_size, shard=shard)
  return Batches(order, load)


def _examples(
  data: ModuleType,
  definition: WorkloadDefinition,
  root: Path | None,
  stored: str,
  seed: int | None,
) -> tuple[Mixture | None, Load]:
  """Returns the mixture of a split, if it is one, and the loader of its examples."""
  if root is None:
    return None, _generated(data, definition, stored)
  if hasattr(data, 'loader'):
    return None, data.loader(definition, root, stored)
  name = f'{definition.name}, {stored}'
  source = data.source(definition, root, stored)
  mixture = source if isinstance(source, Mixture) else None
  collate = data.collate(definition) if hasattr(data, 'collate') else None
  transform = data.transform(definition, stored == 'train' and seed is not None)
  sources = [source] if mixture is None else [*mixture.sources.values()]
  stream_seed = None if seed is None else seeds.derive(seed, 'augmentation')
  return mixture, Mapped(sources, transform, collate, seed=stream_seed, name=name)


def _generated(data: ModuleType, definition: WorkloadDefinition, stored: str) -> Arrays:
  num_examples = getattr(definition.splits, stored)
  return Arrays(data.fake_batch(definition, num_examples, seeds.derive(_FAKE_SEED, 'fake', stored)))
