"""How often verdicts are false among many submissions, and how often differences are found.

    python tests/simulations/verdict_rates.py                 all tables, 4,000 suites a cell
    python tests/simulations/verdict_rates.py --num_suites 200

Every suite is drawn, cut off, tested and decided by the functions that score runs. Log times are
normal, with a spread of 10 % unless the kind of suite says otherwise. A suite counts as false if
any pair of equal entries gets a verdict. Power is the share of pairs that get the right verdict.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from scoring.statistics import comparison, randomization

MAX_RATIO = 4.0
NUM_SUITES = 4000
NUM_PATTERNS = 499  # of signs, where there are too many for all
BATCH = 40  # suites that are drawn together, and tested by the same signs
SPREAD = 0.1
SEED = 14
ENTRIES = (2, 8, 20)
DESIGNS = ((3, 2), (5, 2), (10, 2), (20, 2), (3, 4), (5, 4), (3, 8), (5, 8), (20, 8))
MIN_LOG = math.log1p(comparison.MIN_EFFECT)


@dataclass(frozen=True, kw_only=True)
class Suites:
  """Simulated suites.

  Attributes:
    times: [suite, entry, workload, study]; inf for a miss.
    truth: [entry, entry]: 1 where the first of a pair is faster, -1 where it is slower, 0 where
      they are equal.
  """

  times: np.ndarray
  truth: np.ndarray


Draw = Callable[[np.random.Generator, tuple[int, ...]], Suites]


def _suites(logs: np.ndarray, groups: np.ndarray) -> Suites:
  """Suites whose entries are faster the lower their group."""
  return Suites(times=np.exp(logs), truth=np.sign(groups[None, :] - groups[:, None]))


def equal_entries(rng: np.random.Generator, shape: tuple[int, ...]) -> Suites:
  return _suites(SPREAD * rng.standard_normal(shape), np.zeros(shape[1]))


def unequal_spreads(rng: np.random.Generator, shape: tuple[int, ...]) -> Suites:
  """From 1 % to 30 %, over entries."""
  spreads = np.geomspace(0.01, 0.3, shape[1])[:, None, None]
  return _suites(spreads * rng.standard_normal(shape), np.zeros(shape[1]))


def common_misses(rng: np.random.Generator, shape: tuple[int, ...]) -> Suites:
  """Equal entries that miss a third of their studies: differences are skewed, ties are common."""
  suites = equal_entries(rng, shape)
  missed = rng.random(shape) < 1 / 3
  return Suites(times=np.where(missed, np.inf, suites.times), truth=suites.truth)


def misses_on_one_side(rng: np.random.Generator, shape: tuple[int, ...]) -> Suites:
  """Two groups of equal entries; only those of the slower group miss, a third of their studies."""
  groups = np.arange(shape[1]) % 2
  logs = SPREAD * rng.standard_normal(shape) + 0.3 * groups[:, None, None]
  missed = (rng.random(shape) < 1 / 3) & (groups == 1)[:, None, None]
  return _suites(np.where(missed, np.inf, logs), groups)


def with_a_duplicate(rng: np.random.Generator, shape: tuple[int, ...]) -> Suites:
  """The last entry is the first one again, bit for bit; all others are equal in distribution."""
  suites = unequal_spreads(rng, shape)
  suites.times[:, -1] = suites.times[:, 0]
  return suites


def partial_nulls(rng: np.random.Generator, shape: tuple[int, ...]) -> Suites:
  """Pairs of equal entries, a factor of 1.2 between the pairs, with unequal spreads."""
  groups = np.arange(shape[1]) // 2
  spreads = np.geomspace(0.03, 0.3, shape[1])[:, None, None]
  return _suites(
    spreads * rng.standard_normal(shape) + math.log(1.2) * groups[:, None, None], groups
  )


def equal_on_average(rng: np.random.Generator, shape: tuple[int, ...]) -> Suites:
  """Every other entry misses a third of its studies, and is faster by as much in all others.

  The two are equal in the mean and not in the median: no test of the mean can tell from few studies
  that misses are to come. So the rate that is claimed leaves such suites out.
  """
  risky = (np.arange(shape[1]) % 2 == 1)[:, None, None]
  logs = 1e-3 * rng.standard_normal(shape) - risky * math.log(MAX_RATIO) / 3
  missed = (rng.random(shape) < 1 / 3) & risky
  return _suites(np.where(missed, np.inf, logs), np.zeros(shape[1]))


NULLS: tuple[Draw, ...] = (
  equal_entries,
  unequal_spreads,
  common_misses,
  misses_on_one_side,
  with_a_duplicate,
  partial_nulls,
)


def one_is_faster(rng: np.random.Generator, shape: tuple[int, ...]) -> Suites:
  """The first entry is 15 % faster than all the others, which are equal."""
  groups = np.minimum(np.arange(shape[1]), 1)
  return _suites(
    SPREAD * rng.standard_normal(shape) + math.log(1.15) * groups[:, None, None], groups
  )


def far_apart(rng: np.random.Generator, shape: tuple[int, ...]) -> Suites:
  """Each entry is 35 % faster than the next; studies differ by 1 %."""
  groups = np.arange(shape[1])
  return _suites(0.01 * rng.standard_normal(shape) + math.log(1.35) * groups[:, None, None], groups)


def pair_differences(times: np.ndarray) -> np.ndarray:
  """[pair, block] from [entry, workload, study]: weighted as those of a comparison."""
  first, second = np.triu_indices(len(times), 1)
  logs = comparison.capped_logs(np.stack([times[first], times[second]]), MAX_RATIO)
  differences = (logs[1] - logs[0]).reshape(len(first), -1)
  return differences / differences.shape[1]


def decided(times: np.ndarray, signs: randomization.Signs) -> np.ndarray:
  """[pair]: 1 where the first is called better, -1 where it is called worse, else 0."""
  differences = pair_differences(times)
  found = randomization.step_down(differences, signs)
  effects = differences.sum(axis=1)
  sure = (found.adjusted <= randomization.LEVEL) & (np.abs(effects) >= MIN_LOG)
  return np.where(sure, np.sign(effects), 0.0)


def rates(
  draw: Draw, num_entries: int, design: tuple[int, int], num_suites: int
) -> tuple[float, float]:
  """The share of suites with a false verdict, and of unequal pairs with the right one.

  Args:
    design: the number of studies, and of workloads.
  """
  num_studies, num_workloads = design
  rng = np.random.default_rng([SEED, num_entries, *design])
  pairs = np.triu_indices(num_entries, 1)
  num_false, right = 0, 0.0
  for start in range(0, num_suites, BATCH):
    num = min(BATCH, num_suites - start)
    signs = randomization.Signs.of(num_studies * num_workloads, SEED + start, NUM_PATTERNS)
    suites = draw(rng, (num, num_entries, num_workloads, num_studies))
    truth = suites.truth[pairs]
    unequal = truth != 0
    for times in suites.times:
      found = decided(times, signs)
      num_false += bool(found[~unequal].any() or (found * truth < 0).any())
      right += (found == truth)[unequal].mean() if unequal.any() else 0.0
  return num_false / num_suites, right / num_suites


def upper_limit(rate: float, num_suites: int) -> float:
  """The one-sided 95 % limit of a rate, by Wilson."""
  z = 1.6449
  center = rate + z * z / (2 * num_suites)
  spread = z * math.sqrt(rate * (1 - rate) / num_suites + (z / (2 * num_suites)) ** 2)
  return (center + spread) / (1 + z * z / num_suites)


def false_rates(draws: Sequence[Draw], num_suites: int) -> Iterator[str]:
  """A table of the worst rate over the kinds of suites, with its limit and that kind."""
  yield 'False verdicts, % of suites (upper 95 % limit, kind of suite that has most)'
  yield from _heading()
  for design in DESIGNS:
    cells = []
    for num_entries in ENTRIES:
      found = {one.__name__: rates(one, num_entries, design, num_suites)[0] for one in draws}
      kind, rate = max(found.items(), key=lambda item: item[1])
      cells.append(f'{rate:.1%} ({upper_limit(rate, num_suites):.1%}, {kind})')
    yield _row(design, cells)


def powers(draw: Draw, num_suites: int) -> Iterator[str]:
  """A table of the share of unequal pairs that get the right verdict."""
  yield f'Right verdicts, % of pairs. {draw.__doc__}'
  yield from _heading()
  for design in DESIGNS:
    cells = [f'{rates(draw, count, design, num_suites)[1]:.0%}' for count in ENTRIES]
    yield _row(design, cells)


def _heading() -> tuple[str, str]:
  names = ['studies', 'workloads', *(f'{count} entries' for count in ENTRIES)]
  return f'| {" | ".join(names)} |', '|' + '---|' * len(names)


def _row(design: tuple[int, int], cells: Iterable[str]) -> str:
  return f'| {" | ".join([*map(str, design), *cells])} |'


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--num_suites', type=int, default=NUM_SUITES, help='suites of each cell')
  num_suites = parser.parse_args(argv).num_suites
  for draw in (one_is_faster, far_apart):
    for line in powers(draw, max(1, num_suites // 10)):
      print(line, flush=True)
    print()
  for draws in (NULLS, (equal_on_average,)):
    for line in false_rates(draws, num_suites):
      print(line, flush=True)
    print()


if __name__ == '__main__':
  main()
