"""What scoring and the site cost on the published logs of AlgoPerf 0.5: seconds and megabytes.

Command: python tests/benchmarks/bench_scoring.py [FOLDER WITH THE UNPACKED LOGS]
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

NUM_REPEATS = 3
ROOT = Path(__file__).resolve().parents[2]
ARCHIVE = Path('algoperf_v05') / 'external_tuning_logs.tar.xz'
# The reference scorer on 2 cores, scores and profile alone; and the limits that we set ourselves.
REFERENCE_SEC = (24, 30)
LIMIT_SEC = {'--no_report': 5.0, 'with report': 20.0}
LIMIT_MB = 400
SITE_LIMIT_SEC = 15.0


def main() -> None:
  if len(sys.argv) > 1:
    measure(Path(sys.argv[1]))
    return
  data = Path(os.environ.get('ALGOEFF_TEST_DATA') or ROOT.parent / 'shared' / 'data')
  if not (data / ARCHIVE).is_file():
    print(f'Skipped: the published logs are not at {data / ARCHIVE}')
    return
  with tempfile.TemporaryDirectory() as folder:
    with tarfile.open(data / ARCHIVE) as tar:
      tar.extraction_filter = getattr(tarfile, 'data_filter', None)  # not in Python 3.11.2
      tar.extractall(folder)
    measure(Path(folder))


def measure(logs: Path) -> None:
  """Times each command once to warm the file cache, then NUM_REPEATS times."""
  with tempfile.TemporaryDirectory() as folder:
    for name, flags in (('--no_report', ['--no_report']), ('with report', [])):
      command = [sys.executable, '-m', 'algorithmic_efficiency', 'score', str(logs)]
      command += ['--suite', 'algoperf_v05', '--output_dir', folder, *flags]
      run(command)
      walls, processor_times = zip(*(run(command) for _ in range(NUM_REPEATS)), strict=True)
      print(
        f'score {name}: {min(walls):.2f} s wall (limit {LIMIT_SEC[name]:.0f}), '
        f'{min(processor_times):.2f} s of processor time; {REFERENCE_SEC[0] / min(walls):.1f} to '
        f'{REFERENCE_SEC[1] / min(walls):.1f} times as fast as the reference scorer'
      )
    measure_site(Path(folder))
    size = (Path(folder) / 'report.html').stat().st_size / 1e6
  peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
  print(f'largest process: {peak:.0f} MB (limit {LIMIT_MB}); report.html: {size:.1f} MB (limit 6)')


def measure_site(board: Path) -> None:
  """Times the site of a board, each time in a new folder."""
  with tempfile.TemporaryDirectory() as folder:
    command = [sys.executable, '-m', 'algorithmic_efficiency', 'site', str(board), '-o']
    found = [run([*command, str(Path(folder) / str(number))]) for number in range(NUM_REPEATS)]
    files = [file.stat().st_size for file in (Path(folder) / '0').rglob('*') if file.is_file()]
  walls, processor_times = zip(*found, strict=True)
  print(
    f'site: {min(walls):.2f} s wall (limit {SITE_LIMIT_SEC:.0f}), {min(processor_times):.2f} s of '
    f'processor time; {len(files)} files, {sum(files) / 1e6:.1f} MB'
  )


def run(command: list[str]) -> tuple[float, float]:
  """Wall and processor seconds of a command."""
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  start = time.perf_counter()
  subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=tempfile.gettempdir())
  wall = time.perf_counter() - start
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == '__main__':
  main()
