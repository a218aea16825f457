"""Whether the race of `make demo` ends alike whatever the seed.

    python tests/simulations/demo_seeds.py FOLDER [--studies 20]

It runs both submissions of the demo on its workload with 20 study seeds, and prints the plain steps
of each to the target. The command goes on where it was interrupted. The outcome is the same on any
machine if all ratios are far above 1, and nothing stands close to the end of its budget.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.results import measurements

SUITE, WORKLOAD, FRAMEWORK, SEED = 'quick', 'quick_vision', 'jax', 1
WINNER, LOSER = 'nesterov', 'adamw'


@dataclass(frozen=True, kw_only=True)
class Found:
  """What became of a trial.

  Attributes:
    steps: plain steps to the validation target; inf for a miss.
    num_steps: all steps of the trial.
    best: the best validation value.
  """

  steps: float
  num_steps: float
  best: float

  @property
  def at_least(self) -> float:
    """Steps that a trial has needed, or would have needed at least."""
    return min(self.steps, self.num_steps)


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('folder', help='of the runs')
  parser.add_argument('--studies', type=int, default=20, help='study seeds')
  given = parser.parse_args(argv)
  for name in (WINNER, LOSER):
    race(name, Path(given.folder), given.studies)
  found = {
    name: [read(folder_of(name, Path(given.folder), k + 1)) for k in range(given.studies)]
    for name in (WINNER, LOSER)
  }
  for line in table(found):
    print(line)


def race(submission: str, folder: Path, num_studies: int) -> None:
  command = (
    f'run --workload {WORKLOAD} --suite {SUITE} --framework {FRAMEWORK} --submission {submission} '
    f'--ruleset self --studies {num_studies} --seed {SEED} --num_threads 1 --resume'
  )
  subprocess.run(
    [
      *(sys.executable, '-m', 'algorithmic_efficiency', *command.split()),
      *('--experiment_dir', str(folder)),
    ],
    check=True,
  )


def folder_of(submission: str, folder: Path, study: int) -> Path:
  return folder / submission / f'study_{study}' / f'{WORKLOAD}_{FRAMEWORK}' / 'trial_1'


def read(trial: Path) -> Found:
  target = registry.workload(WORKLOAD, SUITE).target
  rows = measurements.read(trial).evals
  values = [row[f'validation/{target.metric}'] for row in rows]
  hits = [
    row['charged_steps']
    for row, value in zip(rows, values, strict=True)
    if target.reached('validation', value)
  ]
  return Found(
    steps=hits[0] if hits else math.inf,
    num_steps=rows[-1]['charged_steps'],
    best=min(values) if target.direction == 'min' else max(values),
  )


def table(found: Mapping[str, Sequence[Found]]) -> Iterator[str]:
  """A line for each study seed, and the closest calls."""
  yield f'study  {WINNER}  {LOSER}  ratio'
  ratios = []
  for study, (winner, loser) in enumerate(zip(found[WINNER], found[LOSER], strict=True), 1):
    ratios.append(loser.at_least / winner.steps)
    sign = '' if math.isfinite(loser.steps) else '>'
    yield (
      f'{study:5}  {winner.steps:{len(WINNER)}.0f}  {f"{sign}{loser.at_least:.0f}":>{len(LOSER)}}  '
      f'{f"{sign}{ratios[-1]:.2f}":>5}'
    )
  target = registry.workload(WORKLOAD, SUITE).target
  budget = registry.budget(registry.workload(WORKLOAD, SUITE), SUITE).max_steps
  best = [one.best for one in found[LOSER]]
  yield f'The least ratio is {min(ratios):.2f}.'
  yield (
    f'{WINNER} needs {max(one.steps for one in found[WINNER]):.0f} of {budget} steps at most. The '
    f'best {target.metric} of {LOSER} is {min(best):.3g} to {max(best):.3g}; the target is '
    f'{target.validation:.3g}.'
  )


if __name__ == '__main__':
  main()
