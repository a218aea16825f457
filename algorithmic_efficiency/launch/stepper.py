"""A trial that waits: its processes are there, and make steps when they are told to.

What a step, an evaluation or a checkpoint costs is found out this way, with the trial's own code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from algorithmic_efficiency import backends, errors
from algorithmic_efficiency.launch import output
from algorithmic_efficiency.launch.ranks import Rank, Ranks, rank_configs
from algorithmic_efficiency.launch.slots import Slot
from algorithmic_efficiency.launch.trial_folder import scratch
from algorithmic_efficiency.results import trial_record
from algorithmic_efficiency.trial import messages
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.messages import Interval, Message, Ready

_Answer = TypeVar('_Answer', Ready, Interval)

_GRACE_SEC = 20.0  # what the processes get to end by themselves
_WORKER = (sys.executable, '-P', '-m', 'algorithmic_efficiency.trial.step_worker')


class StepperError(Exception):
  """The trial failed; the message says why."""


class Stepper:
  """The processes of one trial, for as long as the block lasts; it leaves no trace of them.

  Whatever the trial writes goes to a folder of its own, which is gone with the block.

  Args:
    slot: where it runs.
    num_sharing: how many such trials have the devices of this one in common.
    cancelled: once it is set, waiting ends with KeyboardInterrupt.

  Attributes:
    folder: where the trial writes.
    start: what the trial said when it stood before its first step.

  Raises:
    StepperError: the trial failed; so it is for the methods.
    UserError: it failed because of a mistake that the user can correct.
  """

  def __init__(
    self,
    config: TrialConfig,
    slot: Slot,
    *,
    num_sharing: int = 1,
    cancelled: threading.Event | None = None,
  ):
    self._config = config
    self._cancelled = cancelled
    self._environment = {**slot.environment(), **backends.sharing(num_sharing)}
    self._left = contextlib.ExitStack()

  def __enter__(self) -> Self:
    with contextlib.ExitStack() as started:
      self.folder = started.enter_context(scratch())
      configs = rank_configs(aside(self._config, self.folder))
      ranks = Ranks(
        configs,
        _WORKER,
        environment=self._environment,
        output_folder=self.folder,
        cancelled=self._cancelled,
      )
      self._ranks = started.enter_context(ranks)
      self._left = started.pop_all()
    self._unread: dict[Rank, list[Message]] = {rank: [] for rank in self._ranks}
    return self

  def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
    with self._left:
      self._ranks.end(grace_sec=_GRACE_SEC if kind is None else 0.0)

  def wait(self) -> None:
    """Waits until the trial stands before its first step."""
    self.start = self._answer(Ready)

  def go(self, num_steps: int, *, max_batches: int | None = None) -> Interval:
    """Makes steps, and then, if asked to, evaluates the first few batches of each split."""
    order = json.dumps({'num_steps': num_steps, 'max_batches': max_batches})
    for rank in self._ranks:
      rank.tell(order)
    return self._answer(Interval)

  def _answer(self, kind: type[_Answer]) -> _Answer:
    """The next message of each process, of which the first one's is given. One that has failed ends
    the waiting for the others, as they may wait for it themselves."""
    self._ranks.expect()
    while True:
      for rank in sorted(self._ranks, key=lambda rank: len(self._unread[rank])):
        self._check(rank)  # first those that died without a word, of which others may complain
      if all(self._unread.values()):
        break
      for heard in self._ranks.hear():
        self._unread[heard.rank].append(heard.message)
      if self._ranks.are_silent:
        raise StepperError(
          f'No process of the trial gave a sign of life for {self._config.heartbeat_timeout_sec:g} '
          's, the heartbeat timeout'
        )
    answers = [unread.pop(0) for unread in self._unread.values()]
    for answer in answers:
      if not isinstance(answer, kind):
        raise StepperError(f'A message {kind.__name__} was due, and {answer!r:.60} came')
    assert isinstance(answers[0], kind)
    return answers[0]

  def _check(self, rank: Rank) -> None:
    """
    Raises:
      StepperError, UserError: it has failed, or has ended without a word.
    """
    unread = self._unread[rank]
    if unread and isinstance(unread[0], messages.Failed):
      raise (errors.UserError if unread[0].mendable else StepperError)(unread[0].reason)
    if unread:
      return
    if rank.garbled is not None:
      raise StepperError(rank.garbled)
    if rank.hung_up:
      raise StepperError(self._last_words(rank))

  def _last_words(self, rank: Rank) -> str:
    code = rank.wait(_GRACE_SEC)
    if code is None:
      return f'{rank.name} has closed what it was to answer through, and does not end'
    if code < 0:
      return f'{rank.name} was ended by {signal.Signals(-code).name}'
    last = output.last_line(self.folder, rank.index) or 'no word'
    return f'{rank.name} ended with exit code {code}: {last}'

  def environment(self) -> Mapping[str, Any]:
    """What the trial runs on, as its record has it."""
    record = trial_record.read_trial(self.folder)
    assert record is not None, 'wait() comes first'
    return record.environment

  def let_go(self) -> None:
    """Tells the processes that there is no further order, so that they begin to end."""
    for rank in self._ranks:
      rank.let_go()

  def close(self) -> float:
    """Ends the processes, in peace; the seconds that this took. The folder is still there."""
    begin = time.perf_counter()
    self._ranks.end(grace_sec=_GRACE_SEC)
    return time.perf_counter() - begin


def aside(config: TrialConfig, folder: Path) -> TrialConfig:
  """The same trial, begun anew in another folder, with everything that it would write."""
  devices, cache = config.devices, config.devices.compilation_cache
  if cache is not None and Path(cache).is_relative_to(config.path):
    moved = folder / Path(cache).relative_to(config.path)
    devices = dataclasses.replace(devices, compilation_cache=str(moved))
  return dataclasses.replace(
    config,
    folder=str(folder),
    devices=devices,
    resume=False,
    overwrite=False,
    options=dataclasses.replace(config.options, trackers=()),
  )
