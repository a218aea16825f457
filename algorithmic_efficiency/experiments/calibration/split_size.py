"""Counts what the metrics of a split are means over."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import streams
from algorithmic_efficiency.results.schema import Count


@dataclass(frozen=True, kw_only=True)
class SplitSize:
  """The size of a split.

  Attributes:
    num_examples: number of examples.
    num_parts: number of the parts of examples that metrics count apart, such as tokens; the number
      of examples where there are none.
  """

  num_examples: Count
  num_parts: Count

  @classmethod
  def of_validation(cls, definition: WorkloadDefinition, data_dir: Path) -> SplitSize:
    """Counts the weights of the batches of a validation split.

    Raises:
      UserError: the data is missing or damaged.
    """
    stream = streams.eval_stream(
      registry.module_of(definition, 'data'),
      definition,
      data_dir / definition.dataset,
      'validation',
      definition.batch_sizes.eval,
    )
    with contextlib.closing(stream):
      counted = [np.asarray(batch['weights']) != 0 for batch in stream]
    return cls(
      num_examples=sum(int(one.reshape(len(one), -1).any(axis=1).sum()) for one in counted),
      num_parts=sum(int(one.sum()) for one in counted),
    )
