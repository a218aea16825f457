"""A step with its input, and the start of a trial, over those of another checkout.

`python bench_before.py CHECKOUT [DATA_DIR]`; DATA_DIR holds the prepared data sets, of which MNIST
is needed. Each pair is a run of either checkout with the same seed and one thread, one right after
the other. The time of a step is submission time, from the first evaluation to the last. The start
is the time before the submission is initialized.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

NUM_PAIRS = 5
HERE = Path(__file__).resolve().parents[2]
RUNS = {
  'quick_vision': ('--max_global_steps', '200'),
  'quick_lm': ('--max_global_steps', '120'),
  'mnist': ('--suite', 'algoperf_v06', '--max_global_steps', '2000'),
}


def main() -> None:
  if len(sys.argv) < 2:
    print('bench_before.py needs another checkout: python bench_before.py CHECKOUT [DATA_DIR]')
    return
  before = Path(sys.argv[1]).resolve()
  data_dir = sys.argv[2:3]
  for workload in RUNS:
    for framework in ('jax', 'pytorch'):
      pairs = [
        [timed(checkout, workload, framework, data_dir) for checkout in _turns(before, number)]
        for number in range(NUM_PAIRS)
      ]
      sides = [pair[::-1] if number % 2 else pair for number, pair in enumerate(pairs)]
      ratios = sorted(now[0] / then[0] for then, now in sides)
      starts = statistics.median(now[1] - then[1] for then, now in sides)
      print(
        f'{workload} {framework}: a step takes {statistics.median(ratios):.3f} times as long '
        f'({ratios[0]:.3f} to {ratios[-1]:.3f} in {NUM_PAIRS} pairs, wanted 1.05); the start '
        f'{starts:+.2f} s (wanted +0.3)',
        flush=True,
      )


def _turns(before: Path, number: int) -> tuple[Path, Path]:
  """Either checkout goes first in turn."""
  return (HERE, before) if number % 2 else (before, HERE)


def timed(
  checkout: Path, workload: str, framework: str, data_dir: list[str]
) -> tuple[float, float]:
  """Runs a trial of a checkout; returns seconds of a step, and of the start."""
  with tempfile.TemporaryDirectory() as folder:
    command = [
      *(sys.executable, '-m', 'algorithmic_efficiency', 'run', '--workload', workload),
      *('--framework', framework, '--submission', 'nadamw', '--ruleset', 'self'),
      *('--seed', '7', '--num_threads', '1', '--splits', 'validation', '--quiet'),
      *('--stop_at', 'never', '--experiment_dir', folder, *RUNS[workload]),
      *(('--data_dir', data_dir[0]) if data_dir else ()),
    ]
    environment = {**os.environ, 'PYTHONPATH': str(checkout), 'OMP_NUM_THREADS': '1'}
    subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True)
    [record] = Path(folder).rglob('trial.json')
    lines = record.with_name('measurements.jsonl').read_text().splitlines()
    evals = [line['row'] for line in map(json.loads, lines) if line['kind'] == 'eval']
    times = [row['accumulated_submission_time'] for row in evals]
    steps = [row['global_step'] for row in evals]
    num_steps = steps[-1] - steps[0]
    return (times[-1] - times[0]) / num_steps, json.loads(record.read_text())['buckets']['setup']


if __name__ == '__main__':
  main()
