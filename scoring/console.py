"""The leaderboard and a comparison in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from algorithmic_efficiency import errors
from scoring import summary
from scoring.leaderboard import Leaderboard
from scoring.notes import KINDS, counted
from scoring.outputs import (
  against_ranking,
  footnotes,
  leaderboard_rows,
  number_of,
  unmeasured_costs,
)
from scoring.result import Result
from scoring.statistics import verdicts
from scoring.statistics.comparison import MIN_EFFECT
from scoring.statistics.resampling import MIN_STUDIES
from scoring.statistics.verdicts import Verdict

if TYPE_CHECKING:
  from rich.console import Console
  from rich.table import Table


# Notes on what could not be read as it is, or is missing: the terminal names each.
_NAMED = (
  *('damaged', 'missing_column', 'truncated', 'bad_steps', 'bad_times', 'damaged_log'),
  *('altered_table', 'contradiction', 'impossible_metric', 'lost_record', 'lost_log'),
  *('dangling_link', 'missing_study', 'study_count', 'baseline'),
)
_MAX_PLACES = 5  # of a kind of note
_MIN_NAME = 8  # characters that are left of a name


def show_leaderboard(result: Leaderboard, console: Console | None = None) -> None:
  """Prints the leaderboard, what it means, and what was left out.

  On a terminal that is too narrow, names are shortened in the middle; numbers never are.
  """
  console = _print_table(result, console)
  _print(console, footnotes(result))
  for kind, count in counted(result.notes).items():
    _print(console, [f'Found: {KINDS[kind]} ({count}).'])
    _print(console, _places(result, kind) if kind in _NAMED else ())


def show_outcome(result: Leaderboard, console: Console | None = None) -> None:
  """Prints the leaderboard, who won where, and what departs from the rules or could not be read.

  The rest stands in the report.
  """
  console = _print_table(result, console)
  _print(console, summary.by_workload(result))
  if result.rules.changes:
    _print(console, [f'Other than the suite says: {"; ".join(result.rules.changes)}.'])
  for kind in counted(result.notes):
    if kind in _NAMED and kind != 'study_count':  # which the intervals show
      _print(console, [f'Found: {KINDS[kind]}.', *_places(result, kind)])


def _print(console: Console, lines: Iterable[str]) -> None:
  for line in lines:
    console.print(errors.printable(line), soft_wrap=True, markup=False)


def _print_table(result: Leaderboard, console: Console | None) -> Console:
  from rich.console import Console

  console = console or Console(highlight=False)
  rows = [_narrow(row) for row in leaderboard_rows(result)]
  table = _table(rows, result.rules.suite.title)
  too_wide = _width(console, table) - console.width
  if console.is_terminal and too_wide > 0:
    table = _table(_with_short_names(rows, too_wide), result.rules.suite.title)
  console.width = max(console.width, _width(console, table))  # rich would cut numbers, too
  console.print(table)
  return console


def _places(result: Leaderboard, kind: str) -> list[str]:
  """Where the notes of a kind are, a line each; at most `_MAX_PLACES` of them."""
  notes = [note for note in result.notes if note.kind == kind]
  lines = [
    errors.printable(f'  {note.where}: {note.detail}'.rstrip(': ')) for note in notes[:_MAX_PLACES]
  ]
  more = len(notes) - _MAX_PLACES
  return [*lines, f'  and {more} more, see leaderboard.json'] if more > 0 else lines


def _table(rows: Sequence[dict[str, str]], title: str) -> Table:
  import rich.box
  from rich.table import Table
  from rich.text import Text

  table = Table(
    box=rich.box.SIMPLE_HEAD,
    padding=(0, 1, 0, 0),
    title=Text(errors.printable(title)),
    title_justify='left',
  )
  for name in rows[0]:
    right = name in ('#', 'score', 'scored on')
    table.add_column(name, justify='right' if right else 'left', no_wrap=True)
  for row in rows:
    table.add_row(*map(Text, row.values()))
  return table


def _width(console: Console, table: Table) -> int:
  """The characters that a table takes when nothing in it is cut."""
  return console.measure(table, options=console.options.update(max_width=10_000)).maximum


def _with_short_names(rows: Sequence[dict[str, str]], num_fewer: int) -> list[dict[str, str]]:
  """The rows with their longest names shorter by so many characters, as far as they stay apart."""
  names = [row['submission'] for row in rows]
  longest = max(_MIN_NAME, max(map(len, names)) - num_fewer)
  short = [_shortened(name, longest) for name in names]
  if len(set(short)) < len(set(names)):
    return list(rows)
  return [{**row, 'submission': name} for row, name in zip(rows, short, strict=True)]


def _shortened(name: str, longest: int) -> str:
  if len(name) <= longest:
    return name
  tail = (longest - 1) // 2
  return f'{name[: longest - 1 - tail]}…{name[-tail:]}'


def _narrow(row: dict[str, str]) -> dict[str, str]:
  """A row with the coverage inside the interval's column: a terminal has 80 characters."""
  if 'interval' not in row:
    return row
  coverage = f' ({row["coverage"]})' if row['coverage'] else ''
  both = {'interval': 'interval (coverage)'}
  texts = {**row, 'interval': row['interval'] + coverage}
  return {both.get(name, name): text for name, text in texts.items() if name != 'coverage'}


