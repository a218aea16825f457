"""Marks which threads of a trial's process are the harness's.

In the process of a trial, every thread is either trusted (the harness's) or not (the submission's).
The main thread is trusted, except while it runs a function of the submission.
"""

from __future__ import annotations

import threading
import traceback
from types import TracebackType

_trust = threading.local()
threads: set[int] = set()
processes: set[int] = set()
commands: list[str] = []


class _Trust:
  """Marks the calling thread as trusted, or not, until the block ends."""

  __slots__ = ('_before', '_value')

  def __init__(self, value: bool):
    self._value = value
    self._before = False

  def __enter__(self) -> None:
    self._before = getattr(_trust, 'value', False)
    _trust.value = self._value

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    _trust.value = self._before


def harness() -> _Trust:
  """Marks a block as the harness's own work, even inside a function of the submission."""
  return _Trust(True)


def is_trusted() -> bool:
  """Tells whether the calling thread does the harness's own work."""
  return getattr(_trust, 'value', False)


def submission() -> _Trust:
  """Marks a block as the submission's."""
  return _Trust(False)


def trust_this_thread() -> None:
  """Trusts the calling thread; a thread of the harness calls it when it starts."""
  _trust.value = True
  threads.add(threading.get_native_id())


def trust_process(number: int) -> None:
  """Trusts a process that the harness has started, and those that the process starts."""
  processes.add(number)


def trust_command(part: str) -> None:
  """Trusts processes with `part` in their command line, such as a framework's compilers."""
  commands.append(part)


class IntegrityError(RuntimeError):
  """A submission broke a rule that the harness can see; the trial is invalid.

  Attributes:
    kind: the rule that was broken, by its name in `check_rules.KINDS`.
    stack: the stack at the place where it was broken, the innermost frame last.
  """

  def __init__(self, message: str, kind: str):
    super().__init__(message)
    self.kind = kind
    self.stack = traceback.extract_stack()
