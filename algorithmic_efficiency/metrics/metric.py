"""What a metric is: sums of a model and outputs of examples become numbers, on the host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
  import numpy as np

Sums = Mapping[str, Any]
"""Totals over a split by metric, as `eval_step` names them: trees of floats and float64 arrays."""

Outputs = Mapping[str, 'np.ndarray']
"""Arrays [rows, ...] by name: one row for each example."""

State = Any
"""What a metric keeps of the rows it has seen; picklable. None before the first row."""


class MetricError(ValueError):
  """The code of a task and a metric do not fit.

  Args:
    message: names the metric or the output.
    output: the output that is wrong, if one is.
  """

  def __init__(self, message: str, output: str | None = None):
    super().__init__(message)
    self.output = output


class Metric(Protocol):
  """Computes numbers for a split from sums of the model, from outputs of examples, or from both.

  The result is the same for any evaluation batch size and any number of devices and ranks: sums
  add, and a state merges.

  Attributes:
    outputs: names of the outputs that `update` reads; empty for a metric of sums alone, whose
      `update` and `merge` are never called.
  """

  @property
  def outputs(self) -> tuple[str, ...]: ...

  def update(self, state: State, outputs: Outputs, batch: Mapping[str, Any]) -> State:
    """Returns the state after more examples of this rank, in the order of the split.

    Args:
      state: None before the first example.
      outputs: those of `eval_step` and, if the metric is generated, of `generate`; [rows, ...].
      batch: the same examples as the data gave them, numpy [rows, ...]. Padding is left out. In
        `weights`, parts of an example may count 0.
    """
    ...

  def merge(self, states: list[State]) -> State:
    """Returns the state of all ranks from those of single ranks, none of which is None."""
    ...

  def compute(self, sums: Sums, state: State) -> dict[str, float]:
    """Returns numbers by name: that of the metric, or `<metric>/<part>`.

    Args:
      sums: totals over all ranks; a name that `eval_step` did not give raises MetricError.
      state: None if no example counted.
    """
    ...


class OfSums:
  """The base of metrics that need no outputs."""

  outputs: tuple[str, ...] = ()

  def update(self, state: State, outputs: Outputs, batch: Mapping[str, Any]) -> State:
    return state

  def merge(self, states: list[State]) -> State:
    return None


class Totals(dict[str, Any]):
  """Sums by metric that say which ones there are when one is missing."""

  def __missing__(self, name: str) -> Any:
    raise MetricError(
      f'The metric {name!r} takes its sums from eval_step, which gives {_listed(self)}. Give them '
      'there, or give a metric of that name in metrics.py.'
    )


def check_rows(outputs: Any, num_rows: int) -> None:
  """Checks that outputs are arrays by name, with a row for each example.

  Raises:
    MetricError: they are not, or the first axis of one is not that of the batch.
  """
  if not isinstance(outputs, Mapping):
    raise MetricError(f'Outputs must be arrays by name; they are {type(outputs).__name__}.')
  for name, output in outputs.items():
    if not hasattr(output, 'shape'):
      raise MetricError(
        f'An output must be an array; {name!r} is {type(output).__name__}.', output=name
      )
    shape = tuple(output.shape)
    if shape[:1] != (num_rows,):
      raise MetricError(
        f'The first axis of an output must be that of the batch, of {num_rows} rows; the shape of '
        f'{name!r} is {list(shape)}.',
        output=name,
      )


def check_outputs(metric: Metric, name: str, outputs: Mapping[str, Any], source: str) -> None:
  """Checks that a metric finds its outputs.

  Args:
    source: the function that must give the outputs.

  Raises:
    MetricError: an output is missing.
  """
  for output in metric.outputs:
    if output not in outputs:
      raise MetricError(
        f'The metric {name!r} reads the output {output!r}, which {source} must give; the outputs '
        f'are: {_listed(outputs)}.'
      )


def _listed(names: Iterable[str]) -> str:
  return ', '.join(names) or 'none'
