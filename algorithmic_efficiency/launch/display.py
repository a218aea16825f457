"""Shows how the trials of a command get on: a live view in a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Self

from algorithmic_efficiency import errors
from algorithmic_efficiency.launch import words
from algorithmic_efficiency.launch.pool import Event
from algorithmic_efficiency.launch.progress import complain, say, title
from algorithmic_efficiency.launch.tally import Tally

if TYPE_CHECKING:
  from rich.live import Live

_TICK_SEC = 1.0  # between two drawings of the live view
_LINE_PERIOD_SEC = 60.0  # of lines on trials that run
_FIRST_LINE_SEC = 10.0


class Display:
  """Shows a tally, and feeds it with the events of the pool.

  A thread draws the view once a second, as most of what changes is the time. Where there is no
  terminal, it writes a line for each running trial every minute.

  Args:
    quiet: if true, only failures are said.
  """

  def __init__(self, tally: Tally, *, quiet: bool = False):
    self._tally = tally
    self._quiet = quiet
    self._live: Live | None = None
    self._lock = threading.Lock()
    self._ended = threading.Event()
    self._ticker = threading.Thread(target=self._tick, daemon=True)
    self._next_lines = time.monotonic() + _FIRST_LINE_SEC

  def __enter__(self) -> Self:
    if self._quiet:
      return self
    self.say(self._heading())
    self._live = _live(self._tally)
    if self._live is not None:
      self._live.start()
    self._ticker.start()
    return self

  def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
    self._ended.set()
    if self._ticker.is_alive():
      self._ticker.join()
    if self._live is not None:
      self._live.stop()
      self._live = None
    if kind is not None and issubclass(kind, KeyboardInterrupt):
      complain(words.kept(self._tally))

  def take(self, event: Event) -> None:
    """Takes an event of a job, and says how a trial has ended."""
    with self._lock:
      self._tally.take(event)
      index = self._tally.trial(event.index)
      if event.kind == 'message' or (self._quiet and event.kind == 'started'):
        return
      if event.kind == 'ended' and index is not None:
        self._say_end(index)
      self._draw()

  def say(self, text: str) -> None:
    """Prints a line; in a terminal, above the live view. A quiet display prints nothing."""
    if self._quiet:
      return
    if self._live is None or not sys.stdout.isatty():
      say(text)
    else:
      self._live.console.print(
        errors.printable(text), markup=False, highlight=False, soft_wrap=True
      )

  def _heading(self) -> str:
    total = self._tally.total()
    before = f'; done before: {total["done"]}, failed before: {total["failed"]}'
    is_begun = total['done'] + total['failed'] > 0
    return f'Trials to run: {total["left"]}{before if is_begun else ""}'

  def _say_end(self, index: int) -> None:
    outcome = self._tally.outcome(index)
    assert outcome is not None
    if self._quiet and outcome.status == 'finished':
      return
    tell = complain if self._quiet else self.say
    if self._quiet:
      tell(f'{title(self._tally.configs[index])}: {words.cause(outcome)}')
    else:
      tell(words.ended_line(self._tally, index))
    if traceback := words.traceback_line(outcome):
      tell(traceback)

  def _tick(self) -> None:
    while not self._ended.wait(_TICK_SEC):
      with self._lock:
        if self._live is not None:
          self._draw()
        elif time.monotonic() >= self._next_lines:
          self._say_running()

  def _draw(self) -> None:
    if self._live is not None:
      self._live.refresh()

  def _say_running(self) -> None:
    self._next_lines = time.monotonic() + _LINE_PERIOD_SEC
    for line in words.running_lines(self._tally):
      self.say(f'  {line}')


def _live(tally: Tally) -> Live | None:
  """A live view, where there is a terminal that can redraw lines."""
  if not sys.stderr.isatty():
    return None
  from rich.console import Console
  from rich.live import Live

  from algorithmic_efficiency.launch.view import View

  console = Console(stderr=True)
  if console.is_dumb_terminal:
    return None
  return Live(
    View(tally), console=console, auto_refresh=False, transient=True, redirect_stdout=False
  )
