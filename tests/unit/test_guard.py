"""The guard: which files a submission may open."""

from __future__ import annotations

import _thread
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from algorithmic_efficiency import trust
from algorithmic_efficiency.data.workers import Workers
from algorithmic_efficiency.trial import guard as guards


@pytest.fixture
def guard(tmp_path: Path):
  cache = tmp_path / 'trial' / '.compilation_cache'
  cache.mkdir(parents=True)
  found = guards.Guard(unwritable=(tmp_path / 'trial',), writable=(cache,))
  found.arm()
  yield found
  found.disarm()


def test_a_framework_may_fill_the_compilation_cache_in_the_trial_folder(
  guard: guards.Guard, tmp_path: Path
):
  """Regression: where seconds are raced, every trial in JAX was invalid."""
  (tmp_path / 'trial' / '.compilation_cache' / 'entry').write_text('compiled')
  assert guard.violations == []


def test_the_records_beside_it_are_refused(guard: guards.Guard, tmp_path: Path):
  with pytest.raises(trust.IntegrityError, match=r'trial\.json'):
    (tmp_path / 'trial' / 'trial.json').write_text('{}')
  assert len(guard.violations) == 1


def test_the_harness_may_write_them(guard: guards.Guard, tmp_path: Path):
  with trust.harness():
    (tmp_path / 'trial' / 'trial.json').write_text('{}')
  assert guard.violations == []


@pytest.fixture
def data(guard: guards.Guard, tmp_path: Path) -> Path:
  """A data file, beside the trial's folder, that only the harness may read."""
  folder = tmp_path / 'data'
  folder.mkdir()
  with trust.harness():
    (folder / 'test.npy').write_bytes(b'labels')
    with guard.learning():
      (folder / 'test.npy').read_bytes()
  return folder / 'test.npy'


class TestOtherPaths:
  """Regression: each of these got past the guard."""

  def test_relative_to_a_folder_that_is_held_open(self, guard, data, tmp_path):
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
      with pytest.raises(trust.IntegrityError, match=r'data file of the workload: test\.npy'):
        os.open('data/test.npy', os.O_RDONLY, dir_fd=handle)
      with pytest.raises(trust.IntegrityError, match=r'trial folder: trial\.json'):
        os.open('trial/trial.json', os.O_WRONLY | os.O_CREAT, dir_fd=handle)
    finally:
      os.close(handle)

  def test_behind_a_folder_that_was_given_another_name(self, guard, data, tmp_path):
    with pytest.raises(trust.IntegrityError, match='data file of the workload'):
      os.rename(tmp_path, tmp_path.with_name('elsewhere'))

  def test_behind_a_folder_of_trials_that_was_given_another_name(self, guard, tmp_path):
    with pytest.raises(trust.IntegrityError, match='changed a file of the trial folder'):
      os.rename(tmp_path, tmp_path.with_name('elsewhere'))

  @pytest.mark.parametrize('change', [shutil.rmtree, lambda folder: folder.chmod(0)])
  def test_the_folder_of_the_trial_as_a_whole(self, guard, tmp_path, change):
    with pytest.raises(trust.IntegrityError, match='trial folder: trial'):
      change(tmp_path / 'trial')
    assert (tmp_path / 'trial').is_dir()

  def test_what_is_nobodys_may_be_changed(self, guard, data, tmp_path):
    folder = tmp_path / 'own'
    folder.mkdir()
    (folder / 'state').write_text('mine')
    (folder / 'state').rename(folder / 'other')
    shutil.rmtree(folder)
    assert guard.violations == []


