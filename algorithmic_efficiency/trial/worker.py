"""The process of one trial: `python -m algorithmic_efficiency.trial.worker DESCRIPTOR PARENT`.

It reads the trial's config from standard input, and writes messages to the pipe DESCRIPTOR. It ends
with its parent, so that a killed launcher leaves no trial behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING

from algorithmic_efficiency import clock, errors, trust
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.trial import guard
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.messages import Reporter

if TYPE_CHECKING:
  from algorithmic_efficiency.trial.process import TrialProcess

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

EXIT_FAILED = 1
EXIT_USER_ERROR = 2


def main(argv: list[str]) -> int:
  descriptor, parent = int(argv[1]), int(argv[2])
  die_with(parent)
  report = Reporter(descriptor)
  report.send('start', age_sec=time.perf_counter() - clock.PROCESS_START)
  config = TrialConfig.from_json(sys.stdin.read())
  take_up(config)
  code = _run(config, report)
  guard.end_untrusted_processes()
  return code


def take_up(config: TrialConfig) -> None:
  """Prepares this process for a trial.

  It trusts its main thread, finds what the config names, and leaves the submission nothing to read
  on standard input. If it crashes, it prints its stack. Processes whose own parent has ended stay
  below this one.
  """
  if sys.platform == 'linux':
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
  faulthandler.enable()
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  trust.trust_this_thread()
  registry.pin_own_packages()
  for root in config.roots:
    registry.add_root(root)
  for folder in config.task_folders:
    registry.add_task(folder)
  if config.suite_file:
    registry.suite(config.suite_file)


def _run(config: TrialConfig, report: Reporter) -> int:
  from algorithmic_efficiency.trial.process import TrialProcess

  process = TrialProcess(config, report)
  try:
    stop_reason = _watched_run(process, config, report) if config.watched else process.run()
  except errors.UserError as error:
    return _end_with(str(error), process, report)
  except trust.IntegrityError as error:
    process.finish(status='invalid', stop_reason='failed', reason=str(error))
    return EXIT_FAILED
  except BaseException as error:  # every error is recorded
    lack = process.missing_requirement(error)
    if lack is not None:
      return _end_with(str(lack), process, report)
    _keep_traceback(config)
    stop_reason, reason = stop_reason_of(error), process.one_line(error)
    process.finish(status='failed', stop_reason=stop_reason, reason=reason)
    return EXIT_FAILED
  try:
    process.finish(status='finished', stop_reason=stop_reason, reason='')
  except errors.UserError as error:
    report.send('user_error', message=str(error))
    return EXIT_USER_ERROR
  return 0


def _watched_run(process: TrialProcess, config: TrialConfig, report: Reporter) -> str:
  """Runs the trial as `process.run` does, and reports what the submission does."""
  from algorithmic_efficiency.trial.monitor import Watch

  watch = Watch(config, report)
  try:
    assembled = process.prepare(watch.look)
    watch.attend(assembled.run, assembled.parts.backend)
    stop_reason = assembled.run.run()
  except (Exception, SystemExit) as error:
    watch.failed(process.missing_requirement(error) or error)
    raise
  watch.ended()
  return stop_reason


def _end_with(mistake: str, process: TrialProcess, report: Reporter) -> int:
  """Ends the trial because of a mistake that the user can correct."""
  report.send('user_error', message=mistake)  # first, as no record can follow on a full disk
  process.finish(status='failed', stop_reason='failed', reason=mistake)
  return EXIT_USER_ERROR


def stop_reason_of(error: BaseException) -> str:
  """Gives the stop reason of an exception."""
  signs = ('out of memory', 'resource_exhausted', 'not enough memory', "can't allocate memory")
  if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in signs):
    return 'out_of_memory'
  if isinstance(error, KeyboardInterrupt):
    return 'interrupted'
  return 'failed'


def _keep_traceback(config: TrialConfig) -> None:
  text = traceback.format_exc()
  print(text, file=sys.stderr)
  rank = config.devices.rank
  name = 'traceback.txt' if rank == 0 else f'traceback_rank{rank}.txt'
  if config.path.is_dir():
    with contextlib.suppress(OSError):  # the disk may be full; it was printed
      (config.path / name).write_text(text, encoding='utf-8', errors='backslashreplace')


def die_with(parent: int) -> None:
  """Ends this process when its parent ends, for whatever reason."""
  if sys.platform == 'linux':
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
  if os.getppid() != parent:  # it ended before we asked
    os._exit(EXIT_FAILED)


if __name__ == '__main__':
  sys.exit(main(sys.argv))
