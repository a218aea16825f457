"""Verdicts on a submission against itself, from real runs.

    algoeff bench --suite quick --workloads quick_vision --submissions a=nadamw,b=nadamw \
      --ruleset self --frameworks jax --studies 20 --experiment_dir RUNS
    python tests/simulations/same_submission.py RUNS

Both names race the same algorithm. First with equal seeds, as in any race: their steps are equal,
and their measured costs differ. Then the studies of one are moved on by 1, 2, ... places, so that
the seeds of each pair differ, and each such set is asked for its verdict.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses

import numpy as np

import scoring
from scoring.statistics import comparison, randomization, verdicts
from scoring.statistics.comparison import Evidence

SEED = 14


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('runs', metavar='RUNS')
  parser.add_argument('--suite', default='quick')
  args = parser.parse_args()
  result = scoring.score(scoring.load(args.runs), args.suite)
  a, b = (result.submissions.index(name) for name in result.submissions)
  evidence = comparison.gather(result)
  num_studies = evidence.times.shape[2]
  [paired] = verdicts.all_pairs(result, seed=SEED)
  print(f'{num_studies} studies with equal seeds: {paired.verdict}, {paired.speedup:.3f} times')
  found = collections.Counter(
    _verdict(_moved(evidence, b, places), a, b) for places in range(1, num_studies)
  )
  print(f'{num_studies - 1} sets of {num_studies} studies with other seeds: {dict(found)}')


def _moved(evidence: Evidence, submission: int, places: int) -> Evidence:
  """Returns the evidence with the studies of a submission moved on, matched by their order."""
  times = evidence.times.copy()
  times[submission] = np.roll(times[submission], places, axis=-1)
  return dataclasses.replace(evidence, times=times, seeds={})


def _verdict(evidence: Evidence, a: int, b: int) -> str:
  pair = comparison.compare(evidence, a, b)
  signs = randomization.Signs.of(pair.num_blocks, SEED)
  weighted = pair.weighted[~np.isnan(pair.differences)][None]
  found = randomization.step_down(weighted, signs)
  return verdicts.decide(pair.effect, pair.min_effect, float(found.adjusted[0]))


if __name__ == '__main__':
  main()
