"""What commands cost that train nothing, and how long it takes to the first training step.

The time of the first step on `quick_vision` is an upper bound: the wall time of a command that
trains one step, less the time that its trial spent on evaluating and writing; the end of the
processes is counted in.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from algorithmic_efficiency import backends
from algorithmic_efficiency.results import trial_record

NUM_RUNS = 5
COMMAND = (
  *('run', '--workload', 'quick_vision', '--submission', 'nadamw', '--ruleset', 'self'),
  *('--allow_provisional', '--max_global_steps', '1', '--quiet', '--seed', '1'),
)

LIGHT = (
  '--help',
  '--version',
  'run --help',
  'list workloads',
  'list suites',
  'plan --suite algoperf_a100 --submissions nadamw --frameworks jax --from_budget',
)


def main() -> None:
  with tempfile.TemporaryDirectory() as folder:
    for words in LIGHT:
      seconds = min(_cpu_sec(words.split(), folder) for _ in range(NUM_RUNS))
      print(f'algoeff {words}: {seconds:.2f} s of CPU time')
    for framework in backends.FRAMEWORKS:
      seconds = [_first_step_sec(framework, Path(folder), run) for run in range(NUM_RUNS + 1)]
      warm = statistics.median(seconds[1:])
      print(f'{framework}: {seconds[0]:.1f} s with a cold compilation cache, {warm:.1f} s warm')


def _cpu_sec(words: list[str], folder: str) -> float:
  """Processor time of a command, imports included."""
  command = [sys.executable, '-m', 'algorithmic_efficiency', *words]
  process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
  _, status, usage = os.wait4(process.pid, 0)
  process.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
  assert process.returncode == 0
  return usage.ru_utime + usage.ru_stime


def _first_step_sec(framework: str, folder: Path, run: int) -> float:
  runs = folder / f'runs_{framework}_{run}'
  command = [sys.executable, '-m', 'algorithmic_efficiency', *COMMAND]
  command += ['--framework', framework, '--experiment_dir', str(runs)]
  cache = folder / f'cache_{framework}'
  start = time.perf_counter()
  subprocess.run(command, check=True, env={**os.environ, 'JAX_COMPILATION_CACHE_DIR': str(cache)})
  elapsed = time.perf_counter() - start
  [path] = runs.rglob(trial_record.TRIAL_FILE)
  record = trial_record.read_trial(path.parent)
  assert record is not None
  return elapsed - sum(record.buckets[name] for name in ('eval', 'log', 'checkpoint'))


if __name__ == '__main__':
  main()
