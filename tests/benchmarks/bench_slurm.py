"""What it costs to expand, submit and scan 1,000 trials on SLURM, and to start one.

It starts a SLURM of its own, as tests/e2e/cluster.py does: python tests/benchmarks/bench_slurm.py
The nodes are down while the trials are submitted, so that none starts.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests' / 'e2e'), str(ROOT / 'tests' / 'unit')]

import cluster as clusters  # noqa: E402
import fake_race  # noqa: E402

from algorithmic_efficiency.experiments.race import run as race_run  # noqa: E402
from algorithmic_efficiency.experiments.race import state  # noqa: E402
from algorithmic_efficiency.experiments.race.race import expand  # noqa: E402

NUM_TRIALS = 1_000
SCRIPTS: dict[str, dict[str, int]] = {name: {} for name in 'abcde'}
NUM_STARTS = 5


def timed(what: str, number: int, begin: float, begin_cpu: float) -> None:
  wall, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
  print(f'{what:<40} {1000 * wall / number:8.2f} ms a trial, {1000 * cpu / number:8.2f} ms of CPU')


def submitting(folder: Path) -> None:
  race = fake_race.race(folder, SCRIPTS, studies=NUM_TRIALS // len(SCRIPTS), slurm={})
  clock = time.perf_counter(), time.process_time()
  configs = expand(race)
  assert len(configs) == NUM_TRIALS
  timed('expanding', NUM_TRIALS, *clock)
  clock = time.perf_counter(), time.process_time()
  states = state.scan(configs)
  timed('scanning an empty folder', NUM_TRIALS, *clock)
  assert {one.kind for one in states} == {'absent'}
  for what in ('a detached race: expand, scan, submit', 'the same command: expand, scan, ask'):
    clock = time.perf_counter(), time.process_time()
    detached = fake_race.race(
      folder,
      SCRIPTS,
      studies=NUM_TRIALS // len(SCRIPTS),
      slurm={'detach': True},
    )
    result = race_run.run(detached, quiet=True)
    assert result.num_left_running == NUM_TRIALS
    timed(what, NUM_TRIALS, *clock)


def starting(folder: Path) -> None:
  """Seconds from the start of a race to that of its only trial: by SLURM, and without it."""
  for what, changes in (('on this machine', {}), ('by SLURM', {'slurm': {}})):
    seconds = []
    for number in range(NUM_STARTS):
      home = folder / f'{what}_{number}'
      race = fake_race.race(home, {'a': {'rows': 1}}, studies=1, **changes)
      begin = time.time()
      race_run.run(race, quiet=True)
      seconds.append((home / fake_race.SESSIONS_FILE).stat().st_mtime - begin)
    print(f'a trial starts {what} after {statistics.median(seconds):.2f} s (median)')


if __name__ == '__main__':
  missing = clusters.missing_programs()
  if missing:
    sys.exit(f'Not measured, as these are not installed: {", ".join(missing)}.')
  with (
    tempfile.TemporaryDirectory() as name,
    clusters.running(Path(name) / 'cluster') as cluster,
  ):
    os.environ |= cluster.environment
    search = (ROOT / 'tests' / 'e2e' / 'fake_site', ROOT, ROOT / 'tests' / 'unit')
    os.environ['PYTHONPATH'] = os.pathsep.join(map(str, search))
    from algorithmic_efficiency.launch import local

    local.WORKER = fake_race.WORKER
    starting(Path(name))
    for node in clusters.NODES:
      cluster.command('scontrol', 'update', f'NodeName={node}', 'State=DRAIN', 'Reason=measuring')
    submitting(Path(name) / 'many')
