"""Simulates costs of steps: what differences are found, and whether two machines agree.

    PYTHONPATH=.:tests/unit python tests/simulations/cost_rates.py

The first table is for pairs of submissions that take the same steps, which cost the same or 4 %
more. A difference is found if a board calls one of the two better. The second is for many equal
submissions, of which no two should be told apart. The third is for algorithms that are measured on
a quiet host and on a busy one, by the code that measures real ones. Some have periodic work. The
last says how long this takes, beside the trials of two submissions without
periodic work.
"""

from __future__ import annotations

import itertools
import math
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from fake_stepper import FakeHost, race_configs

from algorithmic_efficiency.experiments.race import probe, step_cost, trial_estimate
from algorithmic_efficiency.launch.slots import Slot
from algorithmic_efficiency.results import race_files
from scoring.cost_errors import CostErrors
from scoring.statistics import randomization, verdicts
from scoring.statistics.comparison import Evidence, compare
from scoring.statistics.randomization import Signs

NUM_STUDIES = (5, 10, 20, 40)
DIFFERENCE = 0.04
ENTRIES = (2, 8)
DESIGNS = ((2, 5), (4, 5), (4, 20))  # workloads and studies
NUM_PATTERNS = 499  # of signs, where there are too many for all
PROCESS_SD = 0.014  # of the log seconds of a step, from process to process
ALGORITHMS = {
  'nadamw': 1.0,
  'twin': 1.0,
  'slow': 1.5,
  'fast': 0.8,
  **{f'every_{period}': 1.5 for period in (20, 50, 100)},
}
_STEP_SEC = 0.01
STEP_SECS = (0.005, 0.01, 0.05, 0.15, 0.5)


@dataclass(frozen=True, kw_only=True)
class Noise:
  """The errors of log step times.

  Attributes:
    place_sd: the part of a submission that stays on one host, in all studies.
    process_sd: the part of a process, of which each study has new ones.
    heavy: whether the latter has the tails of Student's t with 3 degrees of freedom.
  """

  place_sd: float
  process_sd: float = PROCESS_SD
  heavy: bool = False

  def log_costs(
    self, rng: np.random.Generator, num_entries: int, num_workloads: int, num_studies: int
  ) -> np.ndarray:
    """Draws [submission, workload, study]: log costs of a copy of the baseline, and of the entries.

    True costs are 1; the error of the baseline's own process is in all of them.
    """
    shape = (2 + num_entries, num_workloads, num_studies)
    places = self.place_sd * rng.standard_normal((*shape[:2], 1))
    draws = rng.standard_t(3, shape) / math.sqrt(3) if self.heavy else rng.standard_normal(shape)
    logs = places + self.process_sd * draws
    return logs[1:] - logs[0]


def found(
  noise: Noise,
  *,
  num_workloads: int,
  num_studies: int,
  ratio: float,
  num_suites: int,
  num_entries: int = 2,
) -> float:
  """The share of suites with a verdict on any pair, where the first costs more by a log ratio."""
  place = round(1e6 * noise.place_sd)
  rng = np.random.default_rng([num_workloads, num_studies, round(1e6 * ratio), place, noise.heavy])
  signs = Signs.of(num_workloads * num_studies, NUM_PATTERNS, NUM_PATTERNS)
  pairs = [*itertools.combinations(range(num_entries), 2)]
  shape = (num_entries, num_workloads)
  exact = CostErrors(
    log_sd=0.0,
    df=num_workloads,
    places=np.zeros(shape, dtype=int),
    is_unit=np.zeros(shape, dtype=bool),
  )
  quantile = exact.quantile(pairs, range(num_workloads))
  num_found = 0
  for _ in range(num_suites):
    copy, *entries = noise.log_costs(rng, num_entries, num_workloads, num_studies)
    entries[0] += ratio
    evidence = Evidence(
      times=100.0 * np.exp(entries),
      seeds={},
      base=range(num_workloads),
      costs=replace(exact, log_sd=float(np.sqrt(np.mean(copy.mean(axis=-1) ** 2)))),
      cost_quantile=quantile,
      max_ratio=4.0,
    )
    num_found += _is_any_decided(evidence, pairs, signs)
  return num_found / num_suites


