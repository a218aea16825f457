"""Runs a trial on this machine: one process a rank, under a parent that keeps its own clock.

The parent imports no framework. A trial ends with the process, and with the thread, that started
it: both must live as long as the trial does.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from algorithmic_efficiency import errors
from algorithmic_efficiency.launch import outcome as outcomes
from algorithmic_efficiency.launch.account import Account
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.launch.ranks import Ranks, rank_configs
from algorithmic_efficiency.launch.relay import Relay
from algorithmic_efficiency.launch.trial_folder import TrialFolder
from algorithmic_efficiency.optimizers import by_name
from algorithmic_efficiency.results import trial_record
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial import messages
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.messages import Message

WORKER = (sys.executable, '-P', '-m', 'algorithmic_efficiency.trial.worker')
"""The command of a trial's process; the descriptor of its pipe and its parent's number follow."""

_GRACE_SEC = 10.0  # time for the other ranks to end by themselves when one has ended

OnMessage = Callable[[Message], None]


def run_trial(
  config: TrialConfig,
  on_message: OnMessage = lambda message: None,
  *,
  environment: Mapping[str, str] = MappingProxyType({}),
  canceled: threading.Event | None = None,
  mistakes_are_outcomes: bool = False,
) -> Outcome:
  """Runs one trial to its end, and checks its clock and its rows.

  Args:
    on_message: called with the messages of rank 0, and with the findings of all ranks.
    environment: environment variables that its processes get besides our own.
    canceled: once this is set, the trial is interrupted and KeyboardInterrupt is raised.
    mistakes_are_outcomes: if true, a mistake of the user's becomes the trial's outcome. If false,
      it is raised.

  Raises:
    UserError: the user made a mistake that kept the trial from running, or another process is at
      work in its folder.
  """
  if config.devices.rank != 0:  # one of several parents: the first one keeps the folder
    run = _Run(environment, None, canceled)
    run.watch([config], on_message)
    return run.outcome(config)
  with TrialFolder(config.path, replace=config.overwrite) as folder:
    before = trial_record.read_trial(config.path)
    by_name.keep(Path(config.submission_path), config.path)
    run = _Run(environment, config.path, canceled)

    relay = Relay(config.path, config.options.trackers)

    def take(message: Message) -> None:
      relay.take(message)
      if isinstance(message, messages.Row) and message.global_step > 0:
        folder.forget_replaced()
      on_message(message)

    try:
      with relay:
        run.watch(rank_configs(config), take)
    except KeyboardInterrupt:
      if not (folder.is_replacing() and folder.discard_if_empty()):
        _write(config, outcomes.interrupted(config), before, run.global_step)
      raise
    mistake = run.user_mistake
    if mistake is not None and not mistakes_are_outcomes:
      folder.discard_if_empty()
      raise errors.UserError(mistake)
    folder.forget_replaced()
    found = run.outcome(config) if mistake is None else outcomes.mistaken(config, mistake)
    _write(config, found, before, run.global_step)
    return found


class _Run:
  """Holds the processes of one trial from their start to their end, and an account of each."""

  def __init__(
    self,
    environment: Mapping[str, str],
    output_folder: Path | None,
    canceled: threading.Event | None,
  ):
    self._environment = environment
    self._output_folder = output_folder
    self._canceled = canceled
    self._accounts: list[Account] = []
    self._timed_out = False

  @property
  def user_mistake(self) -> str | None:
    """The user's mistake that has ended the trial, if one has."""
    return next((one.user_mistake for one in self._accounts if one.user_mistake), None)

  @property
  def global_step(self) -> int | None:
    """Steps made at the last row; None before the first."""
    return self._accounts[0].global_step if self._accounts else None

  def outcome(self, config: TrialConfig) -> Outcome:
    return outcomes.outcome_of(config, self._accounts, timed_out=self._timed_out)

  def watch(self, configs: Sequence[TrialConfig], on_message: OnMessage) -> None:
    """Starts the processes, hears them until all have closed their pipes, and ends them.

    Something that a submission has started may keep a process or a pipe open for ever: all are
    ended some seconds after the trial is over. A submission may also never return: all are ended
    when none has sent anything for the heartbeat timeout.

    Raises:
      KeyboardInterrupt: `canceled` was set.
    """
    with Ranks(
      configs,
      WORKER,
      environment=self._environment,
      output_folder=self._output_folder,
      canceled=self._canceled,
    ) as ranks:
      self._accounts = [Account(rank) for rank in ranks]
      for rank in ranks:
        rank.let_go()
      self._hear(ranks, on_message)

  def _hear(self, ranks: Ranks, on_message: OnMessage) -> None:
    over_at: float | None = None
    while not all(one.rank.hung_up for one in self._accounts):
      for heard in ranks.hear():
        self._accounts[heard.rank.index].take(heard)
        if heard.rank.index == 0 or isinstance(heard.message, messages.Finding):
          on_message(heard.message)
      if any(one.rank.garbled is not None for one in self._accounts):
        return
      if over_at is None and self._is_over():
        over_at = time.perf_counter()
      if over_at is None and ranks.are_silent:
        self._timed_out = True
        ranks.end(show_stacks=True)
        return
      if over_at is not None and time.perf_counter() - over_at > _GRACE_SEC:
        return

  def _is_over(self) -> bool:
    """Tells whether a process has failed, or all of them have come to their end."""
    return any(one.has_failed for one in self._accounts) or all(
      one.is_over for one in self._accounts
    )


def _write(
  config: TrialConfig, outcome: Outcome, before: TrialRecord | None, global_step: int | None
) -> None:
  """Writes the outcome, as the parent sees it, into the trial's record.

  Args:
    before: the record of the last attempt.
    global_step: steps made at the last row that the parent knows of; None before the first row.
  """
  record = _left(config)
  if record.status == 'running':  # the trial was cut off, and could not write its steps
    resumed_at = before.global_step if config.resume and before is not None else 0
    record = dataclasses.replace(record, global_step=global_step or resumed_at)
  record = dataclasses.replace(
    record,
    status=outcome.status,
    stop_reason=outcome.stop_reason or None,
    reason=outcome.reason,
    parent_wall_sec=outcome.parent_wall_sec,
  )
  num_out_of_memory = _num_out_of_memory(record, before)
  dataclasses.replace(record, num_out_of_memory=num_out_of_memory).write(config.path)


def _left(config: TrialConfig) -> TrialRecord:
  """Reads the record that the trial has left; makes a new one if it left none, or a damaged one."""
  try:
    return trial_record.read_trial(config.path) or config.record()
  except errors.UserError:
    return config.record()


def _num_out_of_memory(record: TrialRecord, before: TrialRecord | None) -> int:
  """Counts how often in a row the trial has run out of memory on this host."""
  if record.stop_reason != 'out_of_memory':
    return 0
  host = record.environment.get('host_hash')
  if before is None or before.environment.get('host_hash') != host:
    return 1
  return before.num_out_of_memory + 1
