"""Faults of the reference harness that have no better place: each would come back unnoticed."""

from __future__ import annotations

import time

import pytest

from algorithmic_efficiency import clock
from algorithmic_efficiency.trial import worker


def test_fault_5_the_clock_never_goes_back(monkeypatch: pytest.MonkeyPatch):
  monkeypatch.setattr(time, 'time', lambda: -1e9)  # as a step of the system's clock would be
  watch = clock.Stopwatch(start=clock.PROCESS_START)
  first = watch.lap('update')
  assert watch.lap('update') >= first
  assert time.get_clock_info('perf_counter').monotonic
  assert watch.buckets()['update'] > 0


@pytest.mark.parametrize(
  'message',
  [
    'CUDA out of memory. Tried to allocate 2.00 GiB',
    'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1073741824 bytes',
    'RESOURCE_EXHAUSTED: failed to allocate',
    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
  ],
)
def test_fault_10_running_out_of_memory_is_seen_however_it_is_spelled(message: str):
  assert worker.stop_reason_of(RuntimeError(message)) == 'out_of_memory'


def test_fault_10_other_errors_are_not_called_so():
  assert worker.stop_reason_of(ValueError('memory of a fish')) == 'failed'
