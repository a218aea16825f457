"""Runs many trials, at most one at a time in each place of this machine.

A place has a thread of its own, which starts the processes of its trials and lives until they have
ended: a trial dies with the thread that started it, and inherits the CPUs that it is bound to.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from algorithmic_efficiency import errors
from algorithmic_efficiency.launch import local
from algorithmic_efficiency.launch import outcome as outcomes
from algorithmic_efficiency.launch.local import OnMessage
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.launch.slots import Slot
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.messages import Message


class Job(Protocol):
  """Something that has a place of the machine for itself while it runs.

  It runs in the thread of the place. Once `cancelled` is set it ends soon, and raises
  KeyboardInterrupt. What goes wrong with it alone is its outcome; what it raises ends all jobs.
  """

  def __call__(self, slot: Slot, tell: OnMessage, cancelled: threading.Event) -> Outcome: ...


@dataclass(frozen=True, kw_only=True)
class Event:
  """What happens to a job: it starts, its process says something, it ends.

  Attributes:
    index: the job's, from 0.
    message: what its process said; with 'message' alone.
    outcome: with 'ended' alone.
  """

  index: int
  kind: Literal['started', 'message', 'ended']
  message: Message | None = None
  outcome: Outcome | None = None


OnEvent = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True)
class PooledTrial:
  """The job of running a planned trial; whatever ends it is its outcome, and its record."""

  config: TrialConfig

  def __call__(self, slot: Slot, tell: OnMessage, cancelled: threading.Event) -> Outcome:
    try:
      return local.run_trial(
        self.config,
        tell,
        environment=slot.environment(),
        cancelled=cancelled,
        mistakes_are_outcomes=True,
      )
    except errors.UserError as error:  # its folder cannot be had
      return outcomes.mistaken(self.config, str(error))


def run(
  jobs: Sequence[Job], *, slots: Sequence[Slot], on_event: OnEvent = lambda event: None
) -> list[Outcome]:
  """Runs all jobs, each as soon as a place is free, and gives their outcomes in their order.

  `on_event` is called in the calling thread. An interrupt there, or an error, ends the jobs that
  run, and is raised once they have ended.
  """
  return _Pool(jobs, slots).run(on_event)


class _Pool:
  """The threads of one `run`, and what they share."""

  def __init__(self, jobs: Sequence[Job], slots: Sequence[Slot]):
    self._jobs = jobs
    self._next = iter(range(len(jobs)))
    self._lock = threading.Lock()
    self._cancelled = threading.Event()
    self._events: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
    self._threads = [threading.Thread(target=self._work, args=(slot,)) for slot in slots]

  def run(self, on_event: OnEvent) -> list[Outcome]:
    outcomes: dict[int, Outcome] = {}
    try:
      for thread in self._threads:
        thread.start()
      while len(outcomes) < len(self._jobs):
        event = self._events.get()
        if isinstance(event, BaseException):
          raise event
        if event.outcome is not None:
          outcomes[event.index] = event.outcome
        on_event(event)
    finally:
      self._cancelled.set()
      for thread in self._threads:
        if thread.ident is not None:
          thread.join()
    return [outcomes[index] for index in range(len(self._jobs))]

  def _work(self, slot: Slot) -> None:
    try:
      slot.bind()
      while (index := self._take()) is not None:
        self._events.put(Event(index=index, kind='started'))
        outcome = self._jobs[index](slot, self._teller(index), self._cancelled)
        self._events.put(Event(index=index, kind='ended', outcome=outcome))
    except KeyboardInterrupt:
      pass  # cancelled
    except BaseException as error:  # not a trial's fault but ours: the caller gets it
      self._events.put(error)

  def _take(self) -> int | None:
    with self._lock:
      return None if self._cancelled.is_set() else next(self._next, None)

  def _teller(self, index: int) -> OnMessage:
    return lambda message: self._events.put(Event(index=index, kind='message', message=message))
