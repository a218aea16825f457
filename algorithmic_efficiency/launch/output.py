"""What the processes of a trial print: a file for each in its folder."""

from __future__ import annotations

import contextlib
import re
import traceback
from pathlib import Path
from typing import IO

_STACK = 'most recent call first):\n'  # what faulthandler heads each thread's with
_FRAME = re.compile(r'  File "(.+)", line (\d+) in (.+)')


def opened(folder: Path | None, rank: int) -> contextlib.AbstractContextManager[IO[bytes] | None]:
  """Where a process prints: a file in `folder`, or, without one, where its parent does (None)."""
  return contextlib.nullcontext() if folder is None else open(_file(folder, rank), 'ab')


def last_line(folder: Path, rank: int) -> str:
  """The last line that a process has printed; empty if there is none."""
  lines = _text(folder, rank).split('\n')
  return next(filter(None, reversed(lines)), '')


def last_stack(folder: Path, rank: int) -> list[traceback.FrameSummary]:
  """Where the main thread of a process stood when a signal ended it, the innermost call last; empty
  if it left no such trace."""
  _, found, stack = _text(folder, rank).rpartition(_STACK)  # the main thread comes last
  frames = reversed(_FRAME.findall(stack.partition('\n\n')[0])) if found else ()
  return [
    traceback.FrameSummary(file, int(line), name, lookup_line=False) for file, line, name in frames
  ]


def _file(folder: Path, rank: int) -> Path:
  return folder / ('output.txt' if rank == 0 else f'output_rank{rank}.txt')


def _text(folder: Path, rank: int) -> str:
  with contextlib.suppress(FileNotFoundError):
    return _file(folder, rank).read_text(errors='replace')
  return ''