def _is_any_decided(
  evidence: Evidence, pairs: Sequence[tuple[int, int]], signs: randomization.Signs
) -> bool:
  comparisons = [compare(evidence, *pair) for pair in pairs]
  weighted = np.array([one.weighted.ravel() for one in comparisons])
  adjusted = randomization.step_down(weighted, signs).adjusted
  return any(
    verdicts.decide(one.effect, one.min_effect, p) != 'undecided'
    for one, p in zip(comparisons, adjusted.tolist(), strict=True)
  )


def measured(host: FakeHost, folder: Path, num_studies: int) -> dict[str, tuple[float, float]]:
  """The interval of the cost of each algorithm, by `step_cost.measure` on a host.

  It has the draws of two workloads, of which the second is for the noise of the baseline alone.
  """
  with mock.patch.object(step_cost, 'Stepper', host.stepper):
    for workload, names in (('quick_vision', ALGORITHMS), ('quick_lm', ('nadamw', 'twin'))):
      for study in range(1, num_studies + 1):
        step_cost.measure(race_configs(*names, study=study, workload=workload), folder, Slot())
  logs: dict[tuple[str, str], list[float]] = {}
  for cost in race_files.read_costs(folder):
    logs.setdefault((cost.submission, cost.workload), []).append(cost.log_cost)
  biases = [statistics.fmean(own) for (name, _), own in logs.items() if name == 'nadamw']
  none = np.zeros((1, 1), dtype=int)
  errors = CostErrors(
    log_sd=math.sqrt(statistics.fmean(one**2 for one in biases)),
    df=len(biases),
    places=none,
    is_unit=none.astype(bool),
  )
  intervals = {}
  for name in ALGORITHMS.keys() - {'nadamw'}:
    own = np.array(logs[name, 'quick_vision'])
    half = errors.margin(own)
    intervals[name] = (math.exp(own.mean() - half), math.exp(own.mean() + half))
  return intervals


def quiet(seed: int, step_sec: float = _STEP_SEC) -> FakeHost:
  return _host(seed, step_sec, process_noise=0.005, burst_noise=0.01)


def busy(seed: int, step_sec: float = _STEP_SEC) -> FakeHost:
  """A host whose cores are shared: twice as slow, and noisy from process to process.

  A quarter of its steps is longer, by half on average.
  """
  noise = {'process_noise': 0.03, 'burst_noise': 0.08, 'slow_steps': (0.25, 0.5)}
  return _host(seed, 2.0 * step_sec, **noise)


def _host(seed: int, step_sec: float, **noise: Any) -> FakeHost:
  periods = {name: int(name[6:]) for name in ALGORITHMS if name.startswith('every_')}
  usual = {name: 1.0 if name in periods else cost for name, cost in ALGORITHMS.items()}
  return FakeHost(
    step_sec={name: step_sec * cost for name, cost in usual.items()},
    extra={
      name: (period, period * step_sec * (ALGORITHMS[name] - 1)) for name, period in periods.items()
    },
    rng=np.random.default_rng(seed),
    **noise,
  )


def timing_share(host: FakeHost, num_studies: int = 3) -> float:
  """The seconds of timing two submissions without periodic work, over those of their trials.

  A trial is one of `quick_vision` that spends half of its budget. All is done one after the other.
  """
  folder = tempfile.TemporaryDirectory()
  with folder, mock.patch.object(step_cost, 'Stepper', host.stepper):
    for study in range(1, num_studies + 1):
      configs = race_configs('nadamw', 'twin', study=study)
      step_cost.measure(configs, Path(folder.name), Slot())
  timing_sec = host.now
  with mock.patch.object(probe, 'Stepper', host.stepper):
    one = probe.probe(configs[0], Slot())
  trial = trial_estimate.trial(
    trial_estimate.rules_of(configs[0]), one, checkpoints=False, share=0.5
  )
  return timing_sec / (2 * num_studies * trial.sec)