class TestUntimedWork:
  """What may be computed while evaluations, which are not timed, are under way: next to nothing."""

  @pytest.fixture
  def used(self, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, int, str], float]:
    """Seconds of CPU time of each worker so far, set by hand."""
    found: dict[tuple[str, int, str], float] = {}
    monkeypatch.setattr(guards, '_untrusted_cpu_sec', lambda: dict(found))
    return found

  @pytest.mark.parametrize(('seconds', 'is_noticed'), [(0.04, False), (0.06, True), (4.0, True)])
  def test_a_twentieth_of_a_second_is_free(self, seconds, is_noticed, used):
    """Regression: a limit of five seconds passed every fast test."""
    work = guards.UntimedWork()
    used['thread', 7, 'own'] = 100.0
    work.begin()
    used['thread', 7, 'own'] += seconds
    said = work.end()
    assert (said is not None) == is_noticed
    assert said is None or f'A thread of the submission (own) computed for {seconds:.2f} s' in said

  def test_all_evaluations_count_together_and_what_lies_between_does_not(self, used):
    work = guards.UntimedWork()
    used['process', 7, 'own'] = 0.0
    for _ in range(2):
      work.begin()
      used['process', 7, 'own'] += 0.02
      assert work.end() is None
      used['process', 7, 'own'] += 5.0
    work.begin()
    used['process', 7, 'own'] += 0.02
    assert 'A process of the submission (own) computed for 0.06 s' in work.end()

  def test_one_that_begins_in_an_evaluation_counts(self, used):
    work = guards.UntimedWork()
    work.begin()
    used['process', 8, 'new'] = 0.06
    assert 'A process of the submission (new)' in work.end()

  def test_workers_do_not_count_together(self, used):
    work = guards.UntimedWork()
    work.begin()
    used.update({('thread', number, 'own'): 0.04 for number in range(5)})
    assert work.end() is None

  def test_a_thread_that_computes_is_noticed_and_one_that_sleeps_is_not(self):
    busy, idle, end = threading.Event(), threading.Event(), threading.Event()

    def compute() -> None:
      busy.wait()
      while not end.is_set():
        sum(range(1000))

    threads = [
      threading.Thread(target=compute, name='busy'),
      threading.Thread(target=idle.wait, name='idle'),
    ]
    for thread in threads:
      thread.start()
    try:
      work = guards.UntimedWork()
      work.begin()
      time.sleep(0.1)
      assert work.end() is None
      work.begin()
      busy.set()
      assert 'A thread of the submission (busy)' in until_noticed(work)
    finally:
      for event in (busy, idle, end):
        event.set()
      for thread in threads:
        thread.join()

  def test_one_of_the_harness_may_compute(self):
    end, trusted = threading.Event(), threading.Event()

    def compute() -> None:
      trust.trust_this_thread()
      trusted.set()
      while not end.is_set():
        sum(range(1000))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
      trusted.wait()
      work = guards.UntimedWork()
      work.begin()
      time.sleep(0.3)
      assert work.end() is None
    finally:
      end.set()
      thread.join()

  @pytest.mark.parametrize('is_trusted', [False, True])
  def test_a_process_that_computes_is_noticed_unless_it_is_a_framework_s(
    self, is_trusted, monkeypatch
  ):
    monkeypatch.setattr(trust, 'commands', ['sum(range(1000))'] if is_trusted else ['other'])
    work = guards.UntimedWork()
    work.begin()
    command = [sys.executable, '-c', 'while True: sum(range(1000))']
    with subprocess.Popen(command) as process:
      try:
        if is_trusted:
          time.sleep(0.3)
          assert work.end() is None
        else:
          assert 'A process of the submission' in until_noticed(work)
      finally:
        process.kill()

  def test_a_submission_that_patches_psutil_changes_nothing(self, monkeypatch):
    command = [sys.executable, '-c', 'while True: sum(range(1000))']
    with subprocess.Popen(command) as process:
      for name in ('children', 'cpu_times', 'threads', 'status', 'ppid', 'cmdline', 'name'):
        monkeypatch.setattr(psutil.Process, name, lambda *arguments, **options: [])
      try:
        work = guards.UntimedWork()
        work.begin()
        assert 'A process of the submission' in until_noticed(work)
      finally:
        process.kill()


def until_noticed(work: guards.UntimedWork) -> str:
  """What is said of a worker that computes all the time, as soon as it is noticed."""
  for _ in range(500):
    time.sleep(0.1)
    said = work.end()
    if said is not None:
      return said
    work.begin()
  raise AssertionError('it was not noticed')


def test_a_thread_that_threading_does_not_know_is_noticed():
  """Regression: it could compute in every evaluation, and was not looked at."""
  running, end = threading.Event(), threading.Event()
  work = guards.UntimedWork()

  def compute() -> None:
    running.set()
    while not end.is_set():
      pass

  _thread.start_new_thread(compute, ())
  running.wait()
  try:
    work.begin()
    assert 'through `threading` only' in work.end()
  finally:
    end.set()


OLDER = """
import _thread, time
def wait(): time.sleep(60)
_thread.start_new_thread(wait, ())
time.sleep(0.1)
from algorithmic_efficiency.trial import guard as guards
work = guards.UntimedWork()
work.begin()
print(work.end())
"""


def test_one_that_was_there_before_any_submission_is_nobodys_fault():
  """Regression: those of whatever runs the tests were taken for a submission's."""
  command = [sys.executable, '-c', OLDER]
  assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == 'None\n'


@pytest.mark.parametrize('is_ours', [False, True])
def test_a_process_is_trusted_for_who_started_it_and_not_for_its_name(is_ours, monkeypatch):
  """Regression: one of a submission that had the name of a data worker was taken for one."""
  monkeypatch.setattr(trust, 'processes', set())
  process: Any
  if is_ours:
    workers = Workers(1)
    assert workers.submit(workers.add(abs, 'toy'), -3).result() == 3
    process = workers._workers[0].process
  else:
    context = multiprocessing.get_context('spawn')
    process = context.Process(target=time.sleep, args=(60,), name='algoeff-data-0')
    process.start()
  try:
    found = [number for kind, number, _ in guards.untrusted_workers() if kind == 'process']
    assert found == ([] if is_ours else [process.pid])
  finally:
    process.kill()
    process.join()


ORPHAN = """
import os, subprocess, sys, time
from algorithmic_efficiency.trial import guard as guards
from algorithmic_efficiency.trial import worker
from algorithmic_efficiency.trial.config import TrialConfig

worker.take_up(TrialConfig.from_json(sys.stdin.read()))
code = 'import os, time; os.fork() and os._exit(0); os.setsid()'
own = subprocess.Popen([sys.executable, '-c', code + '; time.sleep(60)'])
own.wait()
while not guards.untrusted_workers():
  time.sleep(0.01)
(kind, number, _), = guards.untrusted_workers()
print(kind, number, flush=True)
guards.end_untrusted_processes()
while guards.untrusted_workers():
  time.sleep(0.01)
"""


def test_a_process_whose_parent_has_ended_is_noticed_and_ended(tmp_path: Path):
  """Regression: a process that was forked twice belonged to nobody, and outlived the trial."""
  from test_local_launch import config

  out = subprocess.run(
    [sys.executable, '-c', ORPHAN],
    input=config(tmp_path).to_json(),
    capture_output=True,
    text=True,
    check=True,
    timeout=60,
  ).stdout.split()
  kind, number = out
  assert kind == 'process'
  stat = Path(f'/proc/{number}/stat')
  assert not stat.exists() or ') Z ' in stat.read_text()  # nobody may have taken note of its end