def sentence(verdict: Verdict) -> str:
  """A verdict in words: who is faster, by how much, and how sure that is."""
  said = {
    'better': f'{verdict.a} is better than {verdict.b}',
    'worse': f'{verdict.a} is worse than {verdict.b}',
    'same': f'{verdict.a} and {verdict.b} are the same',
    'undecided': f'Undecided between {verdict.a} and {verdict.b}',
  }[verdict.verdict]
  pairing = 'paired by seed' if verdict.paired else 'unpaired'
  studies = number_of(verdict.num_studies, 'study', 'studies')
  text = (
    f'{said}: {_who_is_faster(verdict)} in the geometric mean over '
    f'{number_of(verdict.num_workloads, "workload", "workloads")} with {studies} {pairing} '
    f'(p = {verdict.adjusted_p:.2g}).{_misses(verdict)}'
  )
  return text if verdict.verdict != 'undecided' else f'{text} {_why_undecided(verdict)}'


def comparison_lines(result: Result, verdict: Verdict) -> list[str]:
  """A verdict in words, and what a reader has to know of it.

  The latter is why it contradicts the ranking, what is uncertain beyond it, and trials cut short.
  """
  lines = [sentence(verdict), against_ranking(result, verdict), *unmeasured_costs(result)]
  return [line for line in lines if line] + cut_short(result, (verdict.a, verdict.b))


def cut_short(result: Result, submissions: Sequence[str]) -> list[str]:
  """The trials of submissions that did not run to their end: where each stopped, and why."""
  reasons = {note.where: note.detail for note in result.notes if note.kind == 'cut_short'}
  table = result.outcomes
  lines = []
  for row in table[table.submission.isin(submissions) & table.path.isin(reasons)].itertuples():
    steps = result.rules.budget_steps(row.workload)
    budget = '' if steps is None else f' of {steps:,}'
    at = '' if np.isnan(row.total_step) else f' at step {row.total_step:,.0f}{budget}'
    counts = '' if row.status == 'reached' else '; it counts as a miss'
    lines.append(f'Cut short: {row.path}{at} ({reasons[row.path]}){counts}.')
  return lines


def _who_is_faster(verdict: Verdict) -> str:
  if verdict.speedup == 1:
    return 'equally fast'
  first = verdict.speedup > 1
  name = verdict.a if first else verdict.b
  times = verdict.speedup if first else 1 / verdict.speedup
  bound = {
    'exact': '',
    'about': 'about ',
    'at least': 'at least ' if first else 'at most ',
    'at most': 'at most ' if first else 'at least ',
  }[verdict.bound]
  return f'{name} is {bound}{times:.2f} times as fast'


def _misses(verdict: Verdict) -> str:
  """How many studies missed, which count as the cut-off; nothing if none did."""
  counts = {verdict.a: verdict.num_misses_a, verdict.b: verdict.num_misses_b}
  found = [
    f'{number_of(count, "study", "studies")} of {name}' for name, count in counts.items() if count
  ]
  return f' At the cut-off as misses: {", ".join(found)}.' if found else ''


def _why_undecided(verdict: Verdict) -> str:
  if verdict.num_studies < MIN_STUDIES:
    return 'One study says nothing of the spread between studies; run more of each.'
  if not verdict.can_decide:
    return verdicts.cannot_decide(verdict.num_studies, verdict.num_workloads)
  within = max(verdict.speedup, 1 / verdict.speedup) < verdict.min_effect
  if within and verdict.min_effect > 1 + MIN_EFFECT + 1e-9:
    return f'What a step costs is known to {verdict.min_effect - 1:.0%} only.'
  if verdict.more_studies is None:
    return 'The difference is too small for any sensible number of studies to decide.'
  more = number_of(verdict.more_studies, 'more study', 'more studies')
  return f'About {more} of each would decide it.'