def agreement(num_sets: int, num_studies: int = 5) -> tuple[dict[str, float], dict[str, float]]:
  """Shares of sets, by algorithm: both intervals overlap, and both hold the true cost."""
  overlaps: dict[str, list[bool]] = {}
  holds: dict[str, list[bool]] = {}
  for seed in range(num_sets):
    pair: list[dict[str, tuple[float, float]]] = []
    for host in (quiet(seed), busy(num_sets + seed)):
      with tempfile.TemporaryDirectory() as folder:
        pair.append(measured(host, Path(folder), num_studies))
    for name in pair[0]:
      (low, high), (other_low, other_high) = pair[0][name], pair[1][name]
      overlaps.setdefault(name, []).append(max(low, other_low) <= min(high, other_high))
      inside = [one[name][0] <= ALGORITHMS[name] <= one[name][1] for one in pair]
      holds.setdefault(name, []).append(all(inside))
  return (
    {name: statistics.fmean(values) for name, values in overlaps.items()},
    {name: statistics.fmean(values) for name, values in holds.items()},
  )


SETTINGS: dict[str, Noise] = {
  'no part that stays': Noise(place_sd=0.0),
  '0.7 % stays': Noise(place_sd=0.007),
  '2 % stays': Noise(place_sd=0.02),
  '0.7 % stays, heavy tails': Noise(place_sd=0.007, heavy=True),
}


def table(num_suites: int, workloads: Sequence[int] = (1, 2, 4)) -> None:
  """Prints how often a pair is told apart whose costs differ, and one whose costs are equal."""
  print('| the error | workloads | true difference | ' + ' | '.join(map(str, NUM_STUDIES)) + ' |')
  print('|---' * (3 + len(NUM_STUDIES)) + '|')
  for name, noise in SETTINGS.items():
    for num_workloads in workloads:
      for difference in (DIFFERENCE, 0.0):
        rates = [
          found(
            noise,
            num_workloads=num_workloads,
            num_studies=num_studies,
            ratio=math.log1p(difference),
            num_suites=num_suites,
          )
          for num_studies in NUM_STUDIES
        ]
        cells = (name, str(num_workloads), f'{difference:.0%}', *(f'{one:.1%}' for one in rates))
        print('| ' + ' | '.join(cells) + ' |', flush=True)


def many(num_suites: int) -> None:
  """Prints how often there is any verdict among equal entries, whose costs have errors alone."""
  print(
    '| the error | entries | '
    + ' | '.join(f'{w} workloads, {n} studies' for w, n in DESIGNS)
    + ' |'
  )
  print('|---' * (2 + len(DESIGNS)) + '|')
  for name, noise in SETTINGS.items():
    for num_entries in ENTRIES:
      rates = [
        found(
          noise,
          num_workloads=num_workloads,
          num_studies=num_studies,
          ratio=0.0,
          num_suites=num_suites,
          num_entries=num_entries,
        )
        for num_workloads, num_studies in DESIGNS
      ]
      print(f'| {name} | {num_entries} | {" | ".join(f"{one:.1%}" for one in rates)} |', flush=True)


def main() -> None:
  print('Pairs told apart, by the number of studies:')
  table(1000)
  print('Equal entries, of which any two are told apart:')
  many(200)
  overlaps, holds = agreement(60)
  for name in overlaps:
    print(f'{name}: intervals overlap {overlaps[name]:.1%}, both hold the cost {holds[name]:.1%}')
  for step_sec in STEP_SECS:
    shares = [timing_share(host(0, step_sec)) for host in (quiet, busy)]
    print(f'steps of {step_sec:g} s: timing takes {shares[0]:.2f}, {shares[1]:.2f} of trials')


if __name__ == '__main__':
  main()
