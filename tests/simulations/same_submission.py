"""Verdicts on a submission against itself, from real runs.

    python tests/simulations/same_submission.py FOLDER [--studies 20] [--minutes 12]

Two names race the same algorithm on `quick_vision`. The command goes on where it was, begins no
more studies than may end in the given minutes, and asks for verdicts on all that are finished.

First come the studies with equal seeds, as in any race: their steps are equal, and their measured
costs differ. Then the studies of one are moved on by 1, 2, ... places, so that the seeds of each
pair differ, and each such set is asked for its verdict.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np

import scoring
from scoring.result import Result
from scoring.statistics import comparison, randomization, verdicts
from scoring.statistics.comparison import Evidence

SEED = 14
SUITE, WORKLOAD, ALGORITHM = 'quick', 'quick_vision', 'nesterov'
AT_ONCE = 4  # studies of one command
MIN_STUDIES = 2


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('folder', help='of the runs')
  parser.add_argument('--studies', type=int, default=20, help='studies to race')
  parser.add_argument('--minutes', type=float, default=12.0, help='time for those left')
  given = parser.parse_args(argv)
  race(given.folder, given.studies, given.minutes * 60)
  runs = scoring.load(given.folder)
  result = scoring.score(runs, SUITE, ruleset='self', workloads=(WORKLOAD,), statistics=False)
  for line in lines(result):
    print(line)


def race(folder: str, num_studies: int, limit_sec: float) -> None:
  """Races some studies at a time, as long as as many more may end before the limit."""
  begin, longest = time.monotonic(), 0.0
  for last in range(AT_ONCE, num_studies + AT_ONCE, AT_ONCE):
    start = time.monotonic()
    if start - begin + longest > limit_sec:
      return
    command = (
      f'bench --suite {SUITE} --workloads {WORKLOAD} --ruleset self --frameworks jax --quiet'
    )
    options = ['--submissions', f'a={ALGORITHM},b={ALGORITHM}', '--seed', str(SEED)]
    options += ['--studies', str(min(last, num_studies)), '--experiment_dir', folder]
    subprocess.run(
      [sys.executable, '-m', 'algorithmic_efficiency', *command.split(), *options],
      check=True,
      stdout=subprocess.DEVNULL,
    )
    longest = max(longest, time.monotonic() - start)


def lines(result: Result) -> Iterator[str]:
  """What a reader needs: times, what costs differ by, and how often there is a verdict."""
  evidence = comparison.gather(result, [(0, 1)])
  times = evidence.times[:, 0]
  for name, own in zip(result.submissions, times, strict=True):
    hits = own[np.isfinite(own)]
    reached = f'{name}: {len(hits)} of {len(own)} studies reach the target'
    if len(hits) < MIN_STUDIES:
      yield reached
      continue
    yield (
      f'{reached}; cost-adjusted steps {hits.min():.1f} to {hits.max():.1f}, spread of logs '
      f'{np.log(hits).std(ddof=1):.3f}'
    )
  num_studies = times.shape[-1]
  if len(times) != 2 or num_studies < MIN_STUDIES:
    yield f'Verdicts need two submissions and {MIN_STUDIES} studies.'
    return
  paired = verdicts.one_pair(result, *result.submissions, seed=SEED)
  yield (
    f'{num_studies} studies with equal seeds: {paired.verdict}; {paired.speedup:.4f} times as '
    f'fast, p {paired.p:.3f}, and {paired.min_effect:.4f} is noise'
  )
  moved = [verdict(moved_on(evidence, places)) for places in range(1, num_studies)]
  found = collections.Counter(moved)
  counts = ', '.join(f'{count} {name}' for name, count in sorted(found.items()))
  yield f'{num_studies - 1} sets of {num_studies} studies with other seeds: {counts}'


def moved_on(evidence: Evidence, places: int) -> Evidence:
  """Returns the evidence with the studies of the second moved on, matched by their order."""
  times = evidence.times.copy()
  times[1] = np.roll(times[1], places, axis=-1)
  return dataclasses.replace(evidence, times=times, seeds={})


def verdict(evidence: Evidence) -> str:
  """Returns the verdict on the first against the second."""
  pair = comparison.compare(evidence, 0, 1)
  signs = randomization.Signs.of(pair.num_blocks, SEED)
  p = randomization.step_down(pair.weighted.reshape(1, -1), signs).adjusted[0]
  return verdicts.decide(pair.effect, pair.min_effect, float(p))


if __name__ == '__main__':
  main()
