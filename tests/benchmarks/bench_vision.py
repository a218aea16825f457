"""What the runner costs beside a step of `cifar_small`, whose images are augmented as they come.

Command: `python tests/benchmarks/bench_vision.py [jax|pytorch]`; without arguments, both. It
prepares the images from the folder `cifar10` of the test data.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import bench_runner

from algorithmic_efficiency import backends, cli

WORKLOAD, SUITE, DATASET = 'cifar_small', 'lite', 'cifar10_jpeg'
STEPS_PER_BURST = 10


def main(*frameworks: str) -> None:
  source = Path(os.environ.get('ALGOEFF_TEST_DATA', '../shared/data')) / 'cifar10'
  if not source.is_dir():
    print(f'left out: there is no {source}')
    return
  with tempfile.TemporaryDirectory() as folder:
    cli.main(['data', 'prepare', DATASET, '--source', str(source), '--data_dir', folder])
    for framework in frameworks or backends.FRAMEWORKS:  # each in a process of its own
      arguments = [framework, folder, WORKLOAD, SUITE, str(STEPS_PER_BURST)]
      subprocess.run([sys.executable, bench_runner.__file__, *arguments], check=True)


if __name__ == '__main__':
  main(*sys.argv[1:])
