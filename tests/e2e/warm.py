"""Runs commands and trials in forks of a process that has imported both frameworks and used none.

Importing PyTorch and what its optimizers need takes four seconds of CPU time, which few tests are
about. A forked trial is a process of its own all the same: it has its parent, session, pipes,
environment and exit code. Tests of kills, starts and imports start real processes, by
`trials.algoeff`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, TypeVar

from algorithmic_efficiency import clock

Result = TypeVar('Result')

TIMEOUT_SEC = 1_200.0  # of a call, on a busy machine
_IMPORTED = (
  *('torch._dynamo', 'flax.linen', 'jax', 'optax', 'sklearn.datasets'),
  *('algorithmic_efficiency.backends._jax_backend', 'algorithmic_efficiency.trial.process'),
  *('algorithmic_efficiency.backends._torch_backend', 'algorithmic_efficiency.cli'),
)
_PYTHON = (sys.executable, '-P')


def call(function: Callable[..., Result], *arguments: Any) -> Result:
  """Calls a function in a fork, where trials are forks, too.

  Function, arguments and result are pickled. An exception there is an AssertionError here.
  """
  context = _context()
  receive, send = context.Pipe(duplex=False)
  fork = context.Process(target=_answer, args=(send, function, arguments))
  fork.start()
  send.close()
  try:
    assert receive.poll(TIMEOUT_SEC), f'{function} has not returned in {TIMEOUT_SEC} s'
    result, error = receive.recv()
  finally:
    fork.kill()  # its trials end with it
    fork.join()
    receive.close()
  assert not error, error
  return result


def algoeff(
  *arguments: object, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
  """`trials.algoeff` in a fork."""
  return call(_command, [*map(str, arguments)], str(cwd), dict(env or {}))


@functools.cache
def _context() -> ForkServerContext:
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # read when JAX is imported
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload([*_IMPORTED])
  return context


def _answer(send: Connection, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
  _begin()
  subprocess.Popen = _Forked  # type: ignore[misc]
  try:
    send.send((function(*arguments), ''))
  except BaseException:
    send.send((None, traceback.format_exc()))


def _begin() -> None:
  """Takes this fork for a process that starts now."""
  clock.PROCESS_START = time.perf_counter()


def _command(
  arguments: list[str], cwd: str, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
  os.chdir(cwd)
  os.environ.update(env)
  with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    code = _python(['-m', 'algorithmic_efficiency', *arguments])
    texts = [os.pread(file.fileno(), 1 << 24, 0).decode() for file in (out, err)]
  return subprocess.CompletedProcess(arguments, code, *texts)


def _python(arguments: Sequence[str]) -> int:
  """Does what Python does with these arguments, and returns its exit code."""
  by_name = arguments[0] == '-m'
  sys.argv = [*arguments[by_name:]]
  code = 0
  try:
    if by_name:
      runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
    else:
      runpy.run_path(sys.argv[0], run_name='__main__')
  except SystemExit as end:
    code = end.code if isinstance(end.code, int) else int(end.code is not None)
  except BaseException:
    traceback.print_exc()
    code = 1
  sys.stdout.flush()
  sys.stderr.flush()
  return code


class _Forked(subprocess.Popen):
  """A process that is forked where our own interpreter would start, and another process elsewhere.

  Only commands with `-P` are forked: trials.
  """

  def _execute_child(self, *arguments: Any) -> None:
    given = inspect.signature(super()._execute_child).bind(*arguments).arguments
    if tuple(given['args'][:2]) != _PYTHON:
      super()._execute_child(*arguments)
      return
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # JAX warns of its threads, of which there are none yet
      self.pid = os.fork()
    if self.pid == 0:
      _become(given)
    self._child_created = True
    pipes = ('p2cread', 'p2cwrite', 'c2pread', 'c2pwrite', 'errread', 'errwrite')
    self._close_pipe_fds(*(given[name] for name in pipes))


def _become(given: Mapping[str, Any]) -> None:
  """Takes this fork for the process that was asked for, and ends it."""
  code = 1
  try:
    _begin()
    subprocess.Popen = _Forked.__base__  # type: ignore[misc]
    if given['start_new_session']:
      os.setsid()
    for standard, name in enumerate(('p2cread', 'c2pwrite', 'errwrite')):
      if given[name] >= 0:
        os.dup2(given[name], standard)
    for descriptor in {*map(int, os.listdir('/dev/fd'))} - {0, 1, 2, *given['pass_fds']}:
      with contextlib.suppress(OSError):
        os.close(descriptor)
    process._parent_process = None
    tracker = resource_tracker._resource_tracker
    tracker._fd = tracker._pid = None  # it was that of the process before
    sys.stdin = os.fdopen(0)
    os.environ.clear()
    os.environ.update(given['env'])
    installed = [path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix))]
    sys.path[:] = [*given['env']['PYTHONPATH'].split(os.pathsep), *installed]
    code = _python(given['args'][2:])
  finally:
    os._exit(code)
