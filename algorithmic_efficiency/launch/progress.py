"""Prints lines on trials, and what stands in them."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

from algorithmic_efficiency import errors
from algorithmic_efficiency.trial.config import TrialConfig


def say(text: str) -> None:
  """Prints a line, which may tell others' text.

  Lines go nowhere once the reader has gone (`algoeff run | head`), the output is closed, or its
  disk is full. A trial does not end for want of somebody who looks on.
  """
  _print(text, sys.stdout)


def _print(text: str, stream: TextIO | None) -> None:
  if stream is None or stream.closed:
    return
  try:
    print(errors.printable(text), file=stream, flush=True)
  except OSError:
    # What the stream still holds would fail again when the process ends.
    with open(os.devnull, 'w') as nowhere, contextlib.suppress(OSError):
      os.dup2(nowhere.fileno(), stream.fileno())


def complain(text: str) -> None:
  """Prints a line on standard error, as `say` does on standard output."""
  _print(text, sys.stderr)


def title(config: TrialConfig) -> str:
  """What a trial is called in what users read."""
  where = f'{config.workload} ({config.framework})'
  return f'{config.submission} on {where}, study {config.study}, trial {config.trial}'


def duration(seconds: float) -> str:
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours} h {minutes} min'
  return f'{minutes} min {rest} s' if minutes else f'{rest} s'
