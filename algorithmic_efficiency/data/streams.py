"""The streams of a task: order, workers and position of the harness, examples of the task.

The `data.py` of a task has one of two forms. `loader(definition, root, split)` makes whole batches.
`source(definition, root, split)` gives single examples, and `transform(definition, train)` maps
them. `collate(definition)` joins examples that cannot be stacked. The source may be a `Mixture`, or
`Packed` around a source or a mixture; a loader may be `Packed`, too. In either form,
`mix_batch(definition)` mixes the examples of a training batch, as `batch_mix` says. `split` is a
stored split: 'train', 'validation', 'test' or the name of a probe. The split 'eval_train' is the
first part of 'train'; of a mixture, it is a part with the same share of each source.

For generated examples, `fake_batch` makes the batches, or `fake_eval_batch` those of evaluation if
these have another form.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from algorithmic_efficiency import errors, seeds
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import trees
from algorithmic_efficiency.data.batch_mix import BatchMix, MixRows
from algorithmic_efficiency.data.mixture import Mixed, Mixture, OneAfterTheOther
from algorithmic_efficiency.data.packing import Packed, PackedRows
from algorithmic_efficiency.data.pipeline import (
  AHEAD_PER_WORKER,
  Batch,
  Batches,
  Endless,
  InOrder,
  Load,
  Order,
  Shard,
  Shuffled,
)
from algorithmic_efficiency.data.sources import Arrays, Loaded, Mapped, Source, fail, is_source
from algorithmic_efficiency.data.workers import Workers

# A process that feeds four A100 with photographs needs nine (workloads/vision/README.md).
MAX_CHOSEN_WORKERS = 12

_FAKE_SEED = 0  # generated examples are the same in every run; the seed of the run sets their order


def num_workers(data: ModuleType, root: Path | None, num_cpus: int) -> int:
  """Chooses the number of worker processes of a training stream.

  Vectorized loaders have none, and a single CPU is left to training. Otherwise one CPU is left.

  Args:
    data: the `data` module of the task.
    root: folder of the prepared data set; None for generated examples.
    num_cpus: CPUs that the process may use.
  """
  if root is None or hasattr(data, 'loader'):
    return 0
  return min(num_cpus - 1, MAX_CHOSEN_WORKERS)


def train_stream(
  data: ModuleType,
  definition: WorkloadDefinition,
  root: Path | None,
  batch_size: int,
  seed: int,
  *,
  shard: Shard = (0, 1),
  num_workers: int = 0,
) -> TrainStream:
  """Returns a stream of endless shuffled batches of the training split.

  Args:
    data: the `data` module of the task.
    definition: the workload.
    root: folder of the prepared data set; None generates examples.
    batch_size: examples, or packed rows, of a global batch; the stream yields those of its shard.
    seed: seed of the order and of augmentation.
    shard: index and number of the shards of a batch.
    num_workers: processes that make batches ahead, started with the first batch or with `start`; 0
      makes each on demand.

  Raises:
    UserError: the data is missing or damaged, or cannot be mixed or packed as the task says.
  """
  examples = _examples(data, definition, root, 'train', seed)
  mix_rows = _mix_rows(data, definition, examples)
  workers = Workers(num_workers) if num_workers else None
  mixture, packed = examples.mixture, examples.packed
  lengths = {} if packed is None else packed.checked_lengths(examples.name)
  sizes: dict[str, Any] = {'batch_size': batch_size, 'seed': seed, 'shard': shard}

  def rows(order: Endless, sources: Iterable[str], sizes: Mapping[str, Any]) -> Order:
    if packed is None:
      return order
    return PackedRows(order, [lengths[one] for one in sources], packed.row_length, **sizes)

  def mixed(order: Endless, load: Load, sizes: Mapping[str, Any], name: str) -> BatchMix | None:
    if mix_rows is None:
      return None
    own = {**sizes, 'seed': seeds.derive(sizes['seed'], 'mix')}
    return BatchMix(mix_rows, order, load, name=name, **own)

  def one_source(name: str) -> Batches:
    num_examples, load = examples.of_source(name)
    own = {**sizes, 'seed': seeds.derive(seed, 'single source', name)}
    of_source = Shuffled(num_examples=num_examples, **own)
    order = rows(of_source, [name], own)
    label = f'{examples.name}, source {name}'
    finish = mixed(of_source, load, own, label)
    return Batches(order, load, finish=finish, workers=workers, num_ahead=0, name=label)

  of_examples: Endless
  if mixture is None:
    of_examples = Shuffled(num_examples=definition.splits.train, **sizes)
  else:
    of_examples = Mixed(mixture, **sizes)
  order = rows(of_examples, lengths, sizes)
  finish = mixed(of_examples, examples.load, sizes, examples.name)
  main = Batches(order, examples.load, finish=finish, workers=workers, name=examples.name)
  return TrainStream(main, one_source, workers)


class TrainStream:
  """The batches of the training split, and of single sources of a mixture on request.

  Sources share the workers. Those drawn last keep a batch ahead each, together as many at most as
  the stream itself.

  Args:
    main: the batches of the training split.
    one_source: opens the batches of a source by its name.
    workers: the processes that make the batches; closed with the stream. Evaluations use them, too.
  """

  def __init__(self, main: Batches, one_source: Callable[[str], Batches], workers: Workers | None):
    self.workers = workers
    self._main = main
    self._one_source = one_source
    self._sources: dict[str, Batches] = {}
    self._max_ahead = AHEAD_PER_WORKER * workers.num_workers if workers is not None else 0
    self._num_ahead = 0  # of the sources

  def __iter__(self) -> TrainStream:
    return self

  def __next__(self) -> Batch:
    return next(self._main)

  def start(self) -> None:
    """Starts the workers, if there are any, so that the first batch need not wait for that."""
    if self.workers is not None:
      self.workers.start()

  def open_source(self, name: str) -> None:
    """Opens a source of the mixture, at its first batch.

    Raises:
      UserError: the mixture has no such source, or the workload has no mixture.
    """
    if name not in self._sources:
      self._sources[name] = self._one_source(name)

  def next_of(self, name: str) -> Batch:
    """Returns the next batch of a source that is open, from shuffled epochs of its own."""
    source = self._sources[name]
    before = source.num_ahead
    batch = next(source)
    self._num_ahead -= before
    if self._num_ahead < self._max_ahead:
      source.make_ahead(1)
      self._num_ahead += 1
    return batch

  def state(self) -> dict[str, Any]:
    state = self._main.state()
    if self._sources:
      state['sources'] = {name: source.state() for name, source in self._sources.items()}
    return state

  def restore(self, state: dict[str, Any]) -> None:
    self.pause()
    self._main.restore(state)
    self._sources.clear()
    for name, position in state.get('sources', {}).items():
      self.open_source(name)
      self._sources[name].restore(position)

  def pause(self) -> None:
    for stream in (self._main, *self._sources.values()):
      stream.pause()
    self._num_ahead = 0

  def close(self) -> None:
    self._main.close()
    for source in self._sources.values():
      source.close()
    if self.workers is not None:
      self.workers.close()


def eval_stream(
  data: ModuleType,
  definition: WorkloadDefinition,
  root: Path | None,
  split: str,
  batch_size: int,
  *,
  shard: Shard = (0, 1),
  workers: Workers | None = None,
) -> Batches:
  """Returns a stream of one pass over a split, with `weights` of 0 in the padding.

  Args:
    split: 'eval_train', 'validation', 'test' or the name of a probe.
    workers: make the batches, if there are any.

  Raises:
    UserError: the data is missing or damaged.
    ValueError: the workload has no such split.
  """
  num_examples = _num_examples(definition, split)
  stored = 'train' if split == 'eval_train' else split
  examples = _examples(data, definition, root, stored, seed=None)
  mixture = examples.mixture
  order: Order
  if mixture is None:
    order = InOrder(num_examples=num_examples, batch_size=batch_size, shard=shard)
  else:
    order = OneAfterTheOther(mixture, num_examples, batch_size=batch_size, shard=shard)
  return Batches(order, examples.load, workers=workers, name=examples.name)


def _num_examples(definition: WorkloadDefinition, split: str) -> int:
  """
  Raises:
    ValueError: the workload has no such split.
  """
  if split in definition.probes:
    return definition.probes[split].num_examples
  found = getattr(definition.splits, split, None)
  if not isinstance(found, int):
    raise ValueError(f'{definition.name} has no split {split!r}.')
  return found


@dataclass(frozen=True, kw_only=True)
class _Examples:
  """The examples of a split.

  Attributes:
    name: name of task and split, for messages.
    load: the loader of all of them.
    of_source: gives the number of examples of a source of the mixture, and their loader.
  """

  name: str
  load: Load
  of_source: Callable[[str], tuple[int, Load]]
  mixture: Mixture | None = None
  packed: Packed | None = None


def _examples(
  data: ModuleType,
  definition: WorkloadDefinition,
  root: Path | None,
  stored: str,
  seed: int | None,
) -> _Examples:
  """Opens a stored split; a seed is for training, None for evaluation.

  Raises:
    UserError: the data is missing or damaged.
  """
  name = f'{definition.name}, {stored}'
  if root is None:
    is_train = stored == 'train' and seed is not None
    load = Loaded(_generated(data, definition, stored, is_train), name)
    if not hasattr(data, 'source'):
      return _Examples(name=name, load=load, of_source=_no_mixture(name))
    # Which sources there are is known with the data: a smoke run has each that it is asked for.
    num_examples = _num_examples(definition, stored)
    return _Examples(name=name, load=load, of_source=lambda _: (num_examples, load))
  if hasattr(data, 'loader'):
    return _loaded(data, definition, root, stored, seed, name)
  return _mapped(data, definition, root, stored, seed, name)


def _loaded(
  data: ModuleType,
  definition: WorkloadDefinition,
  root: Path,
  stored: str,
  seed: int | None,
  name: str,
) -> _Examples:
  """Opens a split of a task that makes whole batches."""
  found = _called(data, 'loader', definition, root, stored, name=name)
  loader: Any = found.source if isinstance(found, Packed) else found
  _check_function(loader, 'loader', name)
  if hasattr(loader, '__len__'):
    _check_size(definition, stored, len(loader), name)
  return _Examples(
    name=name,
    load=Loaded(loader, name, seed=None if seed is None else _augmentation(seed)),
    of_source=_no_mixture(name),
    packed=found if isinstance(found, Packed) else None,  # evaluation asks for no packing
  )


def _mapped(
  data: ModuleType,
  definition: WorkloadDefinition,
  root: Path,
  stored: str,
  seed: int | None,
  name: str,
) -> _Examples:
  """Opens a split of a task that maps single examples."""
  is_train = stored == 'train' and seed is not None
  found = _called(data, 'source', definition, root, stored, name=name)
  packed = found if isinstance(found, Packed) and is_train else None
  source: Any = found.source if isinstance(found, Packed) else found
  _check_size(definition, stored, _num_examples_of(source, name), name)
  join = None
  if packed is not None:
    join = functools.partial(packed.join, row_length=packed.row_length)
  function = functools.partial(_called, data, name=name, gives_function=True)
  collate = function('collate', definition) if hasattr(data, 'collate') else None
  transform = function('transform', definition, is_train)

  def mapped(sources: Mapping[str, Source], *path: str) -> Mapped:
    of_stream = None if seed is None else _augmentation(seed, *path)
    return Mapped(sources, transform, collate, seed=of_stream, name=name, join=join)

  if not isinstance(source, Mixture):
    load = mapped({'': source})
    return _Examples(name=name, load=load, of_source=_no_mixture(name), packed=packed)
  sources = source.sources

  def of_source(one: str) -> tuple[int, Load]:
    if one not in sources:
      raise errors.unknown(f'source of {name},', one, sources)
    return len(sources[one]), mapped({one: sources[one]}, one)

  return _Examples(
    name=name, load=mapped(sources), of_source=of_source, mixture=source, packed=packed
  )


def _augmentation(seed: int, *path: str) -> int:
  return seeds.derive(seed, 'augmentation', *path)


def _mix_rows(
  data: ModuleType, definition: WorkloadDefinition, examples: _Examples
) -> MixRows | None:
  """Returns what mixes the rows of a training batch; None if nothing does.

  Raises:
    UserError: it is no function, or rows are packed.
    TaskError: the function that makes it failed.
  """
  if not hasattr(data, 'mix_batch'):
    return None
  found = _called(data, 'mix_batch', definition, name=examples.name)
  if found is None:
    return None
  if not callable(found):
    raise errors.UserError(
      f'{examples.name}: mix_batch must return a function or None; it returned '
      f'{errors.shown(found)}.'
    )
  if examples.packed is not None:
    raise errors.UserError(
      f'{examples.name}: mix_batch mixes rows that are single examples; these are packed.'
    )
  return found


def _called(
  data: ModuleType, function: str, *arguments: Any, name: str, gives_function: bool = False
) -> Any:
  """Calls a function of the task, by its name.

  Raises:
    UserError: it should return a function and does not.
    TaskError: it failed.
  """
  try:
    found = getattr(data, function)(*arguments)
  except Exception as error:
    fail(f'{name}, {function}', error)
  if gives_function:
    _check_function(found, function, name)
  return found


def _check_function(found: Any, function: str, name: str) -> None:
  """
  Raises:
    UserError: what a function of the task gives is no function.
  """
  if not callable(found):
    raise errors.UserError(
      f'{name}: {function} must return a function; it returned {errors.shown(found)}.'
    )


def _num_examples_of(source: Any, name: str) -> int:
  """
  Raises:
    UserError: it is no source.
    TaskError: its `__len__` failed.
  """
  if not (isinstance(source, Mixture) or is_source(source)):
    raise errors.UserError(
      f'{name}: a source must have a length, and give an example by its position; source returned '
      f'{errors.shown(source)}, which does not.'
    )
  try:
    return len(source)
  except Exception as error:
    fail(f'{name}, source', error)


def _no_mixture(name: str) -> Callable[[str], Any]:
  def refuse(one: str) -> Any:
    raise errors.UserError(
      f'{name}: only a mixture has sources to draw from; {errors.shown(one)} was asked for, and '
      'this workload has none.'
    )

  return refuse


def _check_size(definition: WorkloadDefinition, stored: str, found: int, name: str) -> None:
  """
  Raises:
    UserError: a split holds another number of examples than its definition says.
  """
  expected = _num_examples(definition, stored)
  if found != expected:
    remedy = (
      'Correct one of them' if definition.bundled else 'Prepare the data set again with --overwrite'
    )
    raise errors.UserError(
      f'{name}: the split must hold {expected} examples, as the definition says; its data have '
      f'{found}. {remedy}.'
    )


def _generated(
  data: ModuleType, definition: WorkloadDefinition, stored: str, is_train: bool
) -> Arrays:
  """Generates a split.

  Raises:
    UserError: the function returns something else than arrays of this many examples.
  """
  num_examples = _num_examples(definition, stored)
  of_eval = not is_train and hasattr(data, 'fake_eval_batch')
  function = 'fake_eval_batch' if of_eval else 'fake_batch'
  seed = seeds.derive(_FAKE_SEED, 'fake', stored)
  batch = getattr(data, function)(definition, num_examples, seed)
  try:
    if not isinstance(batch, dict):
      raise trees.TreeError(f'a batch must be a dict of arrays; it is {type(batch).__name__}.')
    arrays = Arrays(batch)
    if len(arrays) != num_examples:
      raise trees.TreeError(f'there must be {num_examples} examples; there are {len(arrays)}.')
  except (trees.TreeError, ValueError) as error:
    raise errors.UserError(f'{definition.name}, {stored}, {function}: {error}') from None
  return arrays
