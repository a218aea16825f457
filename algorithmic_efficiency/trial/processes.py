"""The processes below one, and what threads and processes have computed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

_TICK_SEC = 1.0 / os.sysconf('SC_CLK_TCK')


def processes_below(
  root: int, *, but_for: Collection[int] = frozenset()
) -> Iterator[tuple[int, str]]:
  """Number and name of the processes that a process has started, or that those have, as far as they
  have not ended; without those in `but_for` and what is below them."""
  parents: dict[int, tuple[int, str]] = {}
  for entry in os.listdir('/proc') if os.path.isdir('/proc/self/task') else ():
    stat = _stat_fields(f'/proc/{entry}/stat') if entry.isdigit() else None
    if stat is not None and stat[1][0] != 'Z':
      parents[int(entry)] = (int(stat[1][1]), stat[0])
  for number, (_, name) in parents.items():
    ancestor, seen = number, 0
    while ancestor in parents and ancestor != root and ancestor not in but_for and seen < 64:
      ancestor, seen = parents[ancestor][0], seen + 1
    if ancestor == root and number != root:
      yield number, name


def birth(number: int) -> str | None:
  """When a process began, in ticks since the system did; None if there is none."""
  stat = _stat_fields(f'/proc/{number}/stat')
  return None if stat is None else stat[1][19]


def cpu_sec(path: str) -> float | None:
  stat = _stat_fields(path)
  return None if stat is None else (int(stat[1][11]) + int(stat[1][12])) * _TICK_SEC


def _stat_fields(path: str) -> tuple[str, list[str]] | None:
  try:
    with open(path, encoding='utf-8', errors='replace') as file:
      head, _, tail = file.read().rpartition(')')
  except OSError:
    return None  # it has ended
  return head.partition('(')[2], tail.split()
