"""Keeps a submission from working behind the runner's back.

The guard refuses untrusted threads the files that belong to the harness. It also measures what
untrusted threads and processes compute during evaluations, which are not timed.

This stops accidents and plain cheating. It is no sandbox: code in the same process can always lie.
The parent process therefore keeps a clock and a hash of the rows of its own.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from algorithmic_efficiency import trust
from algorithmic_efficiency.trial import processes
from algorithmic_efficiency.trust import IntegrityError

_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
  *('os.remove', 'os.rename', 'os.truncate', 'os.link', 'os.symlink', 'os.chmod', 'os.rmdir'),
  *('shutil.move', 'shutil.rmtree'),
}
_CODE = ('.py', '.pyc', '.so')
_FREE_CPU_SEC = 0.05  # CPU time that a thread or process may use during all evaluations together

_Worker = tuple[str, int, str]  # 'thread' or 'process', its number, its name


@dataclass
class Guard:
  """Refuses a submission the files of the harness, and remembers what it tried.

  Attributes:
    unreadable: files and folders that only the harness may open (the data).
    unwritable: folders that only the harness may write into (the trial's records).
    writable: folders inside those that anybody may write into. The compilation cache is one: a
      framework fills it while a function of the submission runs.
    violations: the errors that were raised.
  """

  unreadable: tuple[Path, ...] = ()
  unwritable: tuple[Path, ...] = ()
  writable: tuple[Path, ...] = ()
  violations: list[IntegrityError] = field(default_factory=list)

  def __post_init__(self) -> None:
    self._unreadable: tuple[str, ...] = tuple(os.path.realpath(path) for path in self.unreadable)
    self._unwritable = tuple(os.path.realpath(path) for path in self.unwritable)
    self._writable = tuple(os.path.realpath(path) for path in self.writable)
    self._armed = False
    self._learning = False
    self._hooked = False

  @contextlib.contextmanager
  def learning(self) -> Iterator[None]:
    """Makes unreadable for others what trusted threads open in the block: it is data."""
    self._hook()
    self._learning = True
    try:
      yield
    finally:
      self._learning = False

  def arm(self) -> None:
    """Starts to refuse."""
    self._hook()
    self._armed = True

  def disarm(self) -> None:
    self._armed = False

  def _hook(self) -> None:
    """Adds the audit hook, once: Python cannot remove one."""
    if not self._hooked:
      self._hooked = True
      sys.addaudithook(self._audit)

  def _audit(self, event: str, args: tuple) -> None:
    if event != 'open' and event not in _CHANGES:
      return
    if trust.is_trusted():
      if self._learning and event == 'open':
        self._learn(args[0])
      return
    if not self._armed:
      return
    if event == 'open':
      path, mode, flags = args
      if isinstance(path, int) or path is None:
        return
      writes = bool(mode and set(mode) & set('wax+')) or bool((flags or 0) & _WRITE_FLAGS)
      self._check(path, writes)
    else:
      for path in args[:2]:
        if isinstance(path, (str, bytes, os.PathLike)):
          self._check(path, writes=True)

  def _learn(self, path: object) -> None:
    if isinstance(path, (str, bytes, os.PathLike)):
      real = os.path.realpath(os.fsdecode(path))
      if not real.endswith(_CODE) and not real.startswith(('/proc', '/sys', '/dev')):
        self._unreadable += (real,)

  def _check(self, path: str | bytes | os.PathLike, writes: bool) -> None:
    for real in _meanings(os.fsdecode(path)):
      name = os.path.basename(real)
      if _touches(real, self._unreadable, around=writes):
        self.refuse(f'The submission opened a data file of the workload: {name}.')
      if writes and self._is_refused(real):
        self.refuse(f'The submission changed a file of the trial folder: {name}.', 'harness')

  def _is_refused(self, path: str) -> bool:
    if any(_inside(path, folder) for folder in self._writable):
      return False
    return _touches(path, self._unwritable, around=True)

  def refuse(self, message: str, kind: str = 'data') -> NoReturn:
    """Remembers a violation and raises it.

    Raises:
      IntegrityError: always.
    """
    error = IntegrityError(message, kind)
    self.violations.append(error)
    raise error


def _meanings(path: str) -> set[str]:
  """Gives the real paths that a path may mean.

  A relative path counts from the working directory, or from a directory that the process holds
  open. An audit event does not say which.
  """
  if os.path.isabs(path):
    return {os.path.realpath(path)}
  found = {os.path.realpath(path)}
  with contextlib.suppress(OSError):
    for number in os.listdir('/proc/self/fd'):
      with contextlib.suppress(OSError):
        place = os.readlink(f'/proc/self/fd/{number}')
        if os.path.isdir(place):
          found.add(os.path.realpath(os.path.join(place, path)))
  return found


def _touches(path: str, folders: Iterable[str], *, around: bool) -> bool:
  """Tells whether a path lies in one of the folders, or, with `around`, contains one."""
  return any(
    _inside(path, folder) or (around and folder.startswith(path + os.sep)) for folder in folders
  )


def _inside(path: str, folder: str) -> bool:
  return path == folder or path.startswith(folder + os.sep)


class UntimedWork:
  """Adds up the CPU time that untrusted threads and processes use during evaluations."""

  def __init__(self) -> None:
    self._before: dict[_Worker, float] = {}
    self._used: dict[_Worker, float] = {}
    self._hidden: set[int] = set()

  def begin(self) -> None:
    self._before = _untrusted_cpu_sec()
    self._hidden = _hidden_threads()

  def end(self) -> str | None:
    """Ends an evaluation; names a worker that has used too much in all of them, if there is one."""
    if self._hidden & _hidden_threads():
      return (
        'A submission may start threads through `threading` only; one that it does not know was '
        'there during an evaluation, which is not timed.'
      )
    for worker, seconds in _untrusted_cpu_sec().items():
      used = self._used.get(worker, 0.0) + seconds - self._before.get(worker, 0.0)
      self._used[worker] = used
      if used > _FREE_CPU_SEC:
        kind, _, name = worker
        return (
          f'A {kind} of the submission ({name}) computed for {used:.2f} s during evaluations, '
          f'which are not timed; {_FREE_CPU_SEC:g} s are allowed. Let it wait while '
          'evaluations run.'
        )
    return None


def _unlisted_threads() -> set[int]:
  return set(sys._current_frames()) - {thread.ident for thread in threading.enumerate()}


_UNLISTED_BEFORE = _unlisted_threads()  # no submission has been imported by now


def _hidden_threads() -> set[int]:
  """Gives the threads that run Python code and that `threading` does not list.

  Nobody can say what those compute. Threads of the harness and of the frameworks are not among
  them.
  """
  return _unlisted_threads() - _UNLISTED_BEFORE


def end_untrusted_processes() -> None:
  """Kills the processes that the submission has left running."""
  for process in list(_untrusted_processes()):
    with contextlib.suppress(processes.GONE):
      process.kill()


def untrusted_workers() -> list[_Worker]:
  """Lists the threads and processes that the harness did not start."""
  return list(_untrusted_cpu_sec())


def _untrusted_cpu_sec() -> dict[_Worker, float]:
  """Gives the seconds of CPU time that each of them has used."""
  found: dict[_Worker, float] = {}
  used = processes.thread_cpu_sec()
  for thread in threading.enumerate():
    number = thread.native_id
    if thread is threading.main_thread() or number is None or number in trust.threads:
      continue
    if number in used:
      found['thread', number, thread.name] = used[number]
  for process in _untrusted_processes():
    seconds = processes.cpu_sec(process)
    if seconds is not None:
      found['process', process.pid, processes.name(process)] = seconds
  return found


def _untrusted_processes() -> Iterator[processes.Process]:
  """Gives the processes below this one that neither the harness nor its processes started."""
  trusted = _trusted_process_ids()
  for process in processes.processes_below(os.getpid(), but_for=trusted):
    if not any(part in processes.command(process) for part in trust.commands):
      yield process


def _trusted_process_ids() -> set[int]:
  """Gives the processes of the harness, and the one with which Python cleans up after them."""
  tracker = sys.modules.get('multiprocessing.resource_tracker')
  number = tracker._resource_tracker._pid if tracker is not None else None
  return trust.processes if number is None else trust.processes | {number}
