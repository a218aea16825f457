"""Runs a trial step by step: its processes wait, and make steps when they are told to.

This measures what a step, an evaluation or a checkpoint costs, with the trial's own code.
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
  """Keeps the processes of one trial for the block, and leaves no trace of them.

  The trial writes into a folder of its own, which is removed with the block.

  Args:
    slot: the slot of the machine that it runs in.
    num_sharing: how many such trials share its devices.
    canceled: once this is set, waiting ends with KeyboardInterrupt.

  Attributes:
    folder: the folder that the trial writes into.
    start: the trial's message before its first step.

  Raises:
    StepperError: the trial failed. The methods raise it, too.
    UserError: the trial failed because of a mistake that the user can correct.
  """

  def __init__(
    self,
    config: TrialConfig,
    slot: Slot,
    *,
    num_sharing: int = 1,
    canceled: threading.Event | None = None,
  ):
    self._config = config
    self._canceled = canceled
    self._environment = {**slot.environment(), **backends.sharing(num_sharing)}
    self._left = contextlib.ExitStack()

  def __enter__(self) -> Self:
    with contextlib.ExitStack() as started:
      self.folder = started.enter_context(scratch())
      configs = rank_configs(moved(self._config, self.folder))
      ranks = Ranks(
        configs,
        _WORKER,
        environment=self._environment,
        output_folder=self.folder,
        canceled=self._canceled,
      )
      self._ranks = started.enter_context(ranks)
      self._left = started.pop_all()
    self._unread: dict[Rank, list[Message]] = {rank: [] for rank in self._ranks}
    return self

  def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
    with self._left:
      self._ranks.end(grace_sec=_GRACE_SEC if kind is None else 0.0)

  def wait(self) -> None:
    """Waits until the trial is ready for its first step."""
    self.start = self._answer(Ready)

  def go(
    self,
    num_steps: int,
    *,
    max_batches: int | None = None,
    generate: bool = False,
    each_step: bool = False,
  ) -> Interval:
    """Makes steps, and then evaluates `max_batches` batches of each split, if it is not None.

    Args:
      generate: whether the evaluation generates what the definition has generated.
      each_step: whether each step is timed by itself, which makes all of them slower.
    """
    self.begin(num_steps, max_batches=max_batches, generate=generate, each_step=each_step)
    return self.finish()

  def begin(
    self,
    num_steps: int,
    *,
    max_batches: int | None = None,
    generate: bool = False,
    each_step: bool = False,
  ) -> None:
    """Begins what `go` does, and does not wait for its end. The arguments are those of `go`."""
    options = {'max_batches': max_batches, 'generate': generate, 'each_step': each_step}
    order = json.dumps({'num_steps': num_steps, **options})
    for rank in self._ranks:
      rank.tell(order)

  def finish(self) -> Interval:
    """Waits for the end of what `begin` has begun."""
    return self._answer(Interval)

  def _answer(self, kind: type[_Answer]) -> _Answer:
    """Waits for the next message of each process, and returns that of the first.

    A process that has failed ends the waiting, as the others may wait for it themselves.
    """
    self._ranks.expect()
    while True:
      for rank in sorted(self._ranks, key=lambda rank: len(self._unread[rank])):
        self._check(rank)  # first those that died without a message: others may complain of them
      if all(self._unread.values()):
        break
      for heard in self._ranks.hear():
        self._unread[heard.rank].append(heard.message)
      if self._ranks.are_silent:
        raise StepperError(
          f'No process of the trial gave a sign of life for {self._config.heartbeat_timeout_sec:g} '
          's, the heartbeat timeout.'
        )
    answers = [unread.pop(0) for unread in self._unread.values()]
    for answer in answers:
      if not isinstance(answer, kind):
        raise StepperError(
          f'The trial was to answer with {kind.__name__}, and answered {answer!s:.60}.'
        )
    assert isinstance(answers[0], kind)
    return answers[0]

  def _check(self, rank: Rank) -> None:
    """Looks whether a process can still answer.

    Raises:
      StepperError, UserError: the process has failed, or has ended without an answer.
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
      return f'{rank.name} has closed its pipe, and does not end'
    if code < 0:
      return f'{rank.name} was ended by {signal.Signals(-code).name}'
    last = output.last_line(self.folder, rank.index) or 'no output'
    return f'{rank.name} ended with exit code {code}: {last}'

  def environment(self) -> Mapping[str, Any]:
    """Reads what the trial runs on from its record."""
    record = trial_record.read_trial(self.folder)
    assert record is not None, 'wait() comes first'
    return record.environment

  def let_go(self) -> None:
    """Tells the processes that no order follows, so that they begin to end."""
    for rank in self._ranks:
      rank.let_go()

  def close(self) -> float:
    """Lets the processes end, and returns the seconds that this took. The folder stays."""
    begin = time.perf_counter()
    self._ranks.end(grace_sec=_GRACE_SEC)
    return time.perf_counter() - begin


def moved(config: TrialConfig, folder: Path) -> TrialConfig:
  """Makes the config of the same trial from its start, with all that it writes in `folder`."""
  devices, cache = config.devices, config.devices.compilation_cache
  if cache is not None and Path(cache).is_relative_to(config.path):
    inside = folder / Path(cache).relative_to(config.path)
    devices = dataclasses.replace(devices, compilation_cache=str(inside))
  return dataclasses.replace(
    config,
    folder=str(folder),
    devices=devices,
    resume=False,
    overwrite=False,
  )
