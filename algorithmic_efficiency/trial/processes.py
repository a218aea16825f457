"""Finds the processes below one, and measures what threads and processes have computed.

psutil's functions are bound here: a submission that replaces them later changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import psutil
from psutil import Process

GONE = psutil.Error
"""Raised for a process that has ended, or that this user may not look at."""

_children = Process.children
_parent_id = Process.ppid
_status = Process.status
_cpu_times = Process.cpu_times
_threads = Process.threads
_memory = Process.memory_info
_name = Process.name
_command = Process.cmdline
_ZOMBIE = psutil.STATUS_ZOMBIE


def processes_below(root: int, *, but_for: Collection[int] = frozenset()) -> Iterator[Process]:
  """Gives the running processes that `root` has started, or that those have started.

  Args:
    root: the number of a process.
    but_for: numbers of processes that are left out, with those below them.
  """
  found = {process.pid: process for process in _or(_descendants, root, [])}
  parents = {number: _or(_parent_id, process, root) for number, process in found.items()}
  for number, process in found.items():
    ancestor = number
    while ancestor in parents and ancestor not in but_for:
      ancestor = parents[ancestor]
    if ancestor not in but_for and _or(_status, process, _ZOMBIE) != _ZOMBIE:
      yield process


def cpu_sec(process: Process) -> float | None:
  """Gives the seconds of CPU time that a process has used; None if it has ended."""
  times = _or(_cpu_times, process, None)
  return None if times is None else times.user + times.system


def thread_cpu_sec() -> dict[int, float]:
  """Gives the seconds of CPU time of each thread of this process, by its native number.

  macOS numbers threads otherwise here: none of them can be told from the others there.
  """
  return {one.id: one.user_time + one.system_time for one in _or(_threads, Process(), [])}


def resident_bytes() -> int:
  """Gives the resident memory of this process, in bytes."""
  return _memory(Process()).rss


def name(process: Process) -> str:
  """Gives the name of a process; empty if it has ended."""
  return _or(_name, process, '')


def command(process: Process) -> str:
  """Gives the command line of a process; empty if it has ended."""
  return ' '.join(_or(_command, process, []))


def _descendants(root: int) -> list[Process]:
  return _children(Process(root), recursive=True)


def _or(ask: Any, subject: Any, otherwise: Any) -> Any:
  """Calls a function of a process; gives `otherwise` if the process has ended."""
  try:
    return ask(subject)
  except GONE:
    return otherwise
