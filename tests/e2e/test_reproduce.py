"""Runs held against logs that were made here with other seeds, by real trials."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from warm import algoeff

TIMEOUT_SEC = 1_200  # of a command: four trials on a busy machine

pytestmark = pytest.mark.timeout(4 * TIMEOUT_SEC)


def make_logs(folder: Path, workload: str, framework: str, steps: int, *flags: object) -> None:
  done = algoeff(
    *('run', '--workload', workload, '--framework', framework, '--submission', 'adamw'),
    *('--studies', 4, '--seed', 1, '--max_global_steps', steps, '--stop_at', 'never'),
    *('--experiment_dir', 'logs', '--allow_provisional', '--quiet', '--no-save_checkpoints'),
    *flags,
    cwd=folder,
  )
  assert done.returncode == 0, done.stderr


def claim(logs: Path, factor: float) -> None:
  """Lets logs claim a learning rate that is so many times the one they were made with."""
  for file in logs.rglob('hparams.json'):
    point = json.loads(file.read_text())
    file.write_text(json.dumps({**point, 'learning_rate': factor * point['learning_rate']}))


def check_reproduction(folder: Path, workload: str, *flags: object) -> None:
  """Another seed is inside the band of the logs, another learning rate is not."""
  command = ('reproduce', workload, '--submission', 'adamw', '--against', 'logs')
  command += ('--quiet', '--seed', 2, *flags)
  done = algoeff(*command, cwd=folder)
  assert done.returncode == 0, done.stdout + done.stderr
  assert 'is inside the band of 4 logs' in done.stdout
  again = algoeff(*command, '--json', cwd=folder)
  found = json.loads(again.stdout)
  assert again.returncode == 0 and found['is_reproduced']
  assert {one['metric'] for one in found['metrics']} == {
    f'{split}/{name}' for split in ('train', 'validation', 'test') for name in ('accuracy', 'loss')
  }
  claim(folder / 'logs', 5.0)
  other = algoeff(*command, '--experiment_dir', 'other', '--json', cwd=folder)
  found = json.loads(other.stdout)
  assert other.returncode == 1 and not found['is_reproduced'], found
  assert found['status'] == 'finished'


@pytest.mark.slow
def test_quick_vision(tmp_path):
  pytest.importorskip('flax')
  pytest.importorskip('sklearn')
  make_logs(tmp_path, 'quick_vision', 'jax', 30)
  check_reproduction(tmp_path, 'quick_vision')


@pytest.mark.long
@pytest.mark.data
def test_mnist(tmp_path, test_data):
  pytest.importorskip('torch')
  data = ('--data_dir', tmp_path / 'data')
  done = algoeff('data', 'prepare', 'mnist', '--source', test_data / 'mnist', *data, cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  make_logs(tmp_path, 'mnist_standardized', 'pytorch', 190, '--suite', 'lite', *data)
  check_reproduction(tmp_path, 'mnist_standardized', *data)
