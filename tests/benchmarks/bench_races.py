"""What a race costs beside its trials: starting one, two workers against one, and a scan of runs.

Commands that are compared take rounds, so that what else runs on the machine meets them alike.
"""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from algorithmic_efficiency import backends
from algorithmic_efficiency.experiments.race import state
from algorithmic_efficiency.experiments.race.race import Race, RaceSubmission, expand
from algorithmic_efficiency.trial.run_options import RunOptions

NUM_ROUNDS = 3
NUM_TRIALS = 4  # of a race whose throughput is measured
NUM_STEPS = 300
COMMON = (
  *('--ruleset', 'self', '--allow_provisional', '--seed', '1', '--no-save_checkpoints', '--quiet'),
)


def main() -> None:
  with tempfile.TemporaryDirectory() as folder:
    _scan(Path(folder))
    for framework in backends.FRAMEWORKS:
      _start(framework, Path(folder))
      _throughput(framework, Path(folder))


def _scan(folder: Path) -> None:
  entries = tuple(RaceSubmission(submission='nadamw', name=f'entry_{index}') for index in range(8))
  race = Race(
    suite='quick',
    workloads=('quick_vision',),
    entries=entries,
    frameworks=('jax',),
    options=RunOptions(allow_provisional=True),
    experiment_dir=str(folder / 'scan'),
  )
  configs = expand(race)
  for config in configs:
    config.path.mkdir(parents=True)
    record = dataclasses.replace(config.record(), status='finished', stop_reason='targets_reached')
    record.write(config.path)
  begin = time.perf_counter()
  expand(race)
  between = time.perf_counter()
  state.scan(configs)
  end = time.perf_counter()
  print(
    f'{len(configs)} finished trials: {end - between:.3f} s to scan, {between - begin:.3f} s to '
    'expand and check the race'
  )


def _start(framework: str, folder: Path) -> None:
  """The seconds that a command with one trial of one step takes, alone and under bench."""
  one = ('--max_global_steps', '1')
  found: dict[str, list[float]] = {'run': [], 'bench': []}
  for turn in range(NUM_ROUNDS + 1):
    for verb, seconds in found.items():
      runs = folder / f'start_{framework}_{verb}_{turn}'
      seconds.append(_command(verb, framework, runs, *one))
  run, bench = (statistics.median(found[verb][1:]) for verb in ('run', 'bench'))
  print(f'{framework}: a trial of one step takes {run:.2f} s alone, {bench:.2f} s under bench')


def _throughput(framework: str, folder: Path) -> None:
  """Trials per second of two workers over those of one."""
  studies = ('--studies', str(NUM_TRIALS), '--max_global_steps', str(NUM_STEPS))
  ratios = []
  for turn in range(NUM_ROUNDS):
    seconds = [
      _command(
        'bench',
        framework,
        folder / f'throughput_{framework}_{workers}_{turn}',
        *(*studies, '--workers', str(workers)),
      )
      for workers in (1, 2)
    ]
    ratios.append(seconds[0] / seconds[1])
  print(
    f'{framework}: two workers run {statistics.median(ratios):.2f} times the trials of one '
    f'({min(ratios):.2f} to {max(ratios):.2f})'
  )


def _command(verb: str, framework: str, runs: Path, *flags: str) -> float:
  named = {
    'run': ('--workload', 'quick_vision', '--submission', 'nadamw', '--framework', framework),
    'bench': (
      *('--suite', 'quick', '--workloads', 'quick_vision', '--submissions', 'nadamw'),
      *('--frameworks', framework, '--no_score', '--studies', '1'),
    ),
  }
  command = [sys.executable, '-m', 'algorithmic_efficiency', verb, *named[verb], *COMMON, *flags]
  begin = time.perf_counter()
  subprocess.run([*command, '--experiment_dir', str(runs)], check=True)
  return time.perf_counter() - begin


if __name__ == '__main__':
  main()
