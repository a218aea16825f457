"""Simulated suites: how often a verdict is false, and how often a faster twin is found.

    python -m scoring.statistics.simulation             the error rates, from the measured noise
    python -m scoring.statistics.simulation RUNS SUITE  measures that noise anew from a set of runs

The noise is that of runs: the deviations of the logarithm of a study's steps to target from the
median of its cell, those of its step time, and the grid of evaluations. A simulated suite has
twins, whose times differ by independent noise (a careful assumption: equal seeds may share some),
and asks for their verdict.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from scoring.statistics import verdicts

NOISE_FILE = Path(__file__).resolve().parent / 'quick_noise.json'
SPEEDUP = 1.15
NUM_STUDIES = 5
NUM_SUITES = 1000


@dataclass(frozen=True, kw_only=True)
class Noise:
  """What varies between studies of one submission on one workload.

  log_steps, log_step_sec: deviations from the cell's mean, widened for its degrees of freedom;
  eval_fraction: the evaluation period over the steps to target. source: where it was measured.
  """

  log_steps: tuple[float, ...]
  log_step_sec: tuple[float, ...]
  eval_fraction: float
  source: str


@dataclass(frozen=True, kw_only=True)
class Rates:
  """Shares of simulated suites: of false verdicts on equal twins, of 'better' for a faster one."""

  num_workloads: int
  num_studies: int
  false_verdicts: float
  found: float


def read_noise(path: Path = NOISE_FILE) -> Noise:
  fields = json.loads(path.read_text())
  return Noise(
    log_steps=tuple(fields['log_steps']),
    log_step_sec=tuple(fields['log_step_sec']),
    eval_fraction=fields['eval_fraction'],
    source=fields['source'],
  )


def measure(runs: str, suite: str) -> Noise:
  """The noise of the cells of a set of runs that have two studies or more at the target."""
  import scoring

  frame = scoring.load(runs)
  result = scoring.score(frame, suite, allow_provisional=True, statistics=False)
  table = result.outcomes[result.outcomes.status == 'reached']
  best = table.sort_values(['row', 'sec']).groupby(['submission', 'workload', 'study']).first()
  steps: list[float] = []
  step_sec: list[float] = []
  fractions: list[float] = []
  num_cells = 0
  for (_, workload), cell in best.groupby(['submission', 'workload']):
    if len(cell) < 2:
      continue
    num_cells += 1
    steps += _deviations(cell.step)
    step_sec += _deviations(cell.step_sec)
    budget = result.rules.members[workload].suites[suite]
    if budget.eval_period_steps is not None:
      fractions += (budget.eval_period_steps / cell.step).tolist()
  return Noise(
    log_steps=tuple(steps),
    log_step_sec=tuple(step_sec),
    eval_fraction=float(np.median(fractions)) if fractions else 0.0,
    source=f'{len(steps)} studies in {num_cells} cells of the suite {suite}',
  )


def _deviations(values: Sequence[float]) -> list[float]:
  logs = np.log(np.asarray(values, dtype=float))
  widened = (logs - logs.mean()) * np.sqrt(len(logs) / (len(logs) - 1))
  return [round(float(value), 5) for value in widened]


def simulate(
  noise: Noise,
  *,
  num_workloads: int,
  num_studies: int = NUM_STUDIES,
  num_suites: int = NUM_SUITES,
  seed: int = 0,
) -> Rates:
  """Error rates of the verdict of one pair with studies paired by seed."""
  rng = np.random.default_rng([seed, num_workloads, num_studies])
  shape = (num_suites, num_workloads, num_studies)
  verdict_of = _Judge(num_workloads, num_studies, seed)
  false = verdict_of(_log_times(noise, rng, shape, 1.0), _log_times(noise, rng, shape, 1.0))
  found = verdict_of(_log_times(noise, rng, shape, SPEEDUP), _log_times(noise, rng, shape, 1.0))
  return Rates(
    num_workloads=num_workloads,
    num_studies=num_studies,
    false_verdicts=float(np.mean([verdict != 'undecided' for verdict in false])),
    found=float(np.mean([verdict == 'better' for verdict in found])),
  )


def _log_times(
  noise: Noise, rng: np.random.Generator, shape: tuple[int, ...], speedup: float
) -> np.ndarray:
  """Log times of a submission: noisy steps, cut up to the next evaluation, at a noisy price."""
  steps = np.exp(rng.choice(noise.log_steps, size=shape)) / speedup
  if noise.eval_fraction:
    # Measured steps lie on the grid: undo that by a uniform amount before cutting again.
    steps = steps - rng.uniform(0, noise.eval_fraction, size=shape)
    steps = np.ceil(steps / noise.eval_fraction) * noise.eval_fraction
  return np.log(np.maximum(steps, 1e-6)) + rng.choice(noise.log_step_sec, size=shape)


class _Judge:
  """The verdicts of many suites of one shape, through the functions that judge real ones."""

  def __init__(self, num_workloads: int, num_studies: int, seed: int):
    self._shape = (num_workloads, num_studies)
    self._draws = verdicts.Draws(seed)

  def __call__(self, a: np.ndarray, b: np.ndarray) -> list[str]:
    found = []
    for own, other in zip(a, b, strict=True):
      comparison = verdicts.Comparison(
        differences=tuple(other - own), samples=tuple(zip(own, other, strict=True))
      )
      p = verdicts.p_value(comparison, self._draws)
      found.append(verdicts.decide(comparison.effect, p))
    return found


def main(argv: Sequence[str]) -> None:
  if argv:
    runs, suite = argv
    noise = measure(runs, suite)
    NOISE_FILE.write_text(json.dumps(asdict(noise), indent=1) + '\n')
  noise = read_noise()
  spread = float(np.std(noise.log_steps))
  print(f'Noise of {noise.source}: {spread:.3f} of log steps, {noise.eval_fraction:.3f} a period')
  for num_workloads in (1, 2, 3, 4):
    rates = simulate(noise, num_workloads=num_workloads)
    print(
      f'{num_workloads} workloads, {rates.num_studies} paired studies: false verdicts '
      f'{rates.false_verdicts:.1%}, a twin {SPEEDUP - 1:.0%} faster is called better '
      f'{rates.found:.1%}'
    )


if __name__ == '__main__':
  main(sys.argv[1:])
