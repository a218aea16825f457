"""Whether the coverage that is said beside intervals is that which they have.

    python tests/simulations/coverage_rates.py
    python tests/simulations/coverage_rates.py --cost_error 0.05

Every set is drawn from known distributions: 4 submissions on 4 workloads, 15 % apart. Log times
have a spread of 10 %. Each cell has a share of misses of its own. Its intervals, and the coverage
that is said of them, come from the functions that score runs. The table compares the mean of what
was said with the share of intervals that hold the truth. With a cost error, the times of all
submissions but the first are also wrong in all studies alike. How large such errors are is known
from one draw for each workload.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scoring import profiles
from scoring.cost_errors import CostErrors
from scoring.statistics import coverage

NUM_SETS = 200
NUM_RESAMPLES = 200
NUM_SUBMISSIONS = NUM_WORKLOADS = 4
SPREAD = 0.1
SEED = 14
STUDIES = (3, 5, 10, 20)
# The shares of misses of cells, as the two parameters of a beta distribution.
MISSES = {'none': None, 'a fifth': (1.0, 4.0), 'half': (2.0, 2.0)}
COLUMNS = profiles.columns([f'w{i}' for i in range(NUM_WORKLOADS)], {}, NUM_WORKLOADS)
OPTIONS: dict[str, Any] = {'max_ratio': 4.0, 'integral': 'exact', 'reference': None}


@dataclass(frozen=True, kw_only=True)
class Coverage:
  """Shares of intervals that hold the truth, of scores and of times: as said, and as it is."""

  said_score: float
  true_score: float
  said_time: float
  true_time: float


def measure(
  num_studies: int, misses: tuple[float, float] | None, num_sets: int, cost_error: float = 0.0
) -> Coverage:
  rng = np.random.default_rng([SEED, num_studies])
  shape = (NUM_SUBMISSIONS, NUM_WORKLOADS)
  said: dict[str, list[np.ndarray]] = {'score': [], 'time': []}
  held: dict[str, list[np.ndarray]] = {'score': [], 'time': []}
  for index in range(num_sets):
    model = coverage.Model(
      centers=np.log(1.15) * np.repeat(np.arange(4.0)[:, None], NUM_WORKLOADS, axis=1),
      spread=SPREAD,
      num_studies=np.full(shape, num_studies),
      num_misses=np.zeros(shape, dtype=int),
    )
    shares = np.zeros(shape) if misses is None else rng.beta(*misses, size=shape)
    truth = model.true_times(shares)
    true_scores = profiles.scores(truth, COLUMNS, **OPTIONS)
    factors, costs = measured_costs(rng, shape, cost_error)
    times = model.draw(rng, shares) * factors[..., None]
    drawn = coverage.resample_studies(rng, times, NUM_RESAMPLES) * costs.draw(rng, NUM_RESAMPLES)
    drawn_scores = profiles.scores(drawn, COLUMNS, **OPTIONS)
    found = coverage.simulated(times, COLUMNS, OPTIONS, seed=index, costs=costs)
    for name, one, bounds, real, counts in (
      ('score', found[0], coverage.percentiles(drawn_scores), true_scores, true_scores > 0),
      ('time', found[1], coverage.percentiles(drawn), truth, np.isfinite(truth)),
    ):
      said[name].append(one[~np.isnan(one)])
      held[name].append(coverage.holds(bounds, real)[counts])
  return Coverage(
    **{f'said_{name}': float(np.concatenate(found).mean()) for name, found in said.items()},
    **{f'true_{name}': float(np.concatenate(found).mean()) for name, found in held.items()},
  )


def measured_costs(
  rng: np.random.Generator, shape: tuple[int, int], log_sd: float
) -> tuple[np.ndarray, CostErrors]:
  """Draws errors of costs.

  Args:
    log_sd: the true standard deviation of the log cost of a copy of the first, the unit.

  Returns:
    The factors by which times are wrong, and what is found of errors; neither with a `log_sd` of 0.
  """
  num_submissions, num_workloads = shape
  is_first = np.arange(num_submissions)[:, None] == np.zeros(num_workloads)
  errors = CostErrors(log_sd=0.0, df=0, places=np.zeros(shape, dtype=int), is_unit=is_first)
  if not log_sd:
    return np.ones(shape), errors
  own, copy = rng.standard_normal((2, *shape))
  logs = np.where(is_first, 0.0, own - own[0]) * log_sd / np.sqrt(2)
  biases = (copy[0] - own[0]) * log_sd / np.sqrt(2)
  found = float(np.sqrt(np.mean(biases**2)))
  return np.exp(logs), replace(errors, log_sd=found, df=num_workloads)


def lines(num_sets: int, cost_error: float = 0.0) -> Iterator[str]:
  """A table by the share of misses and the number of studies."""
  yield '| misses | studies | scores: said | true | times: said | true |'
  yield '|---|---|---|---|---|---|'
  for name, misses in MISSES.items():
    for num_studies in STUDIES:
      one = measure(num_studies, misses, num_sets, cost_error)
      cells = (one.said_score, one.true_score, one.said_time, one.true_time)
      yield f'| {name} | {num_studies} | {" | ".join(f"{cell:.0%}" for cell in cells)} |'


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--num_sets', type=int, default=NUM_SETS, help='sets of each row')
  parser.add_argument('--cost_error', type=float, default=0.0, help='of log times of a place')
  given = parser.parse_args(argv)
  for line in lines(given.num_sets, given.cost_error):
    print(line, flush=True)


if __name__ == '__main__':
  main()
