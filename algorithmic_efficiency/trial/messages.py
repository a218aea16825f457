"""What a trial's process tells its parent: one JSON object a line, through a pipe of its own.

Each kind of message is one record, built by the sender and checked by the receiver. A line of
another form makes the trial invalid, as something else than the trial must have written it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec

from algorithmic_efficiency.benchmark import check_rules
from algorithmic_efficiency.clock import BUCKETS
from algorithmic_efficiency.results.schema import Count, Seconds
from algorithmic_efficiency.results.trial_record import StopReason

MAX_LINE_BYTES = 1 << 24  # the longest rows have some thousand metrics, of some ten bytes each

_Positive = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class _Message(
  msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field='kind'
):
  """A message; its tag is its kind."""


class Start(_Message, frozen=True, tag='start'):
  """The process is there.

  Attributes:
    age_sec: how long ago it imported the core, at which its clock begins.
  """

  age_sec: Seconds


class Begin(_Message, frozen=True, tag='begin'):
  """The trial stands before its first step."""


class Row(_Message, frozen=True, tag='row'):
  """A record that was appended to the log.

  Attributes:
    line: the record as it stands in the file, without the end of the line.
    global_step: steps made when it was written; 0 for one that has no step.
  """

  line: str
  global_step: Count = 0


class Progress(_Message, frozen=True, tag='progress'):
  """How far the trial has come.

  Attributes:
    eval: the last evaluation's row; None before the first. A value that is not finite is None.
    steps_per_sec: None before the first step was timed.
    batch_size: examples a step, as the submission asked for; 0 if unknown.
    is_evaluating: whether an evaluation begins here, which is not timed.
  """

  global_step: Count
  charged_steps: Count
  submission_time: Seconds
  total_duration: Seconds
  eval: dict[str, float | None] | None
  steps_per_sec: float | None
  batch_size: Count
  is_evaluating: bool

  @property
  def metrics(self) -> dict[str, float]:
    """The last evaluation's row, empty before the first; NaN for values that are not finite."""
    row = self.eval or {}
    return {name: math.nan if value is None else value for name, value in row.items()}


class Finding(_Message, frozen=True, tag='finding'):
  """What `algoeff check` has seen the submission do.

  Attributes:
    rule: a name in `check_rules.KINDS`.
    file, line: where in the submission; empty and 0 where that is not known.
    ends: whether it has ended the process.
  """

  rule: str
  text: str
  file: str
  line: Count
  ends: bool

  def __post_init__(self) -> None:
    if self.rule not in check_rules.KINDS:
      raise ValueError(f'there is no rule {self.rule!r}')


class UserMistake(_Message, frozen=True, tag='user_error'):
  """The trial cannot run because of a mistake that the user can correct."""

  message: str


class Ended(_Message, frozen=True, tag='ended'):
  """How the trial ended, by its own account.

  Attributes:
    wall_sec: what this process has on the trial's clock.
    log_offset: where the rows of this process begin in the log, in bytes.
  """

  status: Literal['finished', 'failed', 'invalid']
  stop_reason: StopReason
  reason: str
  wall_sec: Seconds
  log_offset: Count


class Ready(_Message, frozen=True, tag='ready'):
  """A trial that waits for orders stands before its first step.

  Attributes:
    clock_sec: what is on the trial's clock, which begins when its process imports the core.
  """

  eval_batch_size: _Positive
  clock_sec: Seconds


class Interval(_Message, frozen=True, tag='interval'):
  """Some steps that were ordered, and the evaluation after them if there was one.

  Attributes:
    charged_steps: batches drawn from the input queue; at least as many as steps.
    buckets: seconds spent, by bucket of the trial's clock.
    peak_memory_bytes: high-water marks by place ('host', 'device').
    step_secs: seconds of each step, where each was timed by itself; empty otherwise.
  """

  num_steps: _Positive
  charged_steps: _Positive
  buckets: dict[str, float]
  peak_memory_bytes: dict[str, Count]
  step_secs: list[Seconds]

  def __post_init__(self) -> None:
    if set(self.buckets) != set(BUCKETS) or self.sec <= 0.0:
      raise ValueError('the buckets are not those of steps that took time')

  @property
  def sec(self) -> float:
    """Seconds that the steps took."""
    return self.buckets['data'] + self.buckets['update']

  @property
  def step_sec(self) -> float:
    """Seconds of a charged step."""
    return self.sec / self.charged_steps


class Failed(_Message, frozen=True, tag='failed'):
  """A trial that waits for orders has failed.

  Attributes:
    mendable: whether the user can correct what ended it.
  """

  reason: str
  mendable: bool


Message = Start | Begin | Row | Progress | Finding | UserMistake | Ended | Ready | Interval | Failed

_KINDS: dict[str, type[_Message]] = {
  str(kind.__struct_config__.tag): kind for kind in _Message.__subclasses__()
}
_decode = msgspec.json.Decoder(Message).decode
_encode = msgspec.json.Encoder(enc_hook=lambda value: value.item()).encode  # numpy's numbers


class Reporter:
  """The sending end, in the trial's process.

  A parent that has gone is not an error here: the process is about to be ended with it.
  """

  def __init__(self, descriptor: int | None):
    self._descriptor = descriptor

  def send(self, kind: str, **fields: Any) -> None:
    """Sends a message of this kind.

    Raises:
      TypeError: these are not the fields of such a message.
    """
    if self._descriptor is None:
      return
    data = encoded(kind, fields)
    try:
      while data:
        data = data[os.write(self._descriptor, data) :]
    except OSError:
      self._descriptor = None


def encoded(kind: str, fields: Mapping[str, Any]) -> bytes:
  """A message as a line; what is no text in UTF-8 is written as escapes."""
  clean = {name: _as_text(value) for name, value in fields.items()}
  return _encode(_KINDS[kind](**clean)) + b'\n'


def _as_text(value: Any) -> Any:
  return value.encode(errors='backslashreplace').decode() if isinstance(value, str) else value


class GarbledError(Exception):
  """Something else than the trial has written into its pipe."""

  def __init__(self, line: bytes, problem: object):
    super().__init__(
      f'A line in the pipe of the trial is no message of it ({problem}): {line[:60]!r}. Only the '
      'harness may write there.'
    )


class LineBuffer:
  """The receiving end: bytes go in as they come, whole messages come out."""

  def __init__(self) -> None:
    self._rest = bytearray()

  def feed(self, data: bytes) -> Iterator[Message]:
    """Gives the messages that are complete with these bytes.

    Raises:
      GarbledError: a line is no message; those before it were given.
    """
    self._rest += data
    *lines, self._rest = self._rest.split(b'\n') if b'\n' in data else [self._rest]
    for line in lines:
      yield _message(bytes(line))
    if len(self._rest) > MAX_LINE_BYTES:
      raise GarbledError(bytes(self._rest[:60]), f'it is longer than {MAX_LINE_BYTES:,} bytes')


def _message(line: bytes) -> Message:
  try:
    return _decode(line)
  except (msgspec.DecodeError, RecursionError) as error:
    raise GarbledError(line, error) from None
