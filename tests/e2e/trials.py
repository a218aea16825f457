"""Runs real trials for the end-to-end tests and reads what they leave."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from algorithmic_efficiency.results import measurements, trial_record
from algorithmic_efficiency.results.measurements import Rows
from algorithmic_efficiency.results.trial_record import TrialRecord

TIMES = (
  'accumulated_eval_time',
  'accumulated_logging_time',
  'accumulated_submission_time',
  'score',
  'total_duration',
  'preemption_count',
)


def algoeff(
  *arguments: object, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
  """`algoeff` in a process of its own, as a user starts it."""
  return subprocess.run(
    [sys.executable, '-m', 'algorithmic_efficiency', *map(str, arguments)],
    cwd=cwd,
    env={**os.environ, **(env or {})},
    capture_output=True,
    text=True,
    timeout=timeout,
    stdin=subprocess.DEVNULL,
    check=False,
  )


def rank_outputs(script: Path, ranks: Sequence[Sequence[str]], timeout: float) -> list[str]:
  """What the processes of a group print, one for each list of arguments.

  None outlives this. When one has failed the others need not be waited for, and those that have not
  ended in time may hang: all that are still there show on standard error where they stand.
  """
  command = (sys.executable, '-X', 'faulthandler', str(script))
  with contextlib.ExitStack() as stack:
    outputs = [stack.enter_context(tempfile.TemporaryFile('w+')) for _ in ranks]
    processes: list[subprocess.Popen[bytes]] = []
    end = time.monotonic() + timeout
    try:
      for arguments, output in zip(ranks, outputs, strict=True):
        processes.append(subprocess.Popen([*command, *arguments], stdout=output))
      while time.monotonic() < end:
        codes = [process.poll() for process in processes]
        if None not in codes or any(codes):
          break
        time.sleep(0.05)
    finally:
      for process in processes:
        process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
          process.wait(timeout=10)
        process.kill()
        process.wait()
    assert [process.returncode for process in processes] == [0] * len(ranks)
    for output in outputs:
      output.seek(0)
    return [output.read() for output in outputs]


def trial_folder(root: Path) -> Path:
  """The only trial folder below `root`."""
  [path] = root.rglob(trial_record.TRIAL_FILE)
  return path.parent


def record(folder: Path) -> TrialRecord:
  found = trial_record.read_trial(folder)
  assert found is not None
  return found


def rows(folder: Path) -> Rows:
  found = measurements.read(folder)
  assert found.problems == []
  return found


def holders(path: Path) -> list[str]:
  """Other processes that hold a file at or below `path` open."""
  found = []
  for entry in Path('/proc').iterdir():
    if entry.name.isdigit() and entry.name != str(os.getpid()):
      try:
        targets = [os.readlink(link) for link in (entry / 'fd').iterdir()]
      except OSError:
        continue
      if any(target.startswith(str(path)) for target in targets):
        found.append(entry.name)
  return found


def without_times(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
  return [{key: value for key, value in row.items() if key not in TIMES} for row in found]


def wait_for_rows(folder: Path, session: int, rows: int, process: subprocess.Popen) -> None:
  """Waits until the trial was started or resumed `session` times, and has written `rows` since."""
  log = folder / measurements.LOG_FILE
  while process.poll() is None:
    lines = log.read_text().splitlines() if log.exists() else []
    starts = [i for i, line in enumerate(lines) if '"header"' in line or '"resumed_at"' in line]
    if len(starts) >= session and len(lines) > starts[-1] + rows:
      return
    time.sleep(0.005)
