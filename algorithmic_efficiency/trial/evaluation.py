"""Evaluates parameters on the splits of a workload: sums and outputs become numbers."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency import errors, trust
from algorithmic_efficiency.backends.base import (
  DefinedWorkload,
  Evaluation,
  Generating,
  TaskCode,
)
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import sources, streams
from algorithmic_efficiency.data.workers import WorkerError, Workers
from algorithmic_efficiency.metrics.derived import DERIVED
from algorithmic_efficiency.metrics.means import Mean
from algorithmic_efficiency.metrics.metric import Metric, MetricError
from algorithmic_efficiency.trial.split_metrics import SplitMetrics, check_metrics

PREFIXES: Mapping[str, str] = {'eval_train': 'train', 'validation': 'validation', 'test': 'test'}


def evaluate(
  backend: Evaluation,
  workload: DefinedWorkload,
  task: TaskCode,
  *,
  params: Any,
  model_state: Any,
  root: Path | None,
  key_data: np.ndarray,
  splits: Iterable[str] = ('eval_train', 'validation', 'test'),
  max_batches: int | None = None,
  generate: bool = True,
  is_last: bool = True,
  workers: Workers | None = None,
) -> dict[str, float]:
  """Runs a full or partial evaluation. Each example of a split counts exactly once.

  Args:
    root: the prepared data set; None takes the generated data of a smoke run.
    key_data: random key data of this evaluation, uint32 [2].
    splits: names of splits, and of probes of the definition; splits that the definition lacks are
      left out.
    max_batches: evaluate the first few batches of each split only; None evaluates all.
    generate: whether outputs are generated where the definition says so; else the metrics that need
      them are left out.
    is_last: whether no evaluation of the trial follows, so that a costlier search may be used. A
      target on a generated metric has all its values by one search, and so never a costlier one.
    workers: processes that make the batches; None makes them here.

  Returns:
    Metric by `<prefix>/<metric>`, or by `<prefix>/<metric>/<part>`; NaN where no example counted.
    The prefix of a probe is its name.

  Raises:
    UserError: a split is unknown, or the code of the task and a metric do not fit.
    TaskError: the code of the task failed.
  """
  results: dict[str, float] = {}
  definition = workload.definition
  given = _given(definition, task, root)
  for split in splits:
    if _num_examples(definition, split) is None:
      continue
    metrics = _metrics(definition, split, given, workload.eval_batch_size, generate=generate)
    stream = streams.eval_stream(
      task.data,
      definition,
      root,
      split,
      workload.eval_batch_size,
      shard=(backend.rank, backend.world_size),
      workers=workers,
    )
    with _saying_where(definition, f'split {split}', metrics), contextlib.closing(stream):
      sums = backend.eval_sums(
        workload,
        params,
        model_state,
        itertools.islice(stream, max_batches),
        key_data,
        on_outputs=metrics.reader((backend.rank, backend.world_size)),
        generating=_generating(definition, metrics, is_last=is_last),
      )
      num_examples, _ = sums.pop('num_examples')
      numbers = metrics.numbers(sums, backend.gather)
    prefix = PREFIXES.get(split, split)
    results |= {f'{prefix}/{name}': value for name, value in numbers.items()}
    if split != 'eval_train':
      results[f'{prefix}/num_examples'] = int(num_examples)
  return results


def _num_examples(definition: WorkloadDefinition, split: str) -> int | None:
  """Returns the examples of a split or probe; None if the definition has no test split."""
  if split in definition.probes:
    return definition.probes[split].num_examples
  if split not in PREFIXES:
    raise errors.unknown('split or probe', split, [*PREFIXES, *definition.probes])
  return definition.splits.num_examples(split)  # type: ignore[arg-type]


def _metrics(
  definition: WorkloadDefinition,
  split: str,
  given: Mapping[str, Metric],
  batch_size: int,
  *,
  generate: bool,
) -> SplitMetrics:
  """Chooses the metrics of a split or probe: those `given` by the task, else derived, else means.

  A probe that names a generated metric generates it, whatever splits the definition generates for.
  """
  probe, generation = definition.probes.get(split), definition.generation
  names = definition.metrics if probe is None else probe.metrics
  generated = frozenset() if generation is None else frozenset(generation.metrics)
  if generation is None or not generate or (probe is None and split not in generation.splits):
    names = tuple(name for name in names if name not in generated)
  return SplitMetrics(
    {name: given.get(name) or DERIVED.get(name) or Mean(name) for name in sorted(names)},
    where=_where(definition, f'split {split}'),
    batch_size=batch_size,
    generated=generated,
    max_generated=None if generation is None else generation.max_examples,
    must_give=() if probe else tuple({definition.target.metric} & set(names)),
  )


def _generating(
  definition: WorkloadDefinition, metrics: SplitMetrics, *, is_last: bool
) -> Generating | None:
  generation = definition.generation
  if generation is None or not metrics.generates:
    return None
  return Generating(
    num_batches=metrics.num_generated_batches,
    is_last=is_last and definition.target.metric not in generation.metrics,
  )


def _given(definition: WorkloadDefinition, task: TaskCode, root: Path | None) -> dict[str, Metric]:
  """The metrics that the task has for the definition, by name."""
  if task.metrics is None:
    return {}
  with _saying_where(definition, 'metrics'):
    given = task.metrics.metrics(definition, root)
    check_metrics(given)
  return dict(given)


def _where(definition: WorkloadDefinition, place: str) -> str:
  return f'{definition.name} (task {definition.task}), {place}'


@contextlib.contextmanager
def _saying_where(
  definition: WorkloadDefinition, place: str, metrics: SplitMetrics | None = None
) -> Iterator[None]:
  """Says in which task and split, and for which metrics, code does not fit or failed."""
  where = _where(definition, place)
  try:
    yield
  except MetricError as error:
    readers = ', '.join(metrics.readers(error.output)) if metrics else ''
    raise errors.UserError(
      f'{where}: {error}' + (f' Read by: {readers}.' if readers else '')
    ) from error
  except (trust.IntegrityError, WorkerError, sources.TaskError):
    raise
  except Exception as error:
    sources.fail(where, error)
