"""How a machine is divided among trials that run at a time."""

from __future__ import annotations

import os
import threading

import pytest

from algorithmic_efficiency import errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.launch import slots as module
from algorithmic_efficiency.launch.slots import Slot, slots

CPU = Devices(platform='cpu')


@pytest.fixture
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(os, 'sched_getaffinity', lambda process: set(range(10, 18)))
  monkeypatch.setattr(module, 'num_usable_cpus', lambda: 8)


@pytest.mark.usefixtures('eight_cpus')
class TestCpus:
  @pytest.mark.parametrize(('usable', 'threads'), [(8, 8), (2.5, 2), (0.5, 1)])
  def test_one_trial_at_a_time_is_bound_to_nothing_and_states_its_threads(
    self, usable, threads, monkeypatch
  ):
    monkeypatch.setattr(module, 'num_usable_cpus', lambda: usable)
    [slot] = slots(CPU)
    assert slot == slots(CPU, 1)[0] == Slot(num_threads=threads)
    assert slot.devices(CPU, 'jax').num_threads == threads
    asked = Devices(platform='cpu', num_threads=3)
    assert slot.devices(asked, 'jax') == asked

  def test_workers_get_equal_and_disjoint_shares(self):
    found = slots(CPU, 3)
    assert [slot.cpus for slot in found] == [(10, 11), (12, 13), (14, 15)]
    assert found[0].devices(CPU, 'jax').num_threads == 2
    assert found[0].environment() == {}

  def test_a_quota_counts_and_not_the_cpus_that_are_seen(self, monkeypatch):
    monkeypatch.setattr(module, 'num_usable_cpus', lambda: 2.5)
    assert [slot.cpus for slot in slots(CPU, 2)] == [(10,), (11,)]
    with pytest.raises(errors.UserError, match=r'need 3 CPUs; this machine lends 2\.5'):
      slots(CPU, 3)

  def test_threads_that_were_asked_for_must_fit(self):
    asked = Devices(platform='cpu', num_threads=3)
    assert slots(asked, 2)[0].devices(asked, 'jax').num_threads == 3
    with pytest.raises(errors.UserError, match='need 9 CPUs; this machine lends 8'):
      slots(asked, 3)

  def test_the_processes_of_a_trial_share_its_threads(self):
    asked = Devices(platform='cpu', num_devices=2)
    found = slots(asked, 2)[0].devices(asked, 'pytorch')
    assert (found.world_size, found.num_threads) == (2, 2)


@pytest.mark.usefixtures('eight_cpus')
class TestGpus:
  def test_a_trial_takes_all_that_are_visible(self, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,5')
    assert slots(Devices()) == (Slot(),)

  def test_a_place_for_each_group(self, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,5,6,7')
    asked = Devices(num_devices=2)
    found = slots(asked)
    assert [slot.gpus for slot in found] == [('4', '5'), ('6', '7')]
    assert found[1].environment() == {'CUDA_VISIBLE_DEVICES': '6,7'}
    assert [slot.cpus for slot in found] == [(10, 11, 12, 13), (14, 15, 16, 17)]
    assert found[0].devices(asked, 'pytorch').world_size == 2
    assert found[0].devices(asked, 'jax').world_size == 1

  def test_workers_divide_the_gpus(self, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1,2,3')
    found = slots(Devices(), 2)
    assert [slot.gpus for slot in found] == [('0', '1'), ('2', '3')]
    assert found[0].devices(Devices(), 'pytorch').world_size == 2

  def test_no_more_trials_than_groups(self, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1')
    with pytest.raises(errors.UserError, match='need 3; this machine shows 2'):
      slots(Devices(num_devices=1), 3)


def test_a_place_binds_its_own_thread_alone():
  before = os.sched_getaffinity(0)
  seen = []

  def work() -> None:
    Slot(cpus=(min(before),)).bind()
    seen.append(os.sched_getaffinity(0))

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert seen == [{min(before)}]
  assert os.sched_getaffinity(0) == before
