"""Writes the report of a race that goes on, in a process of low priority.

    python -m algorithmic_efficiency.cli._interim_report NUM_ENDED NUM_TRIALS STUDIES ARGUMENTS...

STUDIES are those that are scored, such as `quick_vision/1,quick_vision/2`: the studies that all
submissions have ended. The others would count as misses. ARGUMENTS are those of `algoeff score`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.launch.tally import Tally

_MIN_PERIOD_SEC = 30.0
_MOST_SHARE = {'seconds': 0.02, 'cost_adjusted_steps': 0.1}  # of the time, by what is raced
_LOWEST_PRIORITY = 19
_END_SEC = 10.0


class InterimReports:
  """Has the report of a race written anew: not too often, and not while steps are timed.

  Args:
    arguments: those of `algoeff score`.
    axis: what is raced; where it is seconds, reports take a smaller share of the time.
    now: the source of time, in seconds.
  """

  def __init__(
    self, arguments: Sequence[str], axis: str, *, now: Callable[[], float] = time.monotonic
  ):
    self._arguments = arguments
    self._share = _MOST_SHARE[axis]
    self._now = now
    self._process: subprocess.Popen[bytes] | None = None
    self._began = 0.0
    self._not_before = -float('inf')

  def take(self, tally: Tally) -> None:
    """Starts to write a report, if it is time. It is called whenever a trial has ended."""
    if self._is_writing() or tally.times_steps or self._now() < self._not_before:
      return
    studies = ','.join(f'{workload}/{study}' for workload, study in tally.complete_studies())
    if not studies:
      return
    total = tally.total()
    numbers = (total['done'] + total['failed'], len(tally.configs))
    self._began = self._now()
    self._process = subprocess.Popen(
      [sys.executable, '-m', __name__, *map(str, numbers), studies, *self._arguments],
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,  # what cannot be scored yet is said when the race is over
    )

  def _is_writing(self) -> bool:
    if self._process is None:
      return False
    if self._process.poll() is None:
      return True
    self._process = None
    now = self._now()
    self._not_before = now + max(_MIN_PERIOD_SEC, (now - self._began) / self._share)
    return False

  def close(self) -> None:
    """Ends a report that is being written; the one before it stays."""
    if self._process is None:
      return
    self._process.terminate()
    try:
      self._process.wait(_END_SEC)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self._process = None


def main(argv: Sequence[str]) -> int:
  from algorithmic_efficiency.cli import _flags, score
  from scoring.report import Unfinished, write

  os.nice(_LOWEST_PRIORITY)
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which removes half a file
  registry.pin_own_packages()
  num_ended, num_trials, studies, *words = argv
  parser = _flags.Parser()
  score.arguments(parser)
  args = parser.parse_args(words)
  _flags.find_own(args)
  unfinished = Unfinished(num_ended=int(num_ended), num_trials=int(num_trials))
  try:
    frame, result = score.load_and_score(args, studies=_named(studies))
    write(frame, result, Path(args.output_dir), figures=False, unfinished=unfinished)
  except errors.UserError as error:  # such as no trial that can be scored yet
    print(error, file=sys.stderr)
    return _flags.USER_ERROR
  return 0


def _named(studies: str) -> set[tuple[str, str]]:
  """The workload and the folder of each study."""
  pairs = (one.rpartition('/') for one in studies.split(','))
  return {(workload, f'study_{study}') for workload, _, study in pairs}


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
