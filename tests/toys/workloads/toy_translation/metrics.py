"""BLEU of the words that are generated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.metrics.bleu import Bleu
from algorithmic_efficiency.metrics.metric import Metric, Outputs


def metrics(definition: WorkloadDefinition, root: Path | None) -> dict[str, Metric]:
  """Returns BLEU, by its name."""
  return {'bleu': Bleu(texts=_texts, outputs=('words',))}


def _texts(outputs: Outputs, batch: Mapping[str, Any]) -> tuple[list[str], list[str]]:
  """Returns a hypothesis and a reference for each row, cut where the reference is padded."""
  counts = batch['weights'] > 0
  return tuple(
    [' '.join(f'w{word}' for word in row[own]) for row, own in zip(rows, counts, strict=True)]
    for rows in (np.asarray(outputs['words']), batch['targets'])
  )
