"""Measures costs of steps on `quick_vision` while the machine is idle, and while all CPUs are busy.

    python tests/benchmarks/cost_idle_busy.py FOLDER [--studies 5] [--minutes 12]

Four algorithms are measured beside the baseline, one of them with an inverse root every 20 steps.
The idle and the busy machine take turns, a study each, so that what drifts meets both. Run it on a
machine without other work. The command goes on where it was, and begins no study that may end after
the given minutes.

Two intervals are printed for each algorithm and machine. The narrow one is Student's over the
studies. The wide one is that of boards: it is at least as wide as copies of the baseline differ. On
one workload this is known with a single degree of freedom, so that the wide one may be very wide.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from algorithmic_efficiency.experiments.race import step_cost
from algorithmic_efficiency.experiments.race.race import Race, RaceSubmission, expand
from algorithmic_efficiency.launch.slots import Slot, slots
from algorithmic_efficiency.results import race_files
from algorithmic_efficiency.results.environment import num_usable_cpus
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.run_options import RunOptions
from scoring.cost_errors import CostErrors, mean_margin

BASELINE = 'nadamw'
ROOTS = Path(__file__).resolve().with_name('cost') / 'inverse_roots.py'
ALGORITHMS = ('adamw', 'momentum', 'nesterov', 'inverse_roots')
MIN_STUDIES = 2  # an interval needs two
_BURNER = 'while True: pass'

Interval = tuple[float, float]


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('folder', type=Path, help='of the costs')
  parser.add_argument('--studies', type=int, default=5, help='studies of each machine')
  parser.add_argument('--minutes', type=float, default=12.0, help='time for those left')
  parser.add_argument('--workload', default='quick_vision', help='workload of the suite quick')
  given = parser.parse_args(argv)
  folders = {name: given.folder / name for name in ('idle', 'busy')}
  measure(folders, given.workload, given.studies, given.minutes * 60)
  costs = {name: log_costs(folder, given.workload) for name, folder in folders.items()}
  for line in lines(costs):
    print(line)


def measure(folders: Mapping[str, Path], workload: str, num_studies: int, limit_sec: float) -> None:
  """Measures the costs that are left into the folder of each machine, as far as time allows."""
  race = Race(
    suite='quick',
    workloads=(workload,),
    entries=(
      *(RaceSubmission(submission=name) for name in (BASELINE, *ALGORITHMS[:-1])),
      RaceSubmission(submission=str(ROOTS), name=ALGORITHMS[-1]),
    ),
    frameworks=('jax',),
    ruleset='self',
    studies=num_studies,
    seed=1,
    experiment_dir=str(folders['idle']),
    options=RunOptions(allow_provisional=True),
  )
  configs = expand(race)
  [slot] = slots(race.devices)
  begin = time.monotonic()
  longest = dict.fromkeys(folders, 0.0)  # of a study
  for study in range(1, num_studies + 1):
    of_study = [config for config in configs if config.study == study]
    for name, folder in folders.items():
      start = time.monotonic()
      if start - begin + longest[name] > limit_sec:
        return
      with busy_cpus() if name == 'busy' else contextlib.nullcontext():
        _measure(name, of_study, folder, slot)
      longest[name] = max(longest[name], time.monotonic() - start)


def _measure(name: str, configs: Sequence[TrialConfig], folder: Path, slot: Slot) -> None:
  begin = time.monotonic()
  problems = step_cost.measure(configs, folder, slot)
  seconds = time.monotonic() - begin
  periods = {cost.submission: cost.period for cost in race_files.read_costs(folder)}
  print(f'study {configs[0].study}, {name}: {seconds:.0f} s, periods {periods}', flush=True)
  for problem in problems:
    print(problem, flush=True)


@contextlib.contextmanager
def busy_cpus() -> Iterator[None]:
  """Keeps as many processes busy as there are CPUs during the block."""
  num_busy = math.ceil(num_usable_cpus())  # a part of a CPU is a share of one
  burners = [subprocess.Popen([sys.executable, '-c', _BURNER]) for _ in range(num_busy)]
  try:
    yield
  finally:
    for one in burners:
      one.kill()
    for one in burners:
      one.wait()


def log_costs(folder: Path, workload: str) -> dict[str, np.ndarray]:
  """[study]: the log costs of each submission; those of the baseline are of its second process."""
  found: dict[str, list[float]] = {}
  for cost in race_files.read_costs(folder):
    if cost.workload == workload:
      found.setdefault(cost.submission, []).append(cost.log_cost)
  return {name: np.array(own) for name, own in found.items()}


def intervals(costs: Mapping[str, np.ndarray], name: str) -> tuple[Interval, Interval]:
  """The interval of a cost by its spread over studies, and that of boards."""
  none = np.zeros((1, 1), dtype=int)
  errors = CostErrors(
    log_sd=abs(float(costs[BASELINE].mean())), df=1, places=none, is_unit=none.astype(bool)
  )
  center = float(costs[name].mean())
  narrow, wide = mean_margin(costs[name]), errors.margin(costs[name])
  return _around(center, narrow), _around(center, wide)


def _around(center: float, half: float) -> Interval:
  return math.exp(center - half), math.exp(center + half)


def lines(costs: Mapping[str, Mapping[str, np.ndarray]]) -> Iterator[str]:
  """A table: the intervals of each algorithm on both machines, and whether they overlap."""
  fewest = min(
    len(found.get(name, ())) for found in costs.values() for name in (BASELINE, *ALGORITHMS)
  )
  if fewest < MIN_STUDIES:
    yield f'An interval needs {MIN_STUDIES} studies on both machines. Run the command again.'
    return
  yield f'Intervals of {fewest} studies or more:'
  yield '| algorithm | idle | busy | overlap | idle, boards | busy, boards | overlap |'
  yield '|---|---|---|---|---|---|---|'
  for name in (BASELINE, *ALGORITHMS):
    on_both = [intervals(costs[machine], name) for machine in ('idle', 'busy')]
    cells = [name]
    for idle, busy in zip(*on_both, strict=True):
      cells += [_text(idle), _text(busy), 'yes' if _overlap(idle, busy) else 'NO']
    yield f'| {" | ".join(cells)} |'
  for machine, found in costs.items():
    spread = statistics.fmean(float(own.std(ddof=1)) for own in found.values())
    yield f'{machine}: log costs differ by {spread:.3f} from study to study (standard deviation)'


def _text(interval: Interval) -> str:
  return f'{interval[0]:.3f} to {interval[1]:.3f}'


def _overlap(one: Interval, other: Interval) -> bool:
  return max(one[0], other[0]) <= min(one[1], other[1])


if __name__ == '__main__':
  main()
