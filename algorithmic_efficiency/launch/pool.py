"""Runs many trials, at most one at a time in each slot of this machine.

Each slot has a thread that starts the processes of its trials and lives until they have ended. A
trial dies with the thread that started it, and inherits the CPUs that the thread is bound to.
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
  """Something that has a slot of the machine for itself while it runs.

  It runs in the thread of the slot. Once `canceled` is set, it ends soon and raises
  KeyboardInterrupt. A failure of its own is its outcome; an error that it raises ends all jobs.
  """

  def __call__(self, slot: Slot, tell: OnMessage, canceled: threading.Event) -> Outcome: ...


@dataclass(frozen=True, kw_only=True)
class Event:
  """Tells that a job has started, that its process has sent a message, or that it has ended.

  Attributes:
    index: the index of the job, from 0.
    message: the message, for the kind 'message' alone.
    outcome: the outcome, for the kind 'ended' alone.
  """

  index: int
  kind: Literal['started', 'message', 'ended']
  message: Message | None = None
  outcome: Outcome | None = None


OnEvent = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True)
class PooledTrial:
  """Runs a trial as a job; whatever ends it becomes its outcome, and its record."""

  config: TrialConfig

  def __call__(self, slot: Slot, tell: OnMessage, canceled: threading.Event) -> Outcome:
    try:
      return local.run_trial(
        self.config,
        tell,
        environment=slot.environment(),
        canceled=canceled,
        mistakes_are_outcomes=True,
      )
    except errors.UserError as error:  # its folder cannot be had
      return outcomes.mistaken(self.config, str(error))


def run(
  jobs: Sequence[Job], *, slots: Sequence[Slot], on_event: OnEvent = lambda event: None
) -> list[Outcome]:
  """Runs all jobs, each as soon as a slot is free, and returns their outcomes in their order.

  `on_event` is called in the calling thread. An interrupt or error there ends the jobs that run,
  and is raised once they have ended.
  """
  return _Pool(jobs, slots).run(on_event)


class _Pool:
  """Holds the threads of one `run`, and what they share."""

  def __init__(self, jobs: Sequence[Job], slots: Sequence[Slot]):
    self._jobs = jobs
    self._next = iter(range(len(jobs)))
    self._lock = threading.Lock()
    self._canceled = threading.Event()
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
      self._canceled.set()
      for thread in self._threads:
        if thread.ident is not None:
          thread.join()
    return [outcomes[index] for index in range(len(self._jobs))]

  def _work(self, slot: Slot) -> None:
    try:
      slot.bind()
      while (index := self._take()) is not None:
        self._events.put(Event(index=index, kind='started'))
        outcome = self._jobs[index](slot, self._teller(index), self._canceled)
        self._events.put(Event(index=index, kind='ended', outcome=outcome))
    except KeyboardInterrupt:
      pass  # canceled
    except BaseException as error:  # our fault, not that of a trial: the caller gets it
      self._events.put(error)

  def _take(self) -> int | None:
    with self._lock:
      return None if self._canceled.is_set() else next(self._next, None)

  def _teller(self, index: int) -> OnMessage:
    return lambda message: self._events.put(Event(index=index, kind='message', message=message))
