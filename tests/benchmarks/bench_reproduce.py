"""How often `algoeff reproduce` is right on the published logs of AlgoPerf 0.5.

Of each point with five logs one is held, with all its metrics, against some of the others; and
a log of another point of the same search space against the same ones.
Command: python tests/benchmarks/bench_reproduce.py [FOLDER WITH THE UNPACKED LOGS]
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.experiments.reproduction import prediction_band, reference_logs
from algorithmic_efficiency.experiments.reproduction.reference_logs import Log


def is_reproduced(run: Log, logs: Sequence[Log]) -> bool:
  found = prediction_band.agreements(run, prediction_band.bands(logs, run.steps))
  return bool(found) and all(one.is_inside for one in found)


def main() -> None:
  if len(sys.argv) == 1:
    print('Skipped: no folder with the unpacked logs was given.')
    return
  root = Path(sys.argv[1]).resolve()
  draw = random.Random(0)
  spaces: list[list[list[Log]]] = []
  for submission in sorted({file.parents[3] for file in root.rglob('eval_measurements.csv')}):
    files = submission.glob('study_*/*/trial_*/eval_measurements.csv')
    names = {file.parents[1].name for file in files}
    for name in sorted(names):
      workload, _, framework = name.rpartition('_')
      logs = reference_logs.find(submission, workload, framework, apart=Path('/nowhere')).found
      points = reference_logs.by_point([log for log in logs if len(log.steps) >= 3])
      spaces.append([point for point in points if len(point) == 5])
  for number in (3, 4):
    own: list[bool] = []
    other: list[bool] = []
    for space in spaces:
      for point in space:
        held, *rest = draw.sample(point, 5)
        own.append(is_reproduced(held, rest[:number]))
        if len(space) > 1:
          stranger = draw.choice([one for one in space if one is not point])
          other.append(is_reproduced(draw.choice(stranger), rest[:number]))
    print(
      f'{number} logs: of {len(own)} trials {sum(own) / len(own):.1%} are inside the band of their '
      f'own point, and {sum(other) / len(other):.1%} are inside that of another'
    )


if __name__ == '__main__':
  registry.pin_own_packages()
  main()
