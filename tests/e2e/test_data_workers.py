"""Trials whose batches come from worker processes: the same rows, and nothing is left of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from trials import algoeff, record, rows, trial_folder, wait_for_rows, without_times

from algorithmic_efficiency.benchmark import registry

STRANGER = registry.HOME / 'tests' / 'architecture' / 'stranger' / 'workloads' / 'sides'
DATA = """
import os
import numpy as np
from algorithmic_efficiency import seeds


def fake_batch(definition, batch_size, seed):
  random = seeds.generator(seed, 'points')
  inputs = random.standard_normal((batch_size, definition.data.num_dims), np.float32)
  return {'inputs': inputs, 'targets': (inputs.sum(axis=1) > 0).astype(np.int32)}


class Points:
  def __init__(self, definition, split):
    number = getattr(definition.splits, split)
    self.arrays = fake_batch(definition, number, 0 if split == 'train' else 1)

  def __len__(self):
    return len(self.arrays['targets'])

  def __getitem__(self, index):
    return {name: array[index] for name, array in self.arrays.items()}


def source(definition, root, split):
  return Points(definition, split)


def noisy(example, random):
  if os.environ.get('KILL_WORKERS') and random is not None and abs(example['inputs'][0]) > 2.2:
    os.kill(os.getpid(), 9)
  if random is None:
    return example
  noise = random.array(*example['inputs'].shape).astype(np.float32)
  return {**example, 'inputs': example['inputs'] + noise / 10}


def transform(definition, train):
  return noisy
"""


@pytest.fixture
def task(tmp_path: Path) -> Path:
  folder = tmp_path / 'sides'
  shutil.copytree(STRANGER, folder, ignore=shutil.ignore_patterns('__pycache__'))
  (folder / 'data.py').write_text(DATA)
  return folder


def command(task: Path, framework: str, root: Path, num_workers: int) -> list[str]:
  return [
    *('run', '--workload', 'sides', '--workload_path', str(task), '--framework', framework),
    *('--submission', 'nadamw', '--ruleset', 'self', '--seed', '5', '--num_threads', '1'),
    *('--stop_at', 'never', '--num_data_workers', str(num_workers)),
    *('--experiment_dir', str(root), '--quiet'),
  ]


@pytest.mark.long
@pytest.mark.parametrize('framework', ['jax', 'pytorch'])
def test_rows_are_the_same_without_workers_and_with_some_that_are_killed(
  task: Path, framework: str, tmp_path: Path
):
  whole = algoeff(*command(task, framework, tmp_path / 'whole', 0), cwd=tmp_path)
  assert whole.returncode == 0, whole.stderr
  expected = trial_folder(tmp_path / 'whole')
  cut = command(task, framework, tmp_path / 'cut', 2)
  process = subprocess.Popen([sys.executable, '-m', 'algorithmic_efficiency', *cut], cwd=tmp_path)
  found = tmp_path / 'cut' / expected.relative_to(tmp_path / 'whole')
  wait_for_rows(found, 1, 1, process)
  started = psutil.Process(process.pid).children(recursive=True)
  process.kill()
  process.wait()
  deadline = time.monotonic() + 60
  while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in started):
    assert time.monotonic() < deadline, 'a process outlived the command'
    time.sleep(0.02)
  again = algoeff(*cut, '--resume', cwd=tmp_path)
  assert again.returncode == 0, again.stderr
  assert without_times(rows(found).evals) == without_times(rows(expected).evals)
  assert (record(expected).num_data_workers, record(found).num_data_workers) == (0, 2)
  for folder in (expected, found):
    waited = record(folder).data_wait_sec
    assert waited is not None and 0 < waited < sum(record(folder).buckets.values())


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_trial(task: Path, tmp_path: Path):
  ended = algoeff(*command(task, 'pytorch', tmp_path, 1), cwd=tmp_path, env={'KILL_WORKERS': '1'})
  found = record(trial_folder(tmp_path))
  assert ended.returncode == 1
  assert (found.status, found.stop_reason) == ('failed', 'out_of_memory')
  assert 'The data worker algoeff-data-0 was ended by SIGKILL' in found.reason
  assert 'of sides, train' in found.reason
