"""Keeps what the processes of a trial print: a file for each in the trial's folder."""

from __future__ import annotations

import contextlib
import re
import traceback
from pathlib import Path
from typing import IO

_STACK = 'most recent call first):\n'  # what faulthandler heads each thread's with
_FRAME = re.compile(r'  File "(.+)", line (\d+) in (.+)')


def opened(folder: Path | None, rank: int) -> contextlib.AbstractContextManager[IO[bytes] | None]:
  """Opens the file that a process prints to; gives None, for our own output, without a folder."""
  return contextlib.nullcontext() if folder is None else open(_file(folder, rank), 'ab')


def last_line(folder: Path, rank: int) -> str:
  """Gives the last line that a process has printed; empty if there is none."""
  return last_line_of(_file(folder, rank))


def last_line_of(file: Path) -> str:
  """Gives the last line of a file that is not empty; empty if there is none."""
  return next(filter(None, reversed(_text(file).split('\n'))), '')


def last_stack(folder: Path, rank: int) -> list[traceback.FrameSummary]:
  """Gives the stack of the main thread at the signal that ended a process, the innermost call last.

  Empty if the process has printed none.
  """
  _, found, stack = _text(_file(folder, rank)).rpartition(_STACK)  # the main thread comes last
  frames = reversed(_FRAME.findall(stack.partition('\n\n')[0])) if found else ()
  return [
    traceback.FrameSummary(file, int(line), name, lookup_line=False) for file, line, name in frames
  ]


def _file(folder: Path, rank: int) -> Path:
  return folder / ('output.txt' if rank == 0 else f'output_rank{rank}.txt')


def _text(file: Path) -> str:
  with contextlib.suppress(FileNotFoundError):
    return file.read_text(errors='replace')
  return ''
