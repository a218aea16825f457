"""Writes logs as AlgoPerf's runs leave them: rows, a point, and nothing that says more."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

STEPS = (1, *range(10, 101, 10))
POINT = {'learning_rate': 0.01, 'beta2': 0.999}


def loss(steps: Sequence[int], seed: int, *, pace: float = 0.03, noise: float = 0.01) -> np.ndarray:
  """A loss that falls from 2.3 to 0.3, each seed with its own noise of that many per cent."""
  random = np.random.default_rng(seed)
  falls = 0.3 + 2.0 * np.exp(-pace * np.asarray(steps))
  return falls * (1 + noise * random.standard_normal(len(steps)))


def write_log(
  folder: Path,
  curves: Mapping[str, Sequence[float]],
  *,
  steps: Sequence[int] = STEPS,
  point: Mapping[str, Any] | None = POINT,
) -> Path:
  folder.mkdir(parents=True)
  names = sorted(curves)
  lines = [','.join(['accumulated_eval_time', 'global_step', *names, 'validation/num_examples'])]
  for index, step in enumerate(steps):
    lines.append(','.join(map(str, [0.5, step, *(curves[name][index] for name in names), 359])))
  (folder / 'eval_measurements.csv').write_text('\n'.join(lines) + '\n')
  if point is not None:
    (folder / 'hparams.json').write_text(json.dumps(point))
  return folder


def write_logs(
  root: Path, number: int = 4, *, workload: str = 'quick_vision_jax', **options: Any
) -> Path:
  """Logs of as many seeds, each in a study of its own."""
  for seed in range(number):
    folder = root / f'study_{seed + 1}' / workload / 'trial_1'
    write_log(folder, {'validation/loss': loss(options.get('steps', STEPS), seed)}, **options)
  return root
