"""Simulated suites: how often a verdict is false, and how often a faster twin is found.

    python -m scoring.statistics.simulation             the error rates, from the measured noise
    python -m scoring.statistics.simulation RUNS SUITE  measures that noise anew from a set of runs

The noise is that of runs: the logarithm of the ratio of two submissions' steps to target in studies
of equal seed, less its mean. Seeds make part of the noise common to both, which is what pairing is
for. What a step costs is measured anew in each study, with a normal error of `COST_ERROR` in its
logarithm. The noise of costs is found from as many errors. A simulated suite has twins whose times
differ by such draws, in either direction, and asks for their verdict.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from algorithmic_efficiency import errors
from scoring.cost_errors import CostErrors
from scoring.statistics import verdicts
from scoring.statistics.comparison import MIN_EFFECT
from scoring.statistics.randomization import Signs, step_down

NOISE_FILE = Path(__file__).resolve().parent / 'quick_noise.json'
SPEEDUP = 1.15
COST_ERROR = 0.02  # of one measurement, on two cores with other work on them
NUM_SUITES = 1000


@dataclass(frozen=True, kw_only=True)
class Noise:
  """Deviations of paired log ratios from their mean, widened for its degree of freedom."""

  log_ratios: tuple[float, ...]
  source: str


@dataclass(frozen=True, kw_only=True)
class Rates:
  """Shares of simulated suites: of false verdicts on equal twins, and on copies that take the same
  steps; of 'better' for a faster twin."""

  num_workloads: int
  num_studies: int
  false_verdicts: float
  on_copies: float
  found: float


def read_noise(path: Path = NOISE_FILE) -> Noise:
  fields = json.loads(path.read_text())
  return Noise(log_ratios=tuple(fields['log_ratios']), source=fields['source'])


def measure(runs: str, suite: str) -> Noise:
  """The noise of all pairs of submissions with two studies or more of equal seed at the target.

  Raises:
    UserError: there is no such pair.
  """
  import scoring

  frame = scoring.load(runs)
  result = scoring.score(frame, suite, allow_provisional=True, statistics=False)
  table = result.outcomes[result.outcomes.status == 'reached']
  best = (
    table.sort_values(['row', 'submission_time_sec'])
    .groupby(['workload', 'seed', 'submission'])
    .step.first()
  )
  deviations: list[float] = []
  num_pairs = 0
  for _, steps in best.groupby('workload'):
    by_submission = np.log(steps.unstack('submission'))
    for a, b in itertools.combinations(by_submission.columns, 2):
      ratios = (by_submission[a] - by_submission[b]).dropna().to_numpy()
      if len(ratios) >= 2:
        num_pairs += 1
        widened = (ratios - ratios.mean()) * np.sqrt(len(ratios) / (len(ratios) - 1))
        deviations += [round(float(value), 5) for value in widened]
  if not deviations:
    raise errors.UserError(f'{runs} holds no two submissions with two studies of equal seeds.')
  source = f'{len(deviations)} pairs of studies of {num_pairs} pairs of submissions on {suite}'
  return Noise(log_ratios=tuple(deviations), source=source)


def simulate(
  noise: Noise,
  *,
  num_workloads: int,
  num_studies: int,
  num_suites: int = NUM_SUITES,
  seed: int = 0,
) -> Rates:
  """Error rates of the verdict of one pair with studies paired by seed."""
  rng = np.random.default_rng([seed, num_workloads, num_studies])
  shape = (num_suites, num_workloads, num_studies)
  signs = Signs.of(num_workloads * num_studies, seed)
  equal = _verdicts(*_twins(noise, rng, shape), signs)
  same = replace(noise, log_ratios=(0.0,))
  copies = _verdicts(*_twins(same, rng, shape), signs)
  ratios, biases = _twins(noise, rng, shape)
  faster = _verdicts(ratios + np.log(SPEEDUP), biases, signs)
  return Rates(
    num_workloads=num_workloads,
    num_studies=num_studies,
    false_verdicts=float(np.mean([one != 'undecided' for one in equal])),
    on_copies=float(np.mean([verdict != 'undecided' for verdict in copies])),
    found=float(np.mean([verdict == 'better' for verdict in faster])),
  )


def _twins(
  noise: Noise, rng: np.random.Generator, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
  """Log ratios [suite, workload, study] of the times of twins, and errors of the same shape.

  The errors are those by which the baseline differs from itself.
  """
  steps = rng.choice(noise.log_ratios, size=shape) * rng.choice([-1.0, 1.0], size=shape)
  costs = COST_ERROR * rng.standard_normal((3, *shape))  # of either twin, and of the baseline
  return steps + costs[0] - costs[1], costs[2]


def _verdicts(log_ratios: np.ndarray, biases: np.ndarray, signs: Signs) -> list[str]:
  """The verdicts of simulated suites, by the functions that decide real ones."""
  found = []
  for ratios, own in zip(log_ratios, biases, strict=True):
    p = step_down(ratios.reshape(1, -1), signs).adjusted[0]
    least = max(float(np.log1p(MIN_EFFECT)), _least_effect(own))
    found.append(verdicts.decide(float(ratios.mean()), least, float(p)))
  return found


def _least_effect(biases: np.ndarray) -> float:
  """What copies differ by, from errors [workload, study] of the baseline against itself."""
  num_workloads = len(biases)
  costs = CostErrors(
    log_sd=float(np.sqrt(np.mean(biases.mean(axis=1) ** 2))),
    df=num_workloads,
    places=np.zeros((2, num_workloads), dtype=int),
    is_unit=np.zeros((2, num_workloads), dtype=bool),
  )
  return costs.least_effect(0, 1, range(num_workloads))


def main(argv: Sequence[str]) -> None:
  if argv:
    runs, suite = argv
    noise = measure(runs, suite)
    NOISE_FILE.write_text(json.dumps(asdict(noise), indent=1) + '\n')
  noise = read_noise()
  spread = float(np.sqrt(np.mean(np.square(noise.log_ratios))))
  print(f'Noise of {noise.source}: {spread:.3f} of the log ratio')
  for num_workloads, num_studies in ((1, 5), (2, 5), (2, 7), (3, 5), (4, 5)):
    rates = simulate(noise, num_workloads=num_workloads, num_studies=num_studies)
    print(
      f'{num_workloads} workloads, {rates.num_studies} paired studies: false verdicts '
      f'{rates.false_verdicts:.1%} ({rates.on_copies:.1%} on copies), a twin {SPEEDUP - 1:.0%} '
      f'faster is called better {rates.found:.1%}'
    )


if __name__ == '__main__':
  main(sys.argv[1:])
