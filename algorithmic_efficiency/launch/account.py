"""Keeps what a process of a trial has reported, and when, by its parent's clock."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from algorithmic_efficiency.launch.ranks import POLL_SEC, Heard, Rank
from algorithmic_efficiency.trial import messages


@dataclass
class Account:
  """The account of one process.

  Attributes:
    started: when it imported the core, in monotonic seconds; None before its first message.
    ended_at: when its last message came, in monotonic seconds; None before.
    ended: that message, which says how the trial ended.
    doubtful_sec: seconds by which both times may be late, as the parent was held up.
    user_mistake: the user's mistake that it has reported, if any.
    global_step: steps made at its last row; None before the first.
    rows: the SHA-256 hash of the lines that it has written into the log.
  """

  rank: Rank
  started: float | None = None
  ended_at: float | None = None
  ended: messages.Ended | None = None
  doubtful_sec: float = 0.0
  user_mistake: str | None = None
  global_step: int | None = None
  rows: Any = field(default_factory=hashlib.sha256)

  def take(self, heard: Heard) -> None:
    """Takes a message into the account."""
    match heard.message:
      case messages.Start(age_sec=age_sec):
        self._doubt(heard)
        self.started = heard.at - age_sec
      case messages.Ended():
        self._doubt(heard)
        self.ended_at, self.ended = heard.at, heard.message
      case messages.UserMistake(message=mistake):
        self.user_mistake = mistake
      case messages.Row(line=line, global_step=global_step):
        self.rows.update(line.encode() + b'\n')
        self.global_step = max(self.global_step or 0, global_step)

  def _doubt(self, heard: Heard) -> None:
    self.doubtful_sec = max(self.doubtful_sec, heard.age_sec - 2 * POLL_SEC)

  @property
  def has_failed(self) -> bool:
    """True if it ended in any other way than by finishing the trial."""
    if self.rank.poll() not in (None, 0):
      return True
    return self.ended is not None and self.ended.status != 'finished'

  @property
  def is_over(self) -> bool:
    """True if it has come to its end."""
    return self.ended is not None or self.rank.poll() is not None

  @property
  def wall_sec(self) -> float | None:
    """Seconds from its start to its end by its parent's clock; None if it lacks one of them."""
    if self.started is None or self.ended_at is None:
      return None
    return self.ended_at - self.started
