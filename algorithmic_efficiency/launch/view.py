"""Draws a tally in a terminal: what runs, who leads, and how far all is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions
from rich.text import Text

from algorithmic_efficiency import errors
from algorithmic_efficiency.launch import words
from algorithmic_efficiency.launch.progress import duration
from algorithmic_efficiency.launch.tally import Standing, Tally

_MAX_RUNNING = 8  # rows
_MAX_LEADERS = 10
_GAP = 2  # characters between columns
_WIDE = 72  # characters of a terminal that has room for phases
_PHASE = len('evaluating')  # so that columns stay where they are
_MIN_NAME = 8  # characters that are left of a name


@dataclass(frozen=True)
class View:
  """The live view; it is drawn anew for the width that the terminal has at that time."""

  tally: Tally

  def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
    width = options.max_width
    yield _line(self._headline(), 'bold')
    for line in self._running(width):
      yield _line(line)
    if len({config.submission for config in self.tally.configs}) > 1:
      for line in self._standings(width):
        yield _line(line)

  def _headline(self) -> str:
    total, number = self.tally.total(), len(self.tally.configs)
    ended = total['done'] + total['failed']
    parts = [f'{ended} of {number} trials ended']
    if total['failed']:
      parts.append(f'{total["failed"]} failed')
    if ended < number:
      parts.append(words.time_left(self.tally.left()))
    return ', '.join(parts)

  def _running(self, width: int) -> Iterator[str]:
    rows = []
    for job in list(self.tally.running)[:_MAX_RUNNING]:
      index = self.tally.trial(job)
      if index is None:
        yield f'{words.timing(self.tally.timing(job))}, {duration(self.tally.age(job))}'
        continue
      config = self.tally.configs[index]
      where = f'{config.submission} on {config.workload}, study {config.study}'
      if config.ruleset == 'external':
        where += f', trial {config.trial}'
      phase = [self.tally.running_of(index).phase.ljust(_PHASE)] if width >= _WIDE else []
      rows.append([where, *phase, words.steps(self.tally, index), self._value(index)])
    yield from aligned(rows, width, name=0)
    more = len(self.tally.running) - _MAX_RUNNING
    if more > 0:
      yield f'and {more} more run'

  def _value(self, index: int) -> str:
    found, target = words.value(self.tally, index), self.tally.target(index)
    if found is None:
      return ''
    sign = '≥' if target.direction == 'max' else '≤'
    return f'{target.metric} {found:.4g} (target {sign} {target.validation:.4g})'

  def _standings(self, width: int) -> Iterator[str]:
    standings = self.tally.standings()
    if not any(sum(one.ended.values()) for one in standings):
      return
    workloads = list(dict.fromkeys(config.workload for config in self.tally.configs))
    rows = [['', 'submission', 'ratio', *workloads]]
    few = [['', 'submission', 'ratio', 'reached']]
    for place, one in enumerate(standings[:_MAX_LEADERS], 1):
      is_ranked = not math.isnan(one.times)
      start = (
        [str(place), _name(one, standings), f'{one.times:.2f}']
        if is_ranked
        else (['', _name(one, standings), ''])
      )
      rows.append([*start, *(_cell(one, workload) for workload in workloads)])
      few.append([*start, f'{sum(one.reached.values())} of {sum(one.ended.values())}'])
    yield 'Who leads so far, in plain steps to the target:'
    yield from aligned(rows if _fits(rows, width, name=1) else few, width, name=1)


def _name(one: Standing, others: Sequence[Standing]) -> str:
  frameworks = {other.framework for other in others}
  return one.submission if len(frameworks) == 1 else f'{one.submission} ({one.framework})'


def _cell(one: Standing, workload: str) -> str:
  """The median steps on a workload, and in brackets how many of the studies reached the target."""
  ended = one.ended.get(workload, 0)
  if not ended:
    return ''
  steps = one.steps[workload]
  shown = f'{steps:,.0f}' if math.isfinite(steps) else 'missed'
  return f'{shown} ({one.reached[workload]}/{ended})'


def aligned(rows: Sequence[Sequence[str]], width: int, *, name: int) -> list[str]:
  """Puts rows into columns. Where they are too wide, the column of names is cut.

  Args:
    name: the index of that column; those after it are aligned to the right.
  """
  if not rows:
    return []
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  others = _others(widths, name)
  widths[name] = min(widths[name], max(_MIN_NAME, width - others))
  return [
    (' ' * _GAP).join(
      _cut(cell, size).ljust(size) if index <= name else cell.rjust(size)
      for index, (cell, size) in enumerate(zip(row, widths, strict=True))
    )
    for row in rows
  ]


def _fits(rows: Sequence[Sequence[str]], width: int, *, name: int) -> bool:
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return _others(widths, name) + min(widths[name], _MIN_NAME) <= width


def _others(widths: Sequence[int], name: int) -> int:
  return sum(widths) - widths[name] + _GAP * (len(widths) - 1)


def _cut(text: str, size: int) -> str:
  return text if len(text) <= size else f'{text[: size - 1]}…'


def _line(text: str, style: str = '') -> Text:
  return Text(errors.printable(text), style=style, no_wrap=True, overflow='ellipsis')
