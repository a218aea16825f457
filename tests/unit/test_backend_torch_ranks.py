"""The same training and the same metrics on any number of ranks; ranks that are lost."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_ranks_script
from torch.distributed import DistStoreError, TCPStore

from algorithmic_efficiency.backends import torch as backend_torch
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.backends.ports import free_port

pytestmark = pytest.mark.slow

SCRIPT = Path(torch_ranks_script.__file__)


@contextlib.contextmanager
def ranks(mode: str, world_size: int, address: str, out: Path) -> Iterator[list[subprocess.Popen]]:
  """Processes of one trial, which do not outlive the block."""
  path = os.pathsep.join([str(SCRIPT.parent), os.environ.get('PYTHONPATH', '')])
  command = [sys.executable, str(SCRIPT), mode]
  processes = [
    subprocess.Popen(
      [*command, str(rank), str(world_size), address, str(out / f'{mode}_{world_size}_{rank}')],
      env={**os.environ, 'PYTHONPATH': path},
      stderr=subprocess.PIPE,
      text=True,
    )
    for rank in range(world_size)
  ]
  try:
    yield processes
  finally:
    for process in processes:
      process.send_signal(signal.SIGKILL)
      process.communicate()


def results(world_size: int, address: str, out: Path) -> list[dict[str, Any]]:
  with ranks('train', world_size, address, out) as processes:
    for process in processes:
      _, err = process.communicate(timeout=300)
      assert process.returncode == 0, err
  return [
    json.loads((out / f'train_{world_size}_{rank}').read_text()) for rank in range(world_size)
  ]


@pytest.fixture(scope='module')
def out(tmp_path_factory) -> Path:
  return tmp_path_factory.mktemp('ranks')


@pytest.fixture(scope='module')
def one(out) -> dict[str, Any]:
  (result,) = results(1, '', out)
  return result


@pytest.fixture(scope='module')
def two(out) -> list[dict[str, Any]]:
  """Two ranks that meet in a store which somebody else keeps, as torchrun does."""
  store = TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
  return results(2, f'127.0.0.1:{store.port}', out)


@pytest.mark.parametrize('bits', [32, 64])
@pytest.mark.parametrize('name', ['toy', 'quick_vision', 'mnist'])
def test_two_ranks_train_as_one(name, bits, one, two):
  """Losses of 20 steps, and batch statistics, which are those of the global batch."""
  assert one[f'{name}_{bits}'][0] != one[f'{name}_{bits}'][-1]
  tolerance = {32: 1e-4, 64: 1e-9}[bits]
  for result in two:
    np.testing.assert_allclose(result[f'{name}_{bits}'], one[f'{name}_{bits}'], rtol=tolerance)
    norms, expected = result[f'{name}_norms_{bits}'], one[f'{name}_norms_{bits}']
    assert len(norms) == len(expected)
    for values, those_of_one in zip(norms, expected, strict=True):
      np.testing.assert_allclose(values, those_of_one, rtol=tolerance, atol=tolerance)


def test_every_example_is_evaluated_once_whatever_the_batch_size(one, two):
  for size in ('7', '8', '13', '50'):
    for result in (one, *two):
      sums, expected = result['eval'][size], one['eval']['50']
      assert sums['num_examples'] == [50.0, 1.0], size
      assert sums['accuracy'] == expected['accuracy'], size
      assert sums['loss'] == pytest.approx(expected['loss'], rel=1e-5), size


def test_metrics_of_every_kind_are_those_of_one_rank_whatever_the_batch_size(one, two):
  expected = one['metrics']['64']
  for result in (one, *two):
    assert result['gathered'] == (['.'] if result is one else ['.', 'rank.'])
    for size, numbers in result['metrics'].items():
      assert numbers == pytest.approx(expected, rel=1e-6), size
      counted = {name: numbers[name] for name in numbers if 'loss' not in name}
      assert counted == {name: expected[name] for name in counted}, size


def test_wrapped_parameters_are_known_by_their_own_names(one, two):
  for result in two:
    assert result['names'] == [f'module.{name}' for name in one['names']]
    assert result['types'] == one['types'] == one['names']
    assert result['packed'] == one['packed']
    assert result['is_output'] == one['is_output']
    assert any(result['is_output'])


def test_numbers_are_compared_over_ranks_and_trials_do_not_mix(one, two):
  assert (one['sync_max_0'], one['sync_max_1']) == (1 + 2**-40, 2 + 2**-40)
  for result in two:
    assert (result['sync_max_0'], result['sync_max_1']) == (2 + 2**-40, 3 + 2**-40)


def test_every_trial_of_a_launch_has_a_name_of_its_own():
  """The second trial finds what the first one left in the store, also where it comes first."""
  store = TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
  names = set()
  for _ in range(2):
    with ThreadPoolExecutor() as pool:
      agreed = [
        pool.submit(
          backend_torch._agree_on_name,
          TCPStore('127.0.0.1', store.port, is_master=False),
          Devices(rank=rank, world_size=3),
        )
        for rank in range(3)
      ]
      (name,) = {future.result(timeout=30) for future in agreed}
    names.add(name)
  assert len(names) == 2


def test_trials_of_one_launch_that_are_out_of_step_do_not_mix(monkeypatch):
  """Regression: the next trial's rank 0 joined the rank 1 that still waited for the last one's."""
  store = TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
  for name in ('LOCAL_RANK', 'RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
    monkeypatch.setenv(name, '')  # so that what `start` sets is undone
  monkeypatch.setattr(backend_torch, 'TIMEOUT_SEC', 1.0)
  late = Devices(
    platform='cpu', world_size=2, rank=1, address='host:2', store=f'127.0.0.1:{store.port}'
  )
  with ThreadPoolExecutor() as pool:
    waiting = pool.submit(backend_torch._join, late, torch.device('cpu'))
    with pytest.raises(TimeoutError, match='Rank 1 did not come'):
      backend_torch.start(dataclasses.replace(late, rank=0, address='host:3'))
    with pytest.raises(DistStoreError):
      waiting.result(timeout=30)


def test_entries_find_their_place_in_the_environment(one, two):
  assert one['place'] == [None, None, None]
  assert [result['place'] for result in two] == [['0', '0', '2'], ['1', '1', '2']]


def test_jax_is_never_imported(one, two):
  assert not any(result['jax'] for result in (one, *two))


@pytest.mark.parametrize('mode', ['die', pytest.param('hang', marks=pytest.mark.slow)])
def test_a_lost_rank_ends_the_others(mode, out):
  """They meet at a port that rank 0 serves itself."""
  with ranks(mode, 2, f'127.0.0.1:{free_port()}', out) as processes:
    _, err = processes[0].communicate(timeout=300)
    assert processes[0].returncode == 1
    assert 'backend.sync_max(1.0)' in err, err


@pytest.mark.timeout(120)
def test_a_rank_that_never_comes_ends_the_start(monkeypatch):
  for name in ('LOCAL_RANK', 'RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
    monkeypatch.setenv(name, '')  # so that what `start` sets is undone
  monkeypatch.setattr(backend_torch, 'TIMEOUT_SEC', 1.0)
  address = f'127.0.0.1:{free_port()}'
  with pytest.raises(TimeoutError, match='Rank 1, 2 did not come within 1 s'):
    backend_torch.start(Devices(platform='cpu', world_size=3, rank=0, address=address))
