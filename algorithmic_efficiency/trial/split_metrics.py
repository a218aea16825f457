"""The metrics of one split in one evaluation, and what they keep of the rows they have seen."""

from __future__ import annotations

import contextlib
import math
import pickle
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.data import sources, trees
from algorithmic_efficiency.data.pipeline import Batch, Shard, bounds
from algorithmic_efficiency.metrics.metric import (
  Metric,
  MetricError,
  Outputs,
  State,
  Totals,
  check_outputs,
)

Gather = Callable[[bytes], list[bytes]]


class SplitMetrics:
  """Shows outputs to the metrics of a split, and has them compute their numbers at the end.

  Args:
    metrics: the metrics to compute, by name; in each process of the trial in the same order.
    where: task and split, for messages.
    batch_size: examples of a global batch.
    generated: names of metrics that read generated outputs.
    max_generated: number of examples, from the start of the split, that have generated outputs;
      None for all.
    must_give: metrics that must give a number of their own name.
  """

  def __init__(
    self,
    metrics: Mapping[str, Metric],
    *,
    where: str,
    batch_size: int,
    generated: Collection[str] = (),
    max_generated: int | None = None,
    must_give: Collection[str] = (),
  ):
    self._metrics = metrics
    self._readers = {name: one for name, one in metrics.items() if one.outputs}
    self._where = where
    self._batch_size = batch_size
    self._generated = frozenset(generated)
    self._max_generated = max_generated
    self._must_give = must_give
    self._states: dict[str, State] = dict.fromkeys(self._readers)
    self._num_batches = 0

  @property
  def generates(self) -> bool:
    """Whether any of the metrics is generated."""
    return not self._generated.isdisjoint(self._metrics)

  @property
  def num_generated_batches(self) -> int | None:
    """The batches that hold the examples to generate for; None for all."""
    limit = self._max_generated
    return None if limit is None else math.ceil(limit / self._batch_size)

  def readers(self, output: str | None) -> list[str]:
    """Returns the metrics that read an output."""
    return [name for name, one in self._readers.items() if output in one.outputs]

  def reader(self, shard: Shard) -> Callable[[Batch, Outputs], None] | None:
    """Returns what takes the outputs of this shard's rows, batch by batch; None if nobody does."""
    return (lambda batch, outputs: self._update(batch, outputs, shard)) if self._readers else None

  def _update(self, batch: Batch, outputs: Outputs, shard: Shard) -> None:
    start, _ = bounds(self._num_batches, self._batch_size, shard)
    self._num_batches += 1
    weights = batch['weights']
    counts = weights.reshape(len(weights), -1).any(1)
    rows = np.flatnonzero(counts)
    limit = self._max_generated
    first = rows if limit is None else rows[rows < limit - start]
    for name, one in self._readers.items():
      is_generated = name in self._generated
      own = first if is_generated else rows
      if not len(own):
        continue
      check_outputs(one, name, outputs, 'generate' if is_generated else 'eval_step')
      chosen = {output: outputs[output][own] for output in one.outputs}
      own_batch = trees.gather(batch, own)
      with self._calling(name, 'update'):
        self._states[name] = one.update(self._states[name], chosen, own_batch)

  def numbers(self, sums: Mapping[str, Any], gather: Gather) -> dict[str, float]:
    """Computes the numbers of all metrics, by name. Every process of the trial takes part.

    Args:
      sums: totals over all processes.
      gather: gives what each process has passed; see `Ranks`.

    Raises:
      MetricError: a metric lacks its sums, or gives no numbers of its name.
      TaskError: the code of a metric failed.
    """
    totals = Totals(sums)
    numbers: dict[str, float] = {}
    for name, one in self._metrics.items():
      state = self._merged(name, gather)
      with self._calling(name, 'compute'):
        found = one.compute(totals, state)
      _check_numbers(name, found)
      if name in self._must_give and name not in found:
        raise MetricError(
          f'The metric of the target must give the number {name!r}; it gives {", ".join(found)}.'
        )
      numbers |= {number: float(value) for number, value in found.items()}
    return numbers

  def _merged(self, name: str, gather: Gather) -> State:
    if name not in self._readers:
      return None
    with self._calling(name, 'the state'):
      content = pickle.dumps(self._states[name])
    contents = gather(content)
    with self._calling(name, 'merge'):
      states = [state for state in map(pickle.loads, contents) if state is not None]
      return self._readers[name].merge(states) if states else None

  @contextlib.contextmanager
  def _calling(self, metric: str, function: str) -> Iterator[None]:
    """Says which metric failed, and where.

    Raises:
      MetricError: as it is.
      TaskError: any other exception.
    """
    try:
      yield
    except MetricError:
      raise
    except Exception as error:
      sources.fail(f'{self._where}, metric {metric}, {function}', error)


def check_metrics(metrics: Any) -> None:
  """Checks that what a task gives are metrics by name.

  Raises:
    MetricError: they are not.
  """
  if not isinstance(metrics, Mapping):
    raise MetricError(f'metrics must return metrics by name; it returned {errors.shown(metrics)}.')
  for name, one in metrics.items():
    outputs = getattr(one, 'outputs', None)
    is_named = isinstance(outputs, (tuple, list)) and all(isinstance(o, str) for o in outputs)
    if not is_named or not all(hasattr(one, f) for f in ('update', 'merge', 'compute')):
      raise MetricError(
        f'The metric {name!r} must have update, merge, compute, and a tuple of names as outputs; '
        f'it is {errors.shown(one)}.'
      )


def _check_numbers(metric: str, found: Any) -> None:
  """
  Raises:
    MetricError: they are no numbers of the metric.
  """
  if not isinstance(found, Mapping):
    raise MetricError(
      f'The metric {metric!r} must give numbers by name; it gives {errors.shown(found)}.'
    )
  for number, value in found.items():
    before, _, part = str(number).partition(f'{metric}/')
    if number != metric and not (before == '' and part and part.isprintable()):
      raise MetricError(
        f'The metric {metric!r} must give numbers of that name, or of {metric}/<part>; one is '
        f'{number!r}.'
      )
    if not isinstance(value, (int, float, np.integer, np.floating)):
      raise MetricError(f'{number!r} must be a number; it is {errors.shown(value)}.')
