"""The processes below one, and what threads and processes have computed.

psutil's functions are bound here, so that a submission that patches psutil changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import psutil
from psutil import Process

GONE = psutil.Error
"""What asking for a process raises that has ended, or that we may not look at."""

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
  """Processes that `root` has started, or that those have, as far as they have not ended; without
  those in `but_for` and what is below them."""
  found = {process.pid: process for process in _or(_descendants, root, [])}
  parents = {number: _or(_parent_id, process, root) for number, process in found.items()}
  for number, process in found.items():
    ancestor = number
    while ancestor in parents and ancestor not in but_for:
      ancestor = parents[ancestor]
    if ancestor not in but_for and _or(_status, process, _ZOMBIE) != _ZOMBIE:
      yield process


def cpu_sec(process: Process) -> float | None:
  """Seconds of CPU time that a process has used; None if it has ended."""
  times = _or(_cpu_times, process, None)
  return None if times is None else times.user + times.system


def thread_cpu_sec() -> dict[int, float]:
  """Seconds of CPU time that each thread of this process has used, by native number.

  Where the system does not number them so (macOS), none can be told from the others.
  """
  return {one.id: one.user_time + one.system_time for one in _or(_threads, Process(), [])}


def resident_bytes() -> int:
  """Memory that this process holds, in bytes."""
  return _memory(Process()).rss


def name(process: Process) -> str:
  """What the system calls a process; empty if it has ended."""
  return _or(_name, process, '')


def command(process: Process) -> str:
  """The command line of a process; empty if it has ended."""
  return ' '.join(_or(_command, process, []))


def _descendants(root: int) -> list[Process]:
  return _children(Process(root), recursive=True)


def _or(ask: Any, subject: Any, otherwise: Any) -> Any:
  """What a function says of a process; `otherwise` if the process has ended."""
  try:
    return ask(subject)
  except GONE:
    return otherwise
