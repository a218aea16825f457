"""What processes there are below one, and what they have computed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from algorithmic_efficiency.trial import processes

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def family() -> Iterator[tuple[int, int]]:
  """The numbers of a process below this one, and of one below that."""
  command = [sys.executable, '-c', FAMILY]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    yield child.pid, grandchild
    psutil.Process(grandchild).kill()
    child.kill()


def below(root: int, *but_for: int) -> set[int]:
  return {process.pid for process in processes.processes_below(root, but_for=set(but_for))}


def test_all_generations_are_found(family):
  child, grandchild = family
  assert below(os.getpid()) >= {child, grandchild}
  assert below(child) == {grandchild}
  assert below(grandchild) == set()


def test_what_is_excepted_is_left_out_with_what_is_below_it(family):
  child, grandchild = family
  assert not below(os.getpid(), child) & {child, grandchild}
  assert below(os.getpid(), grandchild) & {child, grandchild} == {child}


def test_one_that_has_ended_is_none_although_nobody_has_taken_note_of_it():
  with subprocess.Popen([sys.executable, '-c', '']) as process:
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    assert process.pid not in below(os.getpid())


def test_of_one_that_is_gone_nothing_is_said():
  with subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE) as process:
    gone = processes.Process(process.pid)
  assert processes.cpu_sec(gone) is None
  assert (processes.name(gone), processes.command(gone)) == ('', '')
  assert below(gone.pid) == set()


def test_another_process_with_the_number_of_one_that_is_gone_is_not_killed():
  """A number says nothing of who has it now; the time of birth does."""
  with subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE) as process:
    former = processes.Process(process.pid)
    former._ident = (process.pid, former._ident[1] - 1.0)  # as if it had begun a second before
    with pytest.raises(processes.GONE):
      former.kill()
    assert process.poll() is None


def test_cpu_time_is_that_of_the_process():
  code = 'import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True); input()'
  command = [sys.executable, '-c', code]
  with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
    assert process.stdout is not None
    process.stdout.readline()
    found = processes.cpu_sec(processes.Process(process.pid))
  assert found is not None
  assert 0.45 < found < 0.8


@pytest.mark.skipif(sys.platform != 'linux', reason='threads are numbered otherwise elsewhere')
def test_cpu_time_of_a_thread_is_its_own():
  done, end = threading.Event(), threading.Event()

  def compute() -> None:
    while time.thread_time() < 0.5:
      pass
    done.set()
    end.wait()

  busy, idle = threading.Thread(target=compute), threading.Thread(target=end.wait)
  for thread in (busy, idle):
    thread.start()
  done.wait()
  found = processes.thread_cpu_sec()
  end.set()
  assert 0.45 < found[busy.native_id] < 0.8
  assert found[idle.native_id] < 0.1


def test_memory_is_that_of_this_process():
  before = processes.resident_bytes()
  held = bytearray(b'x') * (64 << 20)
  assert 50 << 20 < processes.resident_bytes() - before < 100 << 20
  assert len(held) == 64 << 20
