"""Watches what a submission does while its trial runs, for `algoeff check`.

Findings go to the parent as messages of the kind 'finding'. They have the fields of
`check_rules.Finding`, and `ends`: True if the finding ended the process. File and line are empty
where the line of the submission is not known.
"""

from __future__ import annotations

import gc
import itertools
import os
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from algorithmic_efficiency import errors, trust
from algorithmic_efficiency.trial import failure, guard, processes
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.messages import Reporter

if TYPE_CHECKING:
  from algorithmic_efficiency.backends.base import Diagnostics
  from algorithmic_efficiency.trial.loop import TrialRun

_EVENTS = {
  'os.putenv': ('environment', 'It sets the environment variable {}.'),
  'os.unsetenv': ('environment', 'It removes the environment variable {}.'),
  'socket.getaddrinfo': ('network', 'It looks up the host {}.'),
  'socket.gethostbyname': ('network', 'It looks up the host {}.'),
  'socket.connect': ('network', 'It opens a connection.'),
}
_STARTS = frozenset({'subprocess.Popen', 'os.fork', 'os.forkpty', 'os.posix_spawn'})

_WARM_UP_LOOKS = 2  # the first evaluations, in which programs are compiled and caches are filled
_MIN_GROWTH_BYTES = 1 << 20  # from look to look, of the process: less is the allocator's doing
_MIN_INIT_SEC = 30.0  # importing what an optimizer needs takes a few
_LONG_INIT = 3.0  # times what all steps took

_Place = tuple[str, int] | None


@dataclass(frozen=True)
class _Look:
  """What the process holds at an evaluation."""

  global_step: int
  num_arrays: int
  array_bytes: int
  process_bytes: int
  params: bytes  # a hash


class Watch:
  """Watches from before the submission is imported to the end of the trial."""

  def __init__(self, config: TrialConfig, report: Reporter):
    self._config = config
    self._report = report
    self._file = Path(config.submission_path)
    self._said: set[tuple[str, _Place]] = set()
    self._looks: list[_Look] = []
    self._first_params = b''
    self._started_at: _Place = None
    self._run: TrialRun | None = None
    self._diagnostics: Diagnostics | None = None
    sys.addaudithook(self._audit)

  def attend(self, run: TrialRun, diagnostics: Diagnostics) -> None:
    """Checks the trial as it stands before its first step."""
    self._run, self._diagnostics = run, diagnostics
    self._first_params = diagnostics.params_hash(run.params)
    self._check_threads()
    gc.freeze()  # looks need not search what was there before: they compare with each other

  def failed(self, error: BaseException) -> None:
    """Reports what ended the trial."""
    if isinstance(error, failure.MissingRequirementError):
      self._say('cannot_run_here', str(error), (error.file, error.line), ends=True)
      return
    if isinstance(error, trust.IntegrityError):
      self._say(error.kind, str(error), failure.last_own(error.stack, self._file), ends=True)
      return
    place = failure.last_own(traceback.extract_tb(error.__traceback__), self._file)
    if isinstance(error, errors.UserError):
      self._say('interface', str(error), place, ends=True)
    else:
      text = failure.summary(error)
      self._say('exception', text, place, ends=True)

  def ended(self) -> None:
    """Checks what the submission leaves behind after the last step."""
    assert self._run is not None
    self._check_threads()
    self._check_left_running()
    self._check_change()
    self._check_memory()
    buckets = self._run.watch.buckets()
    init_sec, step_sec = buckets['init_optimizer'], buckets['update']
    if init_sec > max(_MIN_INIT_SEC, _LONG_INIT * step_sec):
      steps = self._run.position.global_step
      text = f'init_optimizer_state took {init_sec:.1f} s, {steps} steps took {step_sec:.1f} s.'
      self._say('init_work', text, None)

  def _say(self, kind: str, text: str, place: _Place, *, ends: bool = False) -> None:
    """Reports something once for each place."""
    if (kind, place) not in self._said:
      self._said.add((kind, place))
      file, line = place or ('', 0)
      self._report.send('finding', rule=kind, text=text, file=file, line=line, ends=ends)

  # While it runs.

  def _audit(self, event: str, args: tuple[Any, ...]) -> None:
    if event not in _EVENTS and event not in _STARTS:
      return
    if trust.is_trusted():
      return
    place = _caller(sys._getframe(1), self._file)
    if place is None:
      return
    if event in _STARTS:
      self._started_at = place
      return
    kind, text = _EVENTS[event]
    subject = args[0] if args else ''
    self._say(
      kind, text.format(os.fsdecode(subject) if isinstance(subject, bytes) else subject), place
    )

  def look(self, params: Any, global_step: int) -> None:
    """Looks at the process and the parameters before an evaluation."""
    assert self._diagnostics is not None
    gc.collect()
    number, num_bytes = self._diagnostics.live_arrays()
    digest = self._diagnostics.params_hash(params)
    if not self._diagnostics.all_finite(params):
      self._say('not_finite', f'Not all parameters are finite by step {global_step}.', None)
    self._looks.append(_Look(global_step, number, num_bytes, processes.resident_bytes(), digest))

  # When it is over.

  def _check_threads(self) -> None:
    assert self._diagnostics is not None
    asked, found = self._config.devices.num_threads, self._diagnostics.describe().get('num_threads')
    if asked is not None and found != asked:
      self._say('settings', f'It has changed the number of threads from {asked} to {found}.', None)

  def _check_left_running(self) -> None:
    for kind, number, name in guard.untrusted_workers():
      place = _target(number, self._file) if kind == 'thread' else self._started_at
      self._say('left_running', f'A {kind} ({name}) is still there after the last step.', place)

  def _check_change(self) -> None:
    steps = self._looks[-1].global_step if self._looks else 0
    if steps > 1 and all(look.params == self._first_params for look in self._looks):
      self._say('no_change', f'No parameter has changed in {steps} steps.', None)

  def _check_memory(self) -> None:
    looks = self._looks[_WARM_UP_LOOKS:]
    pairs = list(itertools.pairwise(looks))
    if not pairs:
      return
    steps = looks[-1].global_step - looks[0].global_step
    arrays = looks[-1].num_arrays - looks[0].num_arrays
    num_bytes = looks[-1].array_bytes - looks[0].array_bytes
    if all(b.num_arrays - a.num_arrays >= b.global_step - a.global_step for a, b in pairs):
      text = f'After {steps} more steps it holds {arrays} more arrays, of {num_bytes:,} bytes.'
      self._say('memory_grows', text, None)
    elif all(b.process_bytes - a.process_bytes >= _MIN_GROWTH_BYTES for a, b in pairs):
      grown = (looks[-1].process_bytes - looks[0].process_bytes) / 2**20
      text = f'In {steps} steps the process grew by {grown:.0f} MiB, at every look.'
      self._say('memory_grows', text, None)


def _caller(frame: FrameType | None, file: Path) -> _Place:
  """The line of the submission that led here; None if there is none.

  It is None below an import, too: what happens then is the doing of the imported package.
  """
  while frame is not None:
    name = frame.f_code.co_filename
    if name.startswith('<frozen importlib'):
      return None
    if failure.is_own(name, file):
      return name, frame.f_lineno
    frame = frame.f_back
  return None


def _target(native_id: int, file: Path) -> _Place:
  """File and line of the function that a thread runs, if it is one of the submission."""
  for thread in threading.enumerate():
    if thread.native_id == native_id:
      target = getattr(thread, '_target', None) or type(thread).run
      code = getattr(target, '__code__', None)
      if code is not None and failure.is_own(code.co_filename, file):
        return code.co_filename, code.co_firstlineno
  return None
