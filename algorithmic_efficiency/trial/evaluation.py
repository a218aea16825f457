"""Evaluates parameters on the splits of a workload: sums become scalars."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency.backends.base import DefinedWorkload, Evaluation, Ranks, TaskCode
from algorithmic_efficiency.benchmark.definition import Split, WorkloadDefinition
from algorithmic_efficiency.data import streams
from algorithmic_efficiency.metrics import derived

PREFIXES: Mapping[Split, str] = {'eval_train': 'train', 'validation': 'validation', 'test': 'test'}


def evaluate(
  backend: Evaluation,
  workload: DefinedWorkload,
  task: TaskCode,
  *,
  params: Any,
  model_state: Any,
  root: Path | None,
  key_data: np.ndarray,
  splits: Iterable[Split] = ('eval_train', 'validation', 'test'),
  max_batches: int | None = None,
) -> dict[str, float]:
  """Runs a full or partial evaluation. Each example of a split counts exactly once.

  Args:
    root: the prepared data set; None takes the generated data of a smoke run.
    key_data: random key data of this evaluation, uint32 [2].
    splits: those that the definition lacks are left out.
    max_batches: evaluate the first few batches of each split only; None evaluates all.

  Returns:
    Metric by `<prefix>/<metric>`; NaN where no example counted.
  """
  results: dict[str, float] = {}
  definition = workload.definition
  for split in splits:
    if definition.splits.num_examples(split) is None:
      continue
    stream = _stream(definition, task, root, split, workload.eval_batch_size, backend)
    with contextlib.closing(stream):
      batches = itertools.islice(stream, max_batches)
      sums = backend.eval_sums(workload, params, model_state, batches, key_data)
    num_examples, _ = sums.pop('num_examples')
    prefix = PREFIXES[split]
    means = {name: total / weight if weight else math.nan for name, (total, weight) in sums.items()}
    means |= derived.from_means(definition.metrics, means)
    results |= {f'{prefix}/{name}': value for name, value in means.items()}
    if split != 'eval_train':
      results[f'{prefix}/num_examples'] = int(num_examples)
  return results


def _stream(
  definition: WorkloadDefinition,
  task: TaskCode,
  root: Path | None,
  split: Split,
  batch_size: int,
  ranks: Ranks,
) -> Any:
  shard = (ranks.rank, ranks.world_size)
  return streams.eval_stream(task.data, definition, root, split, batch_size, shard=shard)
