"""The same training and the same metrics on any number of devices and processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from algorithmic_efficiency.backends.ports import free_port

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name('jax_devices_script.py')


def _start(*arguments: object) -> subprocess.Popen[str]:
  path = os.pathsep.join([str(SCRIPT.parent), os.environ.get('PYTHONPATH', '')])
  return subprocess.Popen(
    [sys.executable, str(SCRIPT), *map(str, arguments)],
    env={**os.environ, 'PYTHONPATH': path},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _result(process: subprocess.Popen[str]) -> dict:
  out, err = process.communicate(timeout=300)
  assert process.returncode == 0, err
  return json.loads(out.splitlines()[-1])


@pytest.fixture(scope='module')
def single() -> dict:
  return _result(_start(1))


def _assert_same_training(result: dict, single: dict) -> None:
  """Losses of 20 steps, and batch statistics, which are those of the global batch."""
  for bits, tolerance in ((32, 1e-4), (64, 1e-9)):
    for name in ('losses', 'mean'):
      np.testing.assert_allclose(
        result[f'{name}_{bits}'], single[f'{name}_{bits}'], rtol=tolerance, err_msg=f'{name} {bits}'
      )


def _assert_same_metrics(result: dict, single: dict) -> None:
  """Every example exactly once, at batch sizes that do and do not divide by the devices."""
  for size, sums in result['eval'].items():
    assert sums['num_examples'] == [50.0, 1.0], size
    assert sums['accuracy'] == single['eval']['50']['accuracy'], size
    assert sums['loss'][0] == pytest.approx(single['eval']['50']['loss'][0], rel=1e-5), size
    assert sums['loss'][1] == 50.0, size
  expected = single['metrics']['64']
  for size, numbers in result['metrics'].items():
    assert numbers == pytest.approx(expected, rel=1e-6), size
    counted = {name: numbers[name] for name in numbers if 'loss' not in name}
    assert counted == {name: expected[name] for name in counted}, size


def test_eight_devices_train_and_evaluate_as_one(single):
  result = _result(_start(8))
  assert result['num_devices'] == 8
  assert result['gathered'] == ['.']
  _assert_same_training(result, single)
  _assert_same_metrics(result, single)


def test_training_falls_and_imports_no_other_framework(single):
  assert single['losses_64'][0] != single['losses_64'][1]
  assert not single['torch']


@pytest.mark.slow
def test_two_processes_of_two_devices_train_and_evaluate_as_one(single):
  address = f'localhost:{free_port()}'
  ranks = [_start(4, 2, rank, address) for rank in range(2)]
  result = _result(ranks[0])
  _, err = ranks[1].communicate(timeout=300)
  assert ranks[1].returncode == 0, err
  assert result['num_devices'] == 4
  assert result['sync_max'] == 2 + 2**-40
  assert result['gathered'] == ['.', 'rank.']
  assert result['packed'] == pytest.approx(single['packed'], rel=1e-5)
  _assert_same_training(result, single)
  _assert_same_metrics(result, single)


@pytest.mark.parametrize(
  ('num_devices', 'num_threads'),
  [
    *((2, 1), pytest.param(2, None, marks=pytest.mark.slow)),
    pytest.param(8, 1, marks=pytest.mark.slow),
  ],
)
def test_many_programs_may_wait_for_the_slowest_device(num_devices, num_threads):
  """The host runs as far ahead as JAX lets it, while all but one device are late."""
  code = f"""
from algorithmic_efficiency.backends import jax as backend_jax
from algorithmic_efficiency.backends.base import Devices

devices = Devices(platform='cpu', num_devices={num_devices}, num_threads={num_threads})
backend_jax.start(devices)
import jax
import jax.numpy as jnp
import numpy as np

take_turns = lambda turn, x: jnp.sin(x) + turn
slow = jax.pmap(lambda num_turns, x: jax.lax.fori_loop(0, num_turns, take_turns, x))
everywhere = jax.pmap(lambda x: jax.lax.psum(x, 'devices'), axis_name='devices')
num_turns = np.array([1] + [{400_000 // num_devices}] * ({num_devices} - 1))
for _ in range(3):
  summed = everywhere(slow(num_turns, np.ones(({num_devices}, 1000), np.float32)))
  results = [0.5 * summed + index for index in range(60)]
for index, result in enumerate(results):
  np.testing.assert_allclose(result, 0.5 * summed + index)
"""
  # XLA itself ends a process whose devices have waited for each other for a minute.
  subprocess.run([sys.executable, '-c', code], check=True, timeout=300)
